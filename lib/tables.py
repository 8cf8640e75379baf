"""Tables and texts on disk: read with a clear error, written whole or not at all."""

import json
import os
from pathlib import Path

import pandas as pd

from lib.text import unique


class TableError(ValueError):
    """A table that cannot be used: the message names file, column or row, and what to do."""


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_table(frame: pd.DataFrame, path: Path) -> Path:
    """Write a parquet table whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    frame.to_parquet(temporary, index=False)
    os.replace(temporary, path)
    return path


def writer(path: Path):
    """How a table is written to a csv, jsonl or parquet file; raises ValueError for another
    extension.
    """
    writers = {
        ".csv": lambda frame, p: frame.to_csv(p, index=False),
        ".jsonl": lambda frame, p: frame.to_json(
            p, orient="records", lines=True, force_ascii=False
        ),
        ".parquet": lambda frame, p: frame.to_parquet(p, index=False),
    }
    if path.suffix not in writers:
        raise ValueError(
            f"{path}: unknown extension {path.suffix!r}; give one of {', '.join(writers)}"
        )
    return writers[path.suffix]


def save_table(frame: pd.DataFrame, path: Path) -> Path:
    """Write a table for people, csv, jsonl or parquet by its extension, whole or not at all."""
    write = writer(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    lists = (
        [c for c in frame if frame[c].map(lambda v: isinstance(v, list)).any()]
        if path.suffix == ".csv"
        else []
    )
    frame = frame.assign(**{c: frame[c].map(json.dumps) for c in lists})
    write(frame, temporary)
    os.replace(temporary, path)
    return path


def read_table(path: Path) -> pd.DataFrame:
    """The rows of a csv, jsonl or parquet file, columns of text as text. Raises TableError."""
    readers = {
        ".csv": pd.read_csv,
        ".jsonl": lambda p: pd.read_json(p, lines=True, dtype=False),
        ".parquet": pd.read_parquet,
    }
    if path.suffix not in readers:
        raise TableError(
            f"{path}: unknown extension {path.suffix!r}; give one of {', '.join(readers)}"
        )
    if not path.is_file():
        raise TableError(f"{path}: no such file; check the path in the profile (or HUB_MIRROR)")
    try:
        # "NA" and "None" are answers, only an empty cell is none
        text = {"keep_default_na": False, "na_values": [""]} if path.suffix == ".csv" else {}
        text |= (
            {"dtype": {c: str for c in ("question", "answers", "question_id", "prediction")}}
            if text
            else {}
        )
        frame = readers[path.suffix](path, **text)
    except (ValueError, OSError) as error:
        raise TableError(
            f"{path}: cannot be read as {path.suffix[1:]}: {' '.join(str(error).split())[:200]}"
        ) from None
    if frame.empty:
        raise TableError(f"{path}: holds no rows; give at least one question")
    return frame.reset_index(drop=True)


def need(frame: pd.DataFrame, columns: list[str], where) -> None:
    """Raise TableError naming the missing columns and those that are there."""
    missing = [c for c in columns if c not in frame]
    if missing:
        raise TableError(f"{where}: no column {missing}; there are {list(map(str, frame.columns))}")


def read_answers(value, where="", row=0) -> list[str]:
    """The answers as a list: of a list, an array, a JSON list in a string, or one string."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise TableError(
                f"{where}: row {row}: `answers` {value[:60]!r} is no JSON list ({error})"
            ) from None
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
