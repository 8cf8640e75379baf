"""Tables and texts on disk: read with a clear error, written whole or not at all."""

import json
import os
import re
from pathlib import Path

import pandas as pd

from lib.text import unique

LIST_IN_TEXT = re.compile(r"\s*\[\s*([\"']|\])")


class TableError(ValueError):
    """A table that cannot be used: the message names file, column or row, and what to do."""


class DamagedFile(ValueError):
    """A file of a run that cannot be read: the message names it and says what to do."""


def load_json(path: Path | str, mend: str = "remove it, and the next run makes it again"):
    """What a JSON file of a run holds; raises DamagedFile, also for a number that is not finite."""
    try:
        return json.loads(Path(path).read_text(), parse_constant=_refuse_constant)
    except (ValueError, UnicodeDecodeError) as error:
        raise DamagedFile(f"{path} is damaged ({error}); {mend}") from None


def _refuse_constant(name: str):
    raise ValueError(f"{name} is no number of a run")


def load_table(path: Path | str) -> pd.DataFrame:
    """A parquet table of a run; raises DamagedFile, and FileNotFoundError with what to do."""
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} is missing; run the stage that makes it again")
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are among them
        reason = " ".join(str(error).split())[:120]
        mend = "remove it, and the next run makes it again"
        raise DamagedFile(f"{path} is damaged ({reason}); {mend}") from None


# a cell that a spreadsheet would run as a formula, behind the marks that keep it from that
FORMULA = re.compile(r"'*(?:[=@\t\r]|[+-](?![\d.]))")


def _read_csv(path: Path) -> pd.DataFrame:
    # cells are text, so that 007 and 1e5 come out as they went in; "NA" and "None" are answers:
    # only an empty cell is missing
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=str)
    return frame.map(lambda v: v[1:] if _is_formula(v) and v.startswith("'") else v)


def _is_formula(value) -> bool:
    return isinstance(value, str) and FORMULA.match(value) is not None


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    # a list becomes a JSON list, which `read_answers` reads
    lists = [c for c in frame if frame[c].map(lambda v: isinstance(v, list)).any()]
    frame = frame.assign(**{c: frame[c].map(json.dumps) for c in lists})
    # a spreadsheet reads a leading quote as: this is text; `_read_csv` takes it off again
    frame.map(lambda v: f"'{v}" if _is_formula(v) else v).to_csv(path, index=False)


def _read_jsonl(path: Path) -> pd.DataFrame:
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no JSON object")
    frame = pd.DataFrame(rows, dtype=object)
    # a column of one type takes it; in a mixed one 1945 must not become 1945.0 beside 3.5
    single = [c for c in frame if frame[c].map(type).nunique() == 1]
    return frame.assign(**{c: frame[c].infer_objects() for c in single})


def _write_jsonl(frame: pd.DataFrame, path: Path) -> None:
    rows = frame.astype(object).to_dict("records")
    with path.open("w") as file:
        for row in rows:
            whole = {name: None if _is_missing(value) else value for name, value in row.items()}
            file.write(json.dumps(whole, ensure_ascii=False, default=_as_json) + "\n")


def _is_missing(value) -> bool:
    return value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def _as_json(value):
    """A NumPy array or number as JSON knows it; anything else as its text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _write_parquet(frame: pd.DataFrame, path: Path) -> None:
    frame.to_parquet(path, index=False)


FORMATS = {
    ".csv": (_read_csv, _write_csv),
    ".jsonl": (_read_jsonl, _write_jsonl),
    ".parquet": (pd.read_parquet, _write_parquet),
}


def _format(path: Path):
    """(reader, writer) of a file by its extension; raises TableError for an unknown one."""
    if path.suffix not in FORMATS:
        raise TableError(
            f"{path}: unknown extension {path.suffix!r}; give one of {', '.join(FORMATS)}"
        )
    return FORMATS[path.suffix]


def read_table(path: Path) -> pd.DataFrame:
    """The rows of a csv, jsonl or parquet file, columns of text as text. Raises TableError."""
    reader, _ = _format(path)
    if not path.is_file():
        raise TableError(f"{path}: no such file; check the path in the profile (or HUB_MIRROR)")

    try:
        frame = reader(path)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TableError(f"{path}: cannot be read as {path.suffix[1:]}: {reason}") from None

    if frame.empty:
        raise TableError(f"{path}: holds no rows; give at least one question")
    return frame.reset_index(drop=True)


def need(frame: pd.DataFrame, columns: list[str], where) -> None:
    """Raise TableError naming the missing columns and those that are there."""
    missing = [c for c in columns if c not in frame]
    if missing:
        raise TableError(f"{where}: no column {missing}; there are {list(map(str, frame.columns))}")


def read_list(value, column: str, where="", row=0):
    """A JSON list in a string as a list; anything else unchanged.

    A string that begins with a bracket and a quote must be a JSON list; another one, such as the
    title "[REC]", is a text. Raises TableError for a list written in another way, such as
    Python's.
    """
    if not (isinstance(value, str) and LIST_IN_TEXT.match(value)):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise TableError(
            f"{where}: row {row}: `{column}` {value[:60]!r} is no JSON list ({error}); write it "
            "with double quotes"
        ) from None


def read_answers(value, where="", row=0) -> list[str]:
    """The answers as a list: of a list, an array, a JSON list in a string, or one string."""
    value = read_list(value, "answers", where, row)

    # one text or number is one answer; nan, None, a mapping and a truth value are none
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        value = [] if value != value else [value]
    if value is None or isinstance(value, dict | bool):
        value = []

    answers = unique(str(a) for a in value if a is not None and a == a)
    if not answers:
        raise TableError(
            f"{where}: row {row}: `answers` is empty; give at least one answer or drop the row"
        )
    return answers


def writer(path: Path):
    """The function (frame, path) that writes a csv, jsonl or parquet file. Raises TableError."""
    return _format(path)[1]


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    _write_whole(path, lambda temporary: temporary.write_text(text))


def write_table(frame: pd.DataFrame, path: Path) -> Path:
    """Write a parquet table whole or not at all; returns the path."""
    return _write_whole(path, lambda temporary: _write_parquet(frame, temporary))


def save_table(frame: pd.DataFrame, path: Path) -> Path:
    """Write a table for people, csv, jsonl or parquet by its extension, whole or not at all."""
    write = writer(path)
    return _write_whole(path, lambda temporary: write(frame, temporary))


def _write_whole(path: Path, write) -> Path:
    """Let `write` fill a temporary file, flush it to disk, and only then give it its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # no other process has this name
    write(temporary)
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return path
