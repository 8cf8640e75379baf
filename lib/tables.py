"""Tables and texts on disk: read with a clear error, written whole or not at all."""

import difflib
import io
import json
import os
import re
from functools import partial
from pathlib import Path

import pandas as pd
from pandas.api.types import is_numeric_dtype

from lib.readers import (
    read_text,
    rows_of_csv,
    rows_of_json,
    rows_of_jsonl,
    separator_of,
)

EXCEL = (".xlsx", ".xls", ".xlsm", ".ods")
# names that others give the columns; they are suggested, never taken
OTHER_NAMES = {
    "question": "prompt query problem input instruction q",
    "answers": "answer target targets gold golds label labels reference references expected "
    "ground_truth ideal solution aliases possible_answers",
    "prediction": "predictions predicted pred response responses completion output reply "
    "generation generated_text model_answer model_output",
    "correct": "is_correct label score acc accuracy",
}


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


def _read_csv(path: Path, separator: str | None = None) -> pd.DataFrame:
    # cells are text, so that 007 and 1e5 come out as they went in
    text = read_text(path)
    frame = rows_of_csv(text, separator or separator_of(text))
    return frame.map(lambda v: v[1:] if _is_formula(v) and v.startswith("'") else v)


def _is_formula(value) -> bool:
    return isinstance(value, str) and FORMULA.match(value) is not None


def _write_csv(frame: pd.DataFrame, path: Path, separator: str = ",") -> None:
    # a list becomes a JSON list, which lib.cells reads
    lists = [c for c in frame if frame[c].map(_is_nested).any()]
    as_json = {c: [json.dumps(_plain(v)) if _is_nested(v) else v for v in frame[c]] for c in lists}
    frame = frame.assign(**as_json)
    # a spreadsheet reads a leading quote as: this is text; `_read_csv` takes it off again
    safe = frame.apply(lambda column: column if is_numeric_dtype(column) else column.map(_as_text))
    safe.to_csv(path, index=False, sep=separator, lineterminator="\n")


def _as_text(value):
    return f"'{value}" if _is_formula(value) else value


def _read_jsonl(path: Path) -> pd.DataFrame:
    return rows_of_jsonl(read_text(path))


def _read_json(path: Path) -> pd.DataFrame:
    return rows_of_json(read_text(path))


def _json_lines(frame: pd.DataFrame) -> list[str]:
    """Each row as one line of JSON, what is missing as null."""
    rows = frame.astype(object).to_dict("records")
    return [json.dumps(_plain(row), ensure_ascii=False) for row in rows]


def _write_jsonl(frame: pd.DataFrame, path: Path) -> None:
    path.write_text("".join(f"{line}\n" for line in _json_lines(frame)), encoding="utf-8")


def _write_json(frame: pd.DataFrame, path: Path) -> None:
    path.write_text("[\n" + ",\n".join(_json_lines(frame)) + "\n]\n", encoding="utf-8")


def is_missing(value) -> bool:
    """Whether a cell holds nothing: None, NA, NaT or NaN."""
    return (
        value is None
        or value is pd.NA
        or value is pd.NaT
        or (isinstance(value, float) and value != value)
    )


def _is_nested(value) -> bool:
    return isinstance(value, list | tuple | dict) or getattr(value, "ndim", 0) > 0


def _plain(value):
    """The value as JSON knows it: arrays as lists, what is missing as null, others as text."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, dict):
        return {str(key): _plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(member) for member in value]
    if is_missing(value):
        return None
    return value if isinstance(value, str | bool | int | float) else str(value)


def _read_parquet(path: Path) -> pd.DataFrame:
    frame = pd.read_parquet(path)
    named = [name for name in frame.index.names if name is not None]
    return frame.reset_index(level=named) if named else frame  # an index with a name is a column


def _write_parquet(frame: pd.DataFrame, path: Path) -> None:
    frame.to_parquet(path, index=False)


FORMATS = {
    ".csv": (_read_csv, _write_csv),
    ".tsv": (partial(_read_csv, separator="\t"), partial(_write_csv, separator="\t")),
    ".jsonl": (_read_jsonl, _write_jsonl),
    ".json": (_read_json, _write_json),
    ".parquet": (_read_parquet, _write_parquet),
}


def _format(path: Path):
    """(reader, writer) of a file by its extension; raises TableError for an unknown one."""
    extension = path.suffix.lower()
    if extension in EXCEL:
        raise TableError(f"{path}: sheets are not read; save it as csv (UTF-8) and give that file")
    if extension not in FORMATS:
        raise TableError(
            f"{path}: unknown extension {path.suffix!r}; give one of {', '.join(FORMATS)}"
        )
    return FORMATS[extension]


def read_table(path: Path) -> pd.DataFrame:
    """The rows of a csv, tsv, jsonl, json or parquet file, columns of text as text.

    A csv may be separated by commas, semicolons or tabs, in UTF-8 or UTF-16. Raises TableError.
    """
    reader, _ = _format(path)
    if not path.is_file():
        raise TableError(
            f"{path}: no such file; check the path (in a profile it begins at the repository; or "
            "HUB_MIRROR)"
        )

    try:
        frame = reader(path)
    except (ValueError, OSError) as error:  # pandas' and pyarrow's errors are among them
        reason = " ".join(str(error).split())[:300]
        raise TableError(f"{path}: cannot be read as {path.suffix[1:]}: {reason}") from None

    if frame.empty:
        raise TableError(f"{path}: holds no rows; give at least one question")
    return frame.reset_index(drop=True)


def need(frame: pd.DataFrame, columns: list[str], where) -> None:
    """Raise TableError naming the missing columns, those that are there, and what was meant."""
    missing = [c for c in columns if c not in frame]
    if not missing:
        return
    there = list(map(str, frame.columns))
    meant = {column: _alike(column, there) for column in missing}
    hints = [f"did you mean {found!r}? rename it to {c!r}" for c, found in meant.items() if found]
    raise TableError("; ".join([f"{where}: no column {missing}; there are {there}", *hints]))


def key_text(value) -> str:
    """An id, a question or a verdict as text: 1 and 1.0 are "1", a missing one is ""."""
    if is_missing(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def named_rows(chosen: pd.Series, most: int = 5) -> str:
    """The chosen rows in words, counted from 0: "row 3", "rows 0, 2, 5 and 12 more"."""
    rows = [i for i, is_chosen in enumerate(chosen) if is_chosen]
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return f"row{'s' * (len(rows) > 1)} {', '.join(map(str, rows[:most]))}{more}"


def refuse_missing_ids(frame: pd.DataFrame, where) -> None:
    """Raise TableError naming the rows whose `question_id` is empty, where there is the column."""
    if "question_id" in frame:
        empty = frame["question_id"].map(key_text).eq("")
        if empty.any():
            raise TableError(
                f"{where}: {named_rows(empty)}: empty `question_id`; fill it or drop the column"
            )


def _alike(column: str, there: list[str]) -> str | None:
    """The column that may be meant: of the same name but for case and spaces, or its synonym."""
    plain = {re.sub(r"\W+", "_", name.strip().lower()): name for name in reversed(there)}
    known = [column, *OTHER_NAMES.get(column, "").split()]
    found = next((plain[name] for name in known if name in plain), None)
    close = difflib.get_close_matches(column, plain, n=1, cutoff=0.75)
    return found or (plain[close[0]] if close else None)


def writer(path: Path):
    """The function (frame, path) that writes a table by its extension. Raises TableError."""
    return _format(path)[1]


def check_output(path: Path, inputs=()) -> None:
    """Raise TableError, before any work, for an output that cannot be written or is an input."""
    writer(path)
    if path.resolve() in {Path(given).resolve() for given in inputs}:
        raise TableError(f"{path}: would overwrite what is read; give another name")
    if path.is_dir():
        raise TableError(f"{path}: is a folder; give the name of a file")
    above = next(folder for folder in path.resolve().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise TableError(f"{path}: cannot be written in {above}; give a folder of your own")


def check_columns(frame: pd.DataFrame, path: Path) -> None:
    """Raise TableError naming a column that the output's format cannot hold, such as mixed ones."""
    if path.suffix.lower() != ".parquet":
        return
    for column in frame:
        try:
            frame[[column]].to_parquet(io.BytesIO(), index=False)
        except (ValueError, TypeError, NotImplementedError, OverflowError) as error:
            reason = " ".join(str(error).split())[:150]
            raise TableError(
                f"{path}: parquet cannot hold the column {column!r} ({reason}); give an output as "
                "jsonl, or make its cells of one kind"
            ) from None


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    _write_whole(path, lambda temporary: temporary.write_text(text))


def write_table(frame: pd.DataFrame, path: Path) -> Path:
    """Write a parquet table whole or not at all; returns the path."""
    return _write_whole(path, lambda temporary: _write_parquet(frame, temporary))


def save_table(frame: pd.DataFrame, path: Path) -> Path:
    """Write a table for people, csv, jsonl or parquet by its extension, whole or not at all."""
    write = writer(path)
    try:
        return _write_whole(path, lambda temporary: write(frame, temporary))
    except (ValueError, TypeError, NotImplementedError, OverflowError):
        check_columns(frame, path)  # names the column, where it is one
        raise


def _write_whole(path: Path, write) -> Path:
    """Let `write` fill a temporary file, flush it to disk, and only then give it its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # no other process has this name
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
