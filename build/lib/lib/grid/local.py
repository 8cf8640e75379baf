"""A grid on one machine: cell after cell, each in a process group that ends with this process."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

from lib.config import ROOT
from lib.grid.cells import Cell
from lib.grid.state import Row, draw_table, look, row_words
from lib.processes import PARENT

LOOK_EVERY = 2.0  # seconds between two looks at the cell that runs


def run_cells(cells: list[Cell], py: str) -> list[Row]:
    """Make every cell that is not done and that nobody else makes; the rows at the end.

    A cell that fails stops no other one. The table is drawn again as it changes on a terminal;
    elsewhere a line tells each change.
    """
    rows = [look(cell, py) for cell in cells]
    board = Board(rows)
    for i, cell in enumerate(cells):
        rows[i] = look(cell, py)  # another process may have made it meanwhile
        if rows[i].state in ("done", "running"):
            continue
        command = [sys.executable, "-m", "lib.grid", "cell", *cell.line.split(), "--py", py]
        environment = os.environ | {PARENT: str(os.getpid())}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
        try:
            while process.poll() is None:
                rows[i] = look(cell, py)
                board.show(rows)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_EVERY)
        finally:
            end_group(process)
        rows[i] = look(cell, py)
        board.show(rows)
    board.close(rows)
    return rows


def end_group(process: subprocess.Popen, patience: float = 10.0) -> None:
    """End a process and what it left in its group: asked first, killed after `patience` seconds."""
    for number, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, 2.0)):
        end = time.monotonic() + wait
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
            while time.monotonic() < end:
                process.poll()  # a child that has ended is in its group until it is asked for
                os.killpg(process.pid, 0)
                time.sleep(0.05)


class Board:
    """The table as it changes: redrawn in place on a terminal, one line a change elsewhere."""

    def __init__(self, rows: list[Row]):
        self.lines = 0
        self.told = {row.cell: (row.state, row.stage) for row in rows}

    def show(self, rows: list[Row]) -> None:
        """Show the rows as they are now."""
        size = shutil.get_terminal_size()
        if sys.stdout.isatty() and len(rows) + 3 < size.lines:
            up = f"\x1b[{self.lines}F\x1b[J" if self.lines else ""
            table = draw_table(rows, size.columns - 1)
            self.lines = table.count("\n") + 1
            print(f"{up}{table}", flush=True)
            return
        for row in rows:
            if self.told[row.cell] != (row.state, row.stage):
                print("  ".join(word for word in row_words(row) if word), flush=True)
                self.told[row.cell] = (row.state, row.stage)

    def close(self, rows: list[Row]) -> None:
        """Leave the whole table, every line in full."""
        print(f"\x1b[{self.lines}F\x1b[J" * bool(self.lines) + draw_table(rows), flush=True)
