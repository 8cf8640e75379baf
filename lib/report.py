"""Numbers in words: an estimate with its interval, a direction, what make prints of a run."""

import argparse
import json
import math
import sys
from itertools import dropwhile, takewhile
from pathlib import Path

from lib.runs import STAGES, code_digest
from lib.tables import load_json, write_text


def estimate(row, form: str = ".0%", n: bool = True) -> str:
    """An estimate with its interval and n, such as "36% [28%, 46%] (n=96)".

    row: value, low, high and n, as a mapping, a frame's row or a named tuple; form: a format of
    numbers. A value or an interval that is not finite is said to be unknown.
    """
    row = _mapping(row)
    value, low, high = (row[key] for key in ("value", "low", "high"))
    interval = f"[{low:{form}}, {high:{form}}]" if _finite(low, high) else "(no finite interval)"
    count = f" (n={row['n']:.0f})" if n and row.get("n") is not None else ""
    said = f"{value:{form}} {interval}" if _finite(value) else "unknown"
    return f"{said}{count}"


UNKNOWN = "(not measurable)"


def _finite(*numbers) -> bool:
    return all(number is not None and math.isfinite(number) for number in numbers)


def direction(row, up: str, down: str, same: str, holm: float | None = None) -> str:
    """`up` or `down` where the interval lies on one side of 0, else `same`.

    With `holm`, a p-value after Holm's correction, it must be below 0.05 as well. Where there is no
    interval nothing was measured, and that is said.
    """
    row = _mapping(row)
    if not _finite(row["low"], row["high"]):
        return UNKNOWN
    if holm is not None and not holm < 0.05:
        return same
    return up if row["low"] > 0 else down if row["high"] < 0 else same


def _mapping(row) -> dict:
    return row._asdict() if hasattr(row, "_asdict") else dict(row)


def executed(run: Path) -> list[Path]:
    """The executed notebooks of a run, in order."""
    return sorted(run.glob("*.ipynb"), key=lambda path: (path.stem not in STAGES, path.stem))


def last_words(notebook: Path) -> str:
    """What the last cells that print anything in an executed notebook print: its answer, or ""."""
    cells = json.loads(notebook.read_text())["cells"]
    printed = (
        "".join("".join(output.get("text", "")) for output in cell.get("outputs", []))
        for cell in reversed(cells)
    )
    answer = dropwhile(lambda text: not text.strip(), printed)
    return "".join(reversed(list(takewhile(str.strip, answer))))


def finding(folder: Path) -> str:
    """The run's answers in Markdown, notebook by notebook, then seconds and memory of each stage.

    Raises FileNotFoundError when the run has no summary yet.
    """
    path = folder / "summary.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; no stage has finished (`make all`)")
    parts = []
    for notebook in executed(folder):
        lines = last_words(notebook).strip().splitlines()
        items = [line if line.startswith("- ") else f"- {line}" for line in lines]
        figures = [
            f"- figures/{path.stem}.pdf: {path.read_text().strip()}"
            for path in sorted((folder / "figures").glob(f"{notebook.stem}*.txt"))
        ]
        below = ["", "Figures", "", *figures] if figures else []
        parts.append("\n".join([f"## {notebook.stem}", "", *items, *below]))
    rows = {(row["stage"], row["name"]): row["value"] for row in load_json(path)}
    stages = list(dict.fromkeys(stage for stage, _ in rows))
    times = ["| stage | seconds | GB at most |", "|---|---|---|"]
    for stage in stages:
        seconds, peak = (rows.get((stage, f"{what}_{stage}")) for what in ("seconds", "peak_gb"))
        times.append(f"| {stage} | {seconds or 0:.0f} | {'-' if peak is None else f'{peak:.1f}'} |")
    total = sum(rows.get((stage, f"seconds_{stage}")) or 0 for stage in stages)
    times += [f"| all stages | {total:.0f} | |", "", f"Every number: {path}"]
    times += [
        f"- {folder / name} was made by other code; remove it to renew it"
        for name in _stale(folder)
    ]
    title = f"# {' / '.join(folder.resolve().parts[-4:])}"
    return "\n\n".join([title, *parts, "\n".join(times)]) + "\n"


def _stale(folder: Path) -> list[str]:
    """The finished stages that were made by another state of the code than the present one."""
    now = code_digest()
    done = {path.parent.name: load_json(path) for path in sorted(folder.glob("*/done.json"))}
    made_by = {k: {row.get("code", now), *row.get("earlier", [])} for k, row in done.items()}
    return [name for name, codes in made_by.items() if codes != {now}]


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
        description="Print a run's answers, or why its notebook failed."
    )
    parser.add_argument("command", choices=["finding", "failure"])
    parser.add_argument("path", type=Path)
    args = parser.parse_args()
    if args.command == "failure":
        sys.exit(failure(args.path))
    try:
        said = finding(args.path)
        kept = args.path / "finding.md"
        if not kept.exists() or kept.read_text() != said:
            write_text(kept, said)
        print(said, end="")
    except FileNotFoundError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
