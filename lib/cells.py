"""Cells that hold texts: one, or several in the forms that people and programs write them in."""

import json
import numbers
import re

import numpy as np

from lib.readers import list_in_text, object_in_text
from lib.tables import TableError, is_missing
from lib.text import unique

LIST_IN_TEXT = re.compile(r"\s*\[\s*([\"']|\])")
OBJECT_IN_TEXT = re.compile(r"\s*\{\s*[\"']")
PIPE_INSIDE = re.compile(r"[^\s|]\s*\|\s*[^\s|]")
# [Paris, Lutetia] without quotes, and (3, 4), which is one point or two numbers
BARE_LIST = re.compile(r"\s*(?:\[[^][]*,[^][]*\]|[({]\s*[\d.+-]+\s*,[^(){}]*[)}])\s*")
SHORT_CELL = 120  # characters; a longer one is prose, whose marks part no answers
# a mark that may part several answers, and the share of cells above which it is said
DOUBTFUL_MARKS = {
    "`;`": (re.compile(r"\S\s*(?<!&amp)(?<!&lt)(?<!&gt)(?<!&quot);\s+\S"), 0),
    "a line break": (re.compile(r"\S\s*\n\s*\S"), 0),
    "`,`": (re.compile(r"\S\s*,\s+\S"), 0.5),
    "`/`": (re.compile(r"[^\W\d]\s*/\s*[^\W\d]"), 0.5),
}


def read_list(value, column: str, where="", row=0, mend: str = ""):
    """A JSON list in a string as a list; anything else unchanged.

    A string that begins with a bracket and a quote must be a JSON list; another one, such as the
    title "[REC]", is a text. mend: what else may be done. Raises TableError for a list written in
    another way, such as NumPy's without commas.
    """
    if not (isinstance(value, str) and LIST_IN_TEXT.match(value)):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise _no_list(value, column, where, row, mend) from None


def _no_list(value: str, column: str, where, row, mend: str = "") -> TableError:
    return TableError(
        f"{where}: row {row}: `{column}` {value[:60]!r} is no JSON list as it stands; write it "
        f'with double quotes and commas, ["A", "B"]{mend}'
    )


def is_list(value) -> bool:
    """Whether a value is a list, a tuple, an array or a column."""
    return isinstance(value, list | tuple) or getattr(value, "ndim", 0) > 0


def cell_texts(value, column: str, where="", row=0, truths: bool = False) -> list[str | None]:
    """The texts of a cell: one text or number, or those of a list, array, tuple or set.

    Bytes are text in UTF-8, and what is missing is None. truths: a truth value is a text, too.
    Raises TableError for anything else, such as an object, a date or a list in a list.
    """
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    members = list(value) if is_list(value) else [value]
    return [_cell_text(member, column, f"{where}: row {row}", truths) for member in members]


def _cell_text(value, column: str, where: str, truths: bool) -> str | None:
    if is_missing(value):
        return None
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise TableError(f"{where}: `{column}` holds bytes that are no UTF-8") from None
    is_truth = isinstance(value, bool | np.bool_)
    if isinstance(value, str | numbers.Number) and not is_truth or is_truth and truths:
        return str(value)
    what = f"a {type(value).__name__}"
    if isinstance(value, dict):
        what = f"an object with the keys {list(value)[:8]}"
    raise TableError(f"{where}: `{column}` holds {what}; give a text, a number, or a list of them")


def read_answers(value, where="", row=0) -> list[str]:
    """The answers as a list: of a list, an array, a list in a string, or one string.

    A list in a string is JSON's or Python's, a tuple or a set, too. An object is SQuAD's (`text`)
    or TriviaQA's (`value`, `aliases`). Raises TableError for none, for another object, for what is
    neither text nor number, for a list without quotes, and for one text with `|` in it, which would
    be one answer.
    """
    if isinstance(value, str):
        value = _answers_in_text(value, where, row)
    if isinstance(value, dict) and value:
        value = _answers_of_object(value, where, row)
    found = [] if isinstance(value, dict) else cell_texts(value, "answers", where, row)
    answers = unique(text for text in found if text is not None)
    if not answers:
        raise TableError(
            f"{where}: row {row}: `answers` is empty; give at least one answer or drop the row"
        )
    return answers


def _answers_in_text(text: str, where, row) -> str | list | dict:
    """The list or object that a text writes down, or the text; raises TableError as said above."""
    found = object_in_text(text) if OBJECT_IN_TEXT.match(text) else text
    if isinstance(found, dict):
        return found
    found = list_in_text(text)
    if found is not None:
        return found
    if LIST_IN_TEXT.match(text) or BARE_LIST.fullmatch(text):
        mend = ", and a text that has these marks as a list of one"
        raise _no_list(text, "answers", where, row, mend)
    if PIPE_INSIDE.search(text):
        parts = json.dumps([part.strip() for part in text.split("|")], ensure_ascii=False)
        raise TableError(
            f"{where}: row {row}: `answers` {text[:60]!r} holds `|`; write several answers as "
            f"{parts[:90]}, and one that has the mark as a list of one"
        )
    return text


def doubtful_answers(cells, where="") -> list[str]:
    """A line for each mark that may part several answers in cells that are read as one answer.

    cells: the column `answers` as it was given. A semicolon or a line break in any short cell is
    said, a comma or a slash where more than half of the cells hold one.
    """
    texts = {
        i: cell for i, cell in enumerate(cells) if isinstance(cell, str) and len(cell) <= SHORT_CELL
    }
    lines = []
    for mark, (pattern, least) in DOUBTFUL_MARKS.items():
        held = [i for i, text in texts.items() if pattern.search(text) and not _writes_list(text)]
        if held and len(held) > least * len(cells):
            lines.append(
                f"{where}: note: {len(held)} of {len(cells)} `answers` hold {mark} and are one "
                f'answer each; write several as ["A", "B"]; row {held[0]}: {texts[held[0]][:60]!r}'
            )
    return lines


def _writes_list(text: str) -> bool:
    return list_in_text(text) is not None or OBJECT_IN_TEXT.match(text) is not None


def _answers_of_object(value: dict, where, row) -> list:
    """The answers of SQuAD's or TriviaQA's object; raises TableError naming another one's keys."""
    names = [value[key] for key in ("text", "value", "aliases") if value.get(key) is not None]
    if not {"text", "value", "aliases"} & set(value):
        raise TableError(
            f"{where}: row {row}: `answers` is an object with the keys {list(value)[:8]}; give a "
            "list, or one with `text` (SQuAD) or `value` and `aliases` (TriviaQA)"
        )
    return [a for name in names for a in cell_texts(name, "answers", where, row)]
