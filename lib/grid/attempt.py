"""One attempt at a cell: make in a process that ends with whoever asked for it, and its record."""

import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path

from lib.config import ROOT
from lib.grid.cells import Cell, plain_environment
from lib.processes import PARENT, end_with_parent, hold, let_go
from lib.tables import load_json, write_text

JUDGES_MORE = 3  # how often a cell goes on with a judge that was started again
# what a stage says where it may not go on: a setting has to change, or another process to end
MAY_NOT = re.compile(r"\d\d_\w+ failed: (SettingsDiffer|FolderInUse|ProfileError)\b")


def read_record(folder: Path) -> dict | None:
    """What the last attempt at a cell left in its folder, None where there was none.

    began, earlier (seconds of attempts before), process, host, job; ended, code, last and refused
    once it came to its end. Raises DamagedFile.
    """
    path = folder / "grid.json"
    return load_json(path) if path.exists() else None


def seconds_at_work(folder: Path, record: dict, until: float | None = None) -> float:
    """Seconds of all attempts; one that was killed lasted until its log's last line."""
    log = folder / "grid.log"
    written = log.stat().st_mtime if log.exists() else record["began"]
    end = until or record.get("ended", written)
    return record["earlier"] + max(0.0, end - record["began"])


def last_line_of(text: str) -> tuple[str, bool]:
    """The line of an attempt's log that says why it ended, and whether the run was refused.

    Refused: it ended before its first stage, or the stage said that it may not go on.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line for line in lines if not re.match(r"make(\[\d+\])?: |-- ", line)]
    last = own[-1] if own else lines[-1] if lines else ""
    begun = any(line.startswith("== ") for line in lines)
    return last, not begun or MAY_NOT.match(last) is not None


def job_name() -> str | None:
    """This process's task of a job array of Slurm, such as 12_3."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{x}_ID") for x in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else None


def alone() -> tuple[dict[str, str], None]:
    """What a cell without a judge of its own has to wait for: nothing."""
    return {}, None


def attempt(cell: Cell, py: str, ready=alone) -> int:
    """Make a cell; make's exit code. Its words go to `grid.log`, beside the record `grid.json`.

    ready: waits for the judge that the cell needs; it returns variables of the environment and the
    judge's note. An error of it is the attempt's. Raises FolderInUse where another process makes
    the cell.
    """
    end_with_parent(group=True)
    folder = cell.folder
    folder.mkdir(parents=True, exist_ok=True)
    lock = hold(folder)
    old = read_record(folder)
    earlier = seconds_at_work(folder, old) if old else 0.0
    record = {"began": time.time(), "earlier": earlier, "process": os.getpid()}
    record |= {"host": socket.gethostname(), "job": job_name()}
    path = folder / "grid.json"
    write_text(path, json.dumps(record) + "\n")

    with (folder / "grid.log").open("a+", errors="replace") as log:
        begin = log.tell()
        now, where = time.strftime("%Y-%m-%d %H:%M:%S"), record["job"] or record["process"]
        command = ["make", cell.target, *cell.words, f"PY={py}"]
        print(f"-- {now} {record['host']} {where}: {' '.join(command)}", file=log, flush=True)
        code = run_make(command, log, lock, ready)
        log.seek(begin)
        last, refused = last_line_of(log.read())

    record |= {"ended": time.time(), "code": code}
    record |= {"last": last, "refused": refused} if code else {}
    write_text(path, json.dumps(record) + "\n")
    let_go(folder)
    return code


def run_make(command: list[str], log, lock: int, ready) -> int:
    """Run make with its words in `log`; while anything of it lives, the folder stays held.

    Where make failed and the judge was started again meanwhile, make goes on with the new one.
    """
    code, judge = 1, None
    for again in range(1 + JUDGES_MORE):
        try:
            found, now = ready()
        except RuntimeError as error:
            if not again:
                print(error, file=log, flush=True)
            break
        if again and now == judge:
            break
        if again:
            print("-- the judge was started again: make goes on", file=log, flush=True)
        judge = now
        environment = plain_environment() | found
        environment.pop(PARENT, None)
        code = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
        ).returncode
        if code == 0:
            break
    return code
