"""How much slower the engine is beside other work: a busy loop, or another run of the engine."""

import subprocess
import sys
import time
from contextlib import contextmanager

from lib.config import ROOT

LOADS = {  # what keeps the machine busy; each says a line when it is at work
    "one busy loop": ["-c", "print(flush=True)\nwhile True: pass"],
    "another run": ["-m", "bench", "--load"],
}


@contextmanager
def busy(load: str):
    """While it is open, another process does `load`."""
    command = [sys.executable, *LOADS[load]]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            if not process.stdout.readline():
                raise RuntimeError(f"{load} ended: {' '.join(command)}")
            yield
        finally:
            process.kill()


def beside_rows(work: dict, repeats: int) -> list[dict]:
    """Rows of the table: each work beside each load, and alone just before, in turn.

    work: name -> function. ratio: the seconds beside over those alone, and its range.
    """
    rows = []
    for name, run in work.items():
        run()  # warms memory and kernels up
        for load in LOADS:
            alone, beside = [], []
            for _ in range(repeats):
                alone.append(_seconds(run))
                with busy(load):
                    beside.append(_seconds(run))
            ratios = sorted(b / a for a, b in zip(alone, beside, strict=True))
            row = {"name": "beside", "setting": f"{name} beside {load}", "peer": "alone"}
            row |= {"ours_s": sorted(beside)[repeats // 2], "peer_s": sorted(alone)[repeats // 2]}
            row |= {"ratio": ratios[repeats // 2], "low": ratios[0], "high": ratios[-1]}
            rows.append(row | {"repeats": repeats, "exactness": None})
    return rows


def _seconds(run) -> float:
    """The seconds of the work, or those that it has taken by itself."""
    began = time.perf_counter()
    result = run()
    return getattr(result, "seconds", None) or time.perf_counter() - began
