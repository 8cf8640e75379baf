"""What make prints of a run: its main numbers and times, or the one line that says why a notebook
failed.
"""

import argparse
import json
import sys
from pathlib import Path

MAIN = ("accuracy_", "gain_", "repair_rate", "damage_rate", "pass_at_")


def numbers(folder: Path) -> str:
    """The run's main rows with their intervals, then each stage's seconds and their total.

    Raises FileNotFoundError when the run has no summary yet.
    """
    path = folder / "summary.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; no stage has finished (`make all`)")
    rows = json.loads(path.read_text())
    lines = [_row(row) for row in rows if row["name"].startswith(MAIN)]
    times = {
        row["name"].removeprefix("seconds_"): row["value"]
        for row in rows
        if row["name"].startswith("seconds_")
    }
    lines += [f"{stage:<36} {value:8.0f} s" for stage, value in times.items()]
    lines += [f"{'all stages':<36} {sum(times.values()):8.0f} s", f"{path}"]
    return "\n".join(lines)


def _row(row: dict) -> str:
    """One summary row: name, value, 95 % interval where it has one, number of observations."""
    value = "-" if row["value"] is None else f"{row['value']:.3f}"
    interval = (
        ""
        if row["low"] is None or row["high"] is None
        else f"[{row['low']:.3f}, {row['high']:.3f}]"
    )
    n = "" if row["n"] is None else f"n={row['n']}"
    return f"{row['name']:<36} {value:>8} {interval:<18} {n}".rstrip()


def failure(notebook: Path) -> str:
    """One line: the failed notebook's error (or its log's last line when no cell raised) and where
    to look.
    """
    log = notebook.with_suffix(".log")
    cells = json.loads(notebook.read_text())["cells"] if notebook.exists() else []
    outputs = [
        output
        for cell in cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "error"
    ]
    if outputs:
        reason = f"{outputs[-1]['ename']}: {outputs[-1]['evalue']}"
    else:
        reason = (
            next((x for x in reversed(log.read_text().splitlines()) if x.strip()), "")
            if log.exists()
            else ""
        )
    return f"{notebook.stem} failed: {' '.join(reason.split()) or 'no message'} (notebook {notebook}, log {log})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Print a run's numbers, or why its notebook failed."
    )
    parser.add_argument("command", choices=["numbers", "failure"])
    parser.add_argument("path", type=Path)
    args = parser.parse_args()
    if args.command == "failure":
        sys.exit(failure(args.path))
    try:
        print(numbers(args.path))
    except FileNotFoundError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
