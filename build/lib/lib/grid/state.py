"""How far a grid is, told from what its cells left on disk, and the table that says so."""

import time
from pathlib import Path
from typing import NamedTuple

from lib.grid.attempt import read_record, seconds_at_work
from lib.grid.cells import Cell, is_made
from lib.processes import held
from lib.runs import STAGES
from lib.tables import DamagedFile, load_json

STATES = ("waiting", "running", "done", "failed", "refused")
FAILURES = ("failed", "refused")


class Row(NamedTuple):
    """A cell's line in the table; minutes are of all attempts, None where nothing was timed."""

    cell: Cell
    state: str
    stage: str
    minutes: float | None
    last: str


class Queued(NamedTuple):
    """The task of a job array to which a cell was given, when, and what Slurm says of it.

    state: as squeue tells it, "" for a job that is no longer queued, None where squeue is silent.
    """

    job: str
    at: float
    state: str | None
    log: Path


def look(cell: Cell, py: str, queued: Queued | None = None) -> Row:
    """A cell's row, from its files and locks, and from Slurm for a cell that was given to it."""
    folder = cell.folder
    try:
        record = read_record(folder)
        state, last = _judge_state(cell, record, py, queued)
    except DamagedFile as error:
        return Row(cell, "failed", _reached(folder), None, str(error))

    if record:
        until = time.time() if state == "running" else None
        seconds = seconds_at_work(folder, record, until)
    else:
        seconds = _stage_seconds(folder)
    return Row(cell, state, _reached(folder), None if seconds is None else seconds / 60, last)


def _judge_state(cell, record, py, queued) -> tuple[str, str]:
    """The state and its last line."""
    folder = cell.folder
    open_record = record is not None and "code" not in record
    theirs = queued is not None and queued.state is not None
    begun = record is not None and queued is not None and record["job"] == queued.job

    # a lock may not be seen on other machines, or outlive its node: Slurm knows its jobs better
    works = theirs and queued.state not in ("", "PENDING") and (open_record or not begun)
    gone = theirs and begun and open_record
    if works or not gone and any(held(path) for path in (folder, *(folder / s for s in STAGES))):
        return "running", ""
    if is_made(cell, py):
        return "done", ""

    if theirs and queued.state == "PENDING":
        return "waiting", f"job {queued.job} is queued"
    newer = record is None or record["began"] < queued.at if queued else False
    if theirs and newer and not begun:
        said = _last_line(queued.log)
        return "failed", f"job {queued.job} ended before it began: {said or 'it left no word'}"
    if record is None or record.get("code") == 0:  # never begun, or its notebooks changed since
        return "waiting", ""
    if open_record:
        who = f"job {record['job']}" if record["job"] else f"process {record['process']}"
        return "failed", f"killed: {who} on {record['host']} has ended; it goes on where it was"
    return "refused" if record["refused"] else "failed", record["last"]


def _reached(folder: Path) -> str:
    """The last stage that was begun, "" before the first."""
    return max((s for s in STAGES if (folder / s / "settings.json").exists()), default="")


def _stage_seconds(folder: Path) -> float | None:
    """The seconds of a run's finished stages, for one that make was asked for without a grid."""
    clocks = [load_json(path) for path in sorted(folder.glob("*/seconds.json"))]
    return sum(clock.get("total", 0.0) for clock in clocks) if clocks else None


def _last_line(path: Path) -> str:
    text = path.read_text(errors="replace") if path.exists() else ""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "").strip()


def failures(rows: list[Row]) -> int:
    """How many cells failed or were refused."""
    return sum(row.state in FAILURES for row in rows)


def draw_table(rows: list[Row], width: int | None = None) -> str:
    """The rows as text: a head, a line for each cell, a count of states; lines cut at `width`."""
    several = len({row.cell.run for row in rows}) > 1
    head = ["run"] * several + ["model", "dataset", "seed", "state", "stage", "minutes", ""]
    cells = [head, *([row.cell.run] * several + row_words(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head) - 1)]
    right = {head.index("seed"), head.index("minutes")}
    lines = []
    for line in cells:
        padded = [
            text.rjust(w) if i in right else text.ljust(w)
            for i, (text, w) in enumerate(zip(line[:-1], widths, strict=True))
        ]
        lines.append("  ".join([*padded, line[-1]]).rstrip())

    count = {state: sum(row.state == state for row in rows) for state in STATES}
    told = ", ".join(f"{n} {state}" for state, n in count.items() if n)
    lines.append(f"{len(rows)} cells: {told}")
    return "\n".join(line[:width] for line in lines)


def row_words(row: Row) -> list[str]:
    """A row as words: model, dataset, seed, state, stage, minutes, last line."""
    minutes = "" if row.minutes is None else f"{row.minutes:.1f}"
    cell = row.cell
    return [cell.model, cell.dataset, str(cell.seed), row.state, row.stage, minutes, row.last]
