"""Numbers in words: an estimate with its interval, a direction, what make prints of a run."""

import argparse
import json
import math
import sys
from pathlib import Path

from lib.runs import code_digest
from lib.tables import load_json

MAIN = ("accuracy_", "gain_", "repair_rate", "damage_rate", "pass_at_")


def estimate(row, form: str = ".0%", n: bool = True) -> str:
    """An estimate with its interval and n, such as "36% [28%, 46%] (n=96)".

    row: value, low, high and n, as a mapping, a frame's row or a named tuple; form: a format of
    numbers. An interval that is not finite is said to be unknown.
    """
    row = _mapping(row)
    value, low, high = (row[key] for key in ("value", "low", "high"))
    known = low is not None and high is not None and math.isfinite(low) and math.isfinite(high)
    interval = f"[{low:{form}}, {high:{form}}]" if known else "(no finite interval)"
    count = f" (n={row['n']:.0f})" if n and row.get("n") is not None else ""
    return f"{value:{form}} {interval}{count}"


def direction(row, up: str, down: str, same: str, holm: float | None = None) -> str:
    """`up` or `down` where the interval lies on one side of 0, else `same`.

    With `holm`, a p-value after Holm's correction, it must be below 0.05 as well.
    """
    row = _mapping(row)
    if holm is not None and not holm < 0.05:
        return same
    return up if row["low"] > 0 else down if row["high"] < 0 else same


def _mapping(row) -> dict:
    return row._asdict() if hasattr(row, "_asdict") else dict(row)


def numbers(folder: Path) -> str:
    """The run's main rows with their intervals, then each stage's seconds and their total.

    Raises FileNotFoundError when the run has no summary yet.
    """
    path = folder / "summary.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; no stage has finished (`make all`)")
    rows = load_json(path)
    lines = [_row(row) for row in rows if row["name"].startswith(MAIN)]
    times = {
        row["name"].removeprefix("seconds_"): row["value"]
        for row in rows
        if row["name"].startswith("seconds_")
    }
    peaks = {  # a run made before it was measured has none
        row["name"]: f" {row['value']:5.1f} GB"
        for row in rows
        if row["name"].startswith("peak_gb_") and row["value"] is not None
    }
    lines += [
        f"{stage:<36} {value:8.0f} s{peaks.get(f'peak_gb_{stage}', '')}"
        for stage, value in times.items()
    ]
    lines += [f"{'all stages':<36} {sum(times.values()):8.0f} s", f"{path}"]
    lines += [
        f"{folder / stage} was made by other code; remove it to renew it"
        for stage in _stale(folder)
    ]
    return "\n".join(lines)


def _row(row: dict) -> str:
    """One summary row: name, value, 95 % interval where it has one, number of observations."""
    value = "-" if row["value"] is None else f"{row['value']:.3f}"
    known = row["low"] is not None and row["high"] is not None
    interval = f"[{row['low']:.3f}, {row['high']:.3f}]" if known else ""
    n = "" if row["n"] is None else f"n={row['n']}"
    return f"{row['name']:<36} {value:>8} {interval:<18} {n}".rstrip()


def _stale(folder: Path) -> list[str]:
    """The finished stages that were made by another state of the code than the present one."""
    now, done = code_digest(), sorted(folder.glob("*/done.json"))
    return [path.parent.name for path in done if load_json(path).get("code", now) != now]


def failure(notebook: Path) -> str:
    """One line: the failed notebook's error, or its log's last line, and where to look."""
    log = notebook.with_suffix(".log")
    cells = json.loads(notebook.read_text())["cells"] if notebook.exists() else []
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    errors = [output for output in outputs if output["output_type"] == "error"]

    if errors:
        reason = f"{errors[-1]['ename']}: {errors[-1]['evalue']}"
    else:
        lines = log.read_text().splitlines() if log.exists() else []
        reason = next((line for line in reversed(lines) if line.strip()), "")

    said = " ".join(reason.split()) or "no message"
    return f"{notebook.stem} failed: {said} (notebook {notebook}, log {log})"


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
