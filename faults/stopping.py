"""A run stopped at random moments, in every way that runs are stopped, and taken up again.

`python -m faults.stopping` makes the smoke run once undisturbed and once with ten stops: Ctrl-C,
SIGTERM to make, SIGTERM to its group, a closed terminal, kill -9 of the kernel, kill -9 of all.
After each nothing of the run may live for more than ten seconds, and in the end all numbers must be
those of the undisturbed run, times and memory aside. Twenty minutes.
"""

import argparse
import json
import os
import pty
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from lib.config import ROOT

RUN_MARK = "STOPPED_RUN"  # in the environment of every process of a run
WITHIN = 10.0  # seconds in which a stopped run must have ended


class Run:
    """One `make <target> RUN=smoke` on a terminal of its own, as from a user's shell."""

    def __init__(self, outputs: Path, target: str):
        self.mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self.master, terminal = pty.openpty()
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        environment |= {"OUTPUTS": str(outputs), RUN_MARK: self.mark}
        # a session of its own, whose terminal this is: closing it hangs up
        command = ["setsid", "--ctty", "make", target, "RUN=smoke", f"PY={sys.executable}"]
        streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
        self.make = subprocess.Popen(command, cwd=ROOT, env=environment, **streams)
        os.close(terminal)
        os.set_blocking(self.master, False)
        self.said, self.closed = "", False

    def alive(self) -> list[psutil.Process]:
        """The processes of the run, zombies aside."""
        found = []
        for process in psutil.process_iter():
            try:
                marked = process.environ().get(RUN_MARK) == self.mark
                if marked and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:  # it has ended, or is not ours to look at
                continue
        return found

    def listen(self, seconds: float) -> None:
        """Read what the run prints until it ends, or for some seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.make.poll() is None:
            self._read()
            time.sleep(0.1)
        self._read()

    def _read(self) -> None:
        while not self.closed:
            try:
                text = os.read(self.master, 65536).decode(errors="replace")
            except OSError:  # nothing to read now, or the other side has ended
                return
            if not text:
                return
            self.said += text

    def stage(self) -> str:
        """The notebook that runs now."""
        starts = [line for line in self.said.splitlines() if line.startswith("== ")]
        return starts[-1].split()[1] if starts else "before the first"

    def close(self) -> None:
        """Close the terminal, as its window would."""
        if not self.closed:
            self.closed = True
            os.close(self.master)


def kernels(run: Run) -> list[psutil.Process]:
    """The run's notebook kernels; the whole run where none is up yet."""
    found = [p for p in run.alive() if "ipykernel_launcher" in " ".join(p.cmdline())]
    return found or run.alive()


WAYS = {
    "Ctrl-C": lambda run: os.killpg(run.make.pid, signal.SIGINT),
    "SIGTERM to make": lambda run: os.kill(run.make.pid, signal.SIGTERM),
    "SIGTERM to the group": lambda run: os.killpg(run.make.pid, signal.SIGTERM),
    "closed terminal": lambda run: run.close(),
    "kill -9 of the kernel": lambda run: [p.kill() for p in kernels(run)],
    "kill -9 of everything": lambda run: [p.kill() for p in run.alive()],
}


def stop_run(run: Run, way: str) -> dict:
    """Stop a run: way, stage, seconds until nothing of it lived, lines that it still printed."""
    stage, before = run.stage(), len(run.said)
    start = time.monotonic()
    WAYS[way](run)
    while run.alive() and time.monotonic() - start < 3 * WITHIN:
        if run.make.poll() is None:
            run.listen(0.2)
        time.sleep(0.1)
    seconds = time.monotonic() - start
    left = run.alive()
    for process in left:
        process.kill()
    run.make.wait()
    run.listen(0)
    lines = [line for line in run.said[before:].splitlines() if line.strip()]
    run.close()
    return {"way": way, "stage": stage, "seconds": seconds, "left": len(left), "lines": lines[-4:]}


def numbers(outputs: Path) -> dict:
    """The final numbers of the run by stage and name, times and memory aside."""
    (path,) = outputs.glob("smoke/*/*/seed0/summary.json")
    rows = json.loads(path.read_text())
    return {
        (row["stage"], row["name"]): (row["value"], row["low"], row["high"], row["n"])
        for row in rows
        if not row["name"].startswith(("seconds_", "peak_gb_"))
    }


def whole(outputs: Path, target: str) -> float:
    """Run to the end; the seconds it took. Raises RuntimeError with its last lines on failure."""
    start, run = time.monotonic(), Run(outputs, target)
    run.listen(3600)
    if run.make.wait():
        raise RuntimeError("the run failed: " + " | ".join(run.said.splitlines()[-4:]))
    run.close()
    return time.monotonic() - start


def differences(one: dict, other: dict) -> list:
    """The rows whose numbers differ by more than rounding."""

    def same(a, b):
        close = a is not None and b is not None and abs(a - b) <= 1e-9 * max(1, abs(a))
        return a == b or close

    keys = sorted(set(one) | set(other))
    missing = (None,) * 4
    pairs = {key: zip(one.get(key, missing), other.get(key, missing), strict=True) for key in keys}
    return [key for key, pair in pairs.items() if not all(same(a, b) for a, b in pair)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Stop a smoke run at random moments.")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", default="experiments", help="what make is asked for")
    args = parser.parse_args()
    rng, rows = random.Random(args.seed), []
    ways = [list(WAYS)[i % len(WAYS)] for i in range(args.times)]
    rng.shuffle(ways)

    with tempfile.TemporaryDirectory() as folder:
        undisturbed, stopped = Path(folder, "whole"), Path(folder, "stopped")
        seconds = whole(undisturbed, args.target)
        print(f"undisturbed: {seconds:.0f} s", flush=True)
        for way in ways:
            run = Run(stopped, args.target)
            run.listen(rng.uniform(0.5, 1.5) * seconds / args.times)
            if run.make.poll() is not None:
                break
            rows.append(stop_run(run, way))
            row = rows[-1]
            print(f"{row['stage']}: {way}, ended in {row['seconds']:.1f} s; {row['lines'][-1:]}")
            sys.stdout.flush()
        print(f"taken up and finished in {whole(stopped, args.target):.0f} s")
        differ = differences(numbers(undisturbed), numbers(stopped))
        count = len(numbers(undisturbed))

    late = [row for row in rows if row["seconds"] > WITHIN or row["left"]]
    print(f"{len(rows)} stops, {len(late)} late; {count - len(differ)} of {count} numbers the same")
    if late or differ or len(rows) < args.times:
        sys.exit(f"late: {late}; differ: {differ[:10]}")


if __name__ == "__main__":
    main()
