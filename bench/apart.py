"""Peers with environments of their own: a process loads the model once and draws on request."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

from lib.config import ROOT


@contextmanager
def drawing(python: Path, program: list[str], given: dict) -> Iterator[Callable]:
    """A function that lets the peer draw its samples; its result has `seconds`, timed over there.

    program: a module of this folder and its arguments, which reads `given` (prompts as token ids,
    n, length) as one JSON line, then draws for each line; it has loaded and warmed up already.
    Raises RuntimeError where it ends without samples.
    """
    command = [python, "-m", *program]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:

        def draw(model=None):  # the peer holds its own
            with suppress(BrokenPipeError):  # it has ended: there is no line either
                os.write(process.stdin.fileno(), b"draw\n")  # no buffer is left to be sent later
            line = next((line for line in process.stdout if line.startswith("SECONDS")), None)
            if line is None:
                by_hand = " ".join(map(str, command))
                raise RuntimeError(f"it ended without samples; try {by_hand} by hand")
            return SimpleNamespace(seconds=float(line.split()[1]))

        process.stdin.write(json.dumps(given) + "\n")
        process.stdin.flush()
        draw()
        yield draw
        process.stdin.close()
