"""python -m lib.grid run|state|submit GRID, and `cell`, which these ask for one run."""

import argparse
import functools
import sys
from pathlib import Path

from lib.config import ROOT, ProfileError
from lib.grid.attempt import alone, attempt
from lib.grid.cells import Cell, list_cells, load_grid
from lib.grid.local import run_cells
from lib.grid.slurm import SlurmError, ask_queue, queued_cells, read_jobs, submit, wait_for_judge
from lib.grid.state import Row, draw_table, failures, look
from lib.processes import FolderInUse
from lib.runs import STAGES
from lib.tables import DamagedFile


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make every run of a grid file.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, told in (
        ("run", "make its cells here, one after another"),
        ("state", "print its table"),
        ("submit", "give what is not done to Slurm"),
    ):
        command = commands.add_parser(name, help=told)
        command.add_argument("grid", type=Path)
        command.add_argument("--py", default=sys.executable, help="the Python that make uses")

    cell = commands.add_parser("cell", help="make one run, with a record for the table")
    for name in ("run", "model", "dataset"):
        cell.add_argument(f"--{name}", required=True)
    cell.add_argument("--seed", type=int, required=True)
    cell.add_argument("--target", choices=["all", "experiments", *STAGES], default="all")
    cell.add_argument("variables", nargs="*", help="NAME=value words for make")
    cell.add_argument("--py", default=sys.executable)
    cell.add_argument("--judge", type=Path, help="the folder of the judge's job")
    return parser.parse_args()


def make_cell(args) -> int:
    """One attempt at a cell; its exit code."""
    cell = Cell(args.run, args.model, args.dataset, args.seed, args.target, tuple(args.variables))
    ready = functools.partial(wait_for_judge, ROOT / args.judge) if args.judge else alone
    return attempt(cell, args.py, ready)


def look_at_all(path: Path, cells: list[Cell], py: str) -> list[Row]:
    """The rows of a grid; Slurm is asked only where cells were given to it."""
    queue = None
    if read_jobs(path.stem):
        try:
            queue = ask_queue()
        except SlurmError as error:
            print(f"without Slurm's word ({error})", file=sys.stderr)
    known = queued_cells(path.stem, queue)
    return [look(cell, py, known.get(cell.line)) for cell in cells]


def answer(args) -> int:
    """Run, tell or submit a grid; the exit code: how many cells failed, at most 100."""
    grid = load_grid(args.grid)
    cells = list_cells(grid)
    if args.command == "run":
        try:
            rows = run_cells(cells, args.py)
        except KeyboardInterrupt:
            print(draw_table(look_at_all(args.grid, cells, args.py)))
            return 130
        return min(failures(rows), 100)

    told = submit(args.grid.stem, grid, cells, args.py) if args.command == "submit" else []
    print(draw_table(look_at_all(args.grid, cells, args.py)))
    if args.command == "submit":
        print("\n".join(told) or "nothing to submit: every cell is done, queued or running")
    return 0


def main() -> None:
    args = read_arguments()
    try:
        sys.exit(make_cell(args) if args.command == "cell" else answer(args))
    except (ProfileError, SlurmError, FolderInUse, DamagedFile, OSError) as error:
        sys.exit(f"grid: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
