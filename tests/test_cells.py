"""Cells: several answers in the forms people write them in; what is no text is refused by row."""

import datetime

import numpy as np
import pandas as pd
import pytest

from lib.cells import doubtful_answers, read_answers
from lib.config import Judge
from lib.judge.grading import regrade
from lib.questions.sources import read_file
from lib.tables import TableError

BOTH = ["Paris", "Lutetia"]


@pytest.mark.parametrize(
    ("value", "answers"),
    [
        ("('Paris', 'Lutetia')", BOTH),
        ("{'Paris', 'Lutetia'}", BOTH[::-1]),
        ("array(['Paris', 'Lutetia'], dtype=object)", BOTH),
        ("np.array(['Paris',\n       'Lutetia'])", BOTH),
        ("set(['Paris', 'Lutetia'])", BOTH),
        ("frozenset({'Paris'})", ["Paris"]),
        (' [ "Paris", "Lutetia" ] ', BOTH),
        ("[1914, 1918]", ["1914", "1918"]),
        ("['Paris', 1918, None]", ["Paris", "1918"]),
        (("Paris", "Lutetia"), BOTH),
        ({"Paris", "Lutetia"}, BOTH[::-1]),
        (np.array(["Paris", "Lutetia"], dtype=object), BOTH),
        (np.array([1914, 1918]), ["1914", "1918"]),
        (pd.Series(BOTH), BOTH),
        ([b"Paris", "Lutetia"], BOTH),
        (b"Paris", ["Paris"]),
        (np.str_("Paris"), ["Paris"]),
        (np.int64(7), ["7"]),
        ({"value": 5, "aliases": ["five"]}, ["5", "five"]),
        ("1,000", ["1,000"]),
        ("'Paris'", ["'Paris'"]),
        ("(Paris)", ["(Paris)"]),
        ("(1945)", ["(1945)"]),
        ("[0, 1)", ["[0, 1)"]),
        ("{x}", ["{x}"]),
        ("sorted([1])", ["sorted([1])"]),
        ("[REC]", ["[REC]"]),
    ],
)
def test_several_answers_in_a_cell(value, answers):
    assert read_answers(value) == answers


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("[Paris, Lutetia]", r"is no JSON list as it stands; .* \[\"A\", \"B\"\], and a text that"),
        ("(3, 4)", "is no JSON list as it stands; .* as a list of one"),
        ("{1, 2}", "is no JSON list as it stands"),
        ("['Paris' 'Lutetia']", "is no JSON list as it stands"),
        ([["Paris", "P"]], "holds a list; give a text, a number, or a list of them"),
        ('[["Paris", "P"]]', "holds a list; give a text"),
        (np.array([["Paris"], ["P"]]), "holds a ndarray; give a text"),
        ([{"text": "Paris"}], r"holds an object with the keys \['text'\]; give a text"),
        ('[{"text": "Paris"}]', r"holds an object with the keys \['text'\]; give a text"),
        ({"text": [{"a": 1}]}, r"holds an object with the keys \['a'\]"),
        ([True], "holds a bool; give a text"),
        (np.bool_(True), "holds a bool"),
        (datetime.date(1914, 7, 28), "holds a date; give a text"),
        (np.array(["1914-07-28"], "datetime64[ns]"), "holds a datetime64; give a text"),
        (b"\xff", "holds bytes that are no UTF-8"),
    ],
)
def test_answers_that_are_no_texts_are_refused_by_row(value, said):
    with pytest.raises(TableError, match=f"^a.csv: row 3: `answers` .*{said}") as error:
        read_answers(value, "a.csv", 3)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["Rome", "Paris; Lutetia"], "1 of 2 `answers` hold `;` and are one answer each; write"),
        (["Paris\nLutetia"], "1 of 1 `answers` hold a line break"),
        (["Paris, Lutetia", "Rome, Roma", "Bern"], "2 of 3 `answers` hold `,`"),
        (["Paris/Lutetia", "Rome / Roma"], "2 of 2 `answers` hold `/`"),
    ],
)
def test_marks_that_may_part_answers_are_said(cells, said):
    [line] = doubtful_answers(cells, "a.csv")
    assert line.startswith(f"a.csv: note: {said}")
    assert 'write several as ["A", "B"]; row ' in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "cells",
    [
        ["Paris, France", "Rome", "Bern"],
        ["AC/DC", "Rome", "Bern"],
        ["Steins;Gate", "Marks &amp; Spencer", "1/2"],
        ['["a; b", "c"]', "('a; b', 'c')", {"text": ["a; b"]}, ["a; b"], None],
        ["A long text; it says much, and it goes on and on. " * 3],
    ],
)
def test_what_is_one_answer_is_not_said(cells):
    assert doubtful_answers(cells) == []


def test_a_file_of_questions_and_the_judge_say_what_is_doubtful(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text("question,answers,prediction\nWhat is it?,Paris; Lutetia,Paris\n")
    read_file(path)
    regrade(pd.read_csv(path), Judge(kind="alias"), path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[1]
    assert lines[0].startswith(f"{path}: note: 1 of 1 `answers` hold `;`")


def predicted(value, texts: bool = False) -> list[str]:
    case = pd.DataFrame({"question": ["Which?"], "answers": [["Paris"]]})
    case["prediction"] = pd.Series([value], dtype=object)
    return regrade(case, Judge(kind="alias"), "a.jsonl", texts)["prediction"].tolist()


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (b"Paris", ["Paris"]),
        ([b"Paris", None], ["Paris", ""]),
        (np.array(["Paris", "Rome"]), ["Paris", "Rome"]),
        (1914, ["1914"]),
        (np.float64(1.5), ["1.5"]),
        (True, ["True"]),
        (None, [""]),
        (pd.NaT, [""]),
        ([], [""]),
        ('{"answer": "Paris"}', ['{"answer": "Paris"}']),
        ("[1914, 1918]", ["[1914, 1918]"]),
    ],
)
def test_predictions_that_are_texts(value, texts):
    assert predicted(value) == texts


CHAT = [{"role": "assistant", "content": "Paris"}]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"answer": "Paris"}, r"an object with the keys \['answer'\]; give a text"),
        (CHAT, r"an object with the keys \['role', 'content'\]; give a text"),
        (str(CHAT), "messages of a chat; give the text of the reply, or give --texts"),
        ([["Paris"]], "a list; give a text"),
        ('["Paris", {"a": 1}]', r"an object with the keys \['a'\]"),
        (b"\xff", "bytes that are no UTF-8"),
        (datetime.date(1914, 7, 28), "a date"),
        ("['Paris' is my answer]", "no JSON list .* or give --texts: every prediction is one text"),
        ("['Paris']", "no JSON list .* or give --texts"),
    ],
)
def test_predictions_that_are_no_texts_are_refused_by_row(value, said):
    with pytest.raises(TableError, match=f"^a.jsonl: row 0: `prediction` .*{said}"):
        predicted(value)


@pytest.mark.parametrize("value", ["['Paris' is my answer]", "['Paris']", str(CHAT)])
def test_any_text_is_a_prediction_where_all_are_texts(value):
    assert predicted(value, texts=True) == [value]
