"""Training rows as other tools keep them: chats, prompts with completions, instructions.

Each user's text with the reply to it is one question with one answer, a text that may hold the
answer of a test question.
"""

from pathlib import Path

import pandas as pd

from lib.questions.sources import read_file
from lib.readers import value_of_json
from lib.tables import TableError, read_table
from lib.text import normalise

# the columns of each shape, as ShareGPT, TRL and Alpaca name them
ROW_SHAPES = {
    "ShareGPT": ("conversations",),
    "TRL messages": ("messages",),
    "TRL prompt and completion": ("prompt", "completion"),
    "Alpaca": ("instruction", "output"),
}
USERS, REPLIERS = {"user", "human"}, {"assistant", "gpt", "chatgpt", "bot", "model"}


def read_training(path: Path) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """(the file's rows, their questions with `row` and `is_text`, the shape's name).

    A file with `question` and `answers` is read as it is (shape `questions`); of another one each
    exchange is a question. Raises TableError naming file, row and what to do.
    """
    rows = read_table(path)
    shape = next((name for name, columns in ROW_SHAPES.items() if set(columns) <= set(rows)), None)
    if {"question", "answers"} <= set(rows) or shape is None:
        asked = read_file(path)
        return rows, asked.assign(row=range(len(asked)), is_text=False), "questions"

    found, without = [], []
    for i, row in enumerate(rows.to_dict("records")):
        pairs = [pair for pair in _exchanges(row, shape, f"{path}: row {i}") if _has_words(pair)]
        without += [] if pairs else [i]
        found += [(f"{path.stem}-{i:06d}-{k}", q, [a], i) for k, (q, a) in enumerate(pairs)]
    if without:
        count = f"{len(without)} of {len(rows)} rows have"
        which = ", ".join(map(str, without[:8])) + (", …" if len(without) > 8 else "")
        raise TableError(
            f"{path}: {count} no user's text with a reply to it: row {which}, counted from 0; "
            "nothing can be trained on there: drop them from the file"
        )
    columns = ["question_id", "question", "answers", "row"]
    return rows, pd.DataFrame(found, columns=columns).assign(is_text=True), shape


def _has_words(pair: tuple[str, str]) -> bool:
    return all(normalise(text) for text in pair)


def _exchanges(row: dict, shape: str, where: str) -> list[tuple[str, str]]:
    """(what was asked, what was replied) of a row. Raises TableError."""
    if shape == "Alpaca":
        parts = [row["instruction"], row.get("input")]
        asked = "\n".join(part for part in parts if isinstance(part, str) and part)
        return [(asked, row["output"] if isinstance(row["output"], str) else "")]
    if shape == "TRL prompt and completion":
        asked = _as_messages(row["prompt"], "user", where)
        return _pairs([*asked, *_as_messages(row["completion"], "assistant", where)], where)
    return _pairs(_as_messages(row[ROW_SHAPES[shape][0]], "user", where), where)


def _as_messages(value, role: str, where: str) -> list[dict]:
    """A list of messages, also in a string or an array; a text is one message of `role`."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            value = value_of_json(value)
        except ValueError as error:
            raise TableError(f"{where}: its messages are no JSON list: {error}") from None
    if isinstance(value, str):
        return [{"role": role, "content": value}]

    messages = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise TableError(f"{where}: {str(value)[:60]!r} is no list of messages; mend or drop it")
    return messages


def _pairs(messages: list[dict], where: str) -> list[tuple[str, str]]:
    """Each reply with the user's text before it; other roles say nothing. Raises TableError."""
    pairs, asked = [], ""
    for message in messages:
        role = message.get("role", message.get("from"))
        text = _text_of(message.get("content", message.get("value")))
        if role is None:
            raise TableError(
                f"{where}: a message has the keys {list(message)[:6]}; give `role` and `content`, "
                "or `from` and `value`"
            )
        if role in USERS:
            asked = text
        elif role in REPLIERS:
            pairs.append((asked, text))
    return pairs


def _text_of(content) -> str:
    """The text of a message, which may be a list of parts."""
    if isinstance(content, str):
        return content
    parts = content.tolist() if hasattr(content, "tolist") else content or []
    return "".join(
        p["text"] for p in parts if isinstance(p, dict) and isinstance(p.get("text"), str)
    )
