"""Training rows of other tools: chats, prompts with completions, instructions."""

import json

import numpy as np
import pandas as pd
import pytest

from lib.dedup.contained import judge_rule
from lib.dedup.texts import read_training
from lib.tables import TableError

CAPITAL = ("Tell me the capital of Colombia, please.", "The capital of Colombia is Bogotá.")
FAUST = ("Who wrote Faust?", "Goethe did.")
CHAT = [CAPITAL, FAUST]
TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": CAPITAL[0]},
    {"role": "assistant", "content": [{"type": "text", "text": CAPITAL[1]}]},
    {"role": "user", "content": FAUST[0]},
    {"role": "tool", "content": "Goethe"},
    {"role": "assistant", "content": FAUST[1]},
]
SHARED = [
    m for (q, a) in CHAT for m in ({"from": "human", "value": q}, {"from": "gpt", "value": a})
]
CASES = {
    "ShareGPT": ({"conversations": SHARED, "id": "x"}, CHAT),
    "TRL messages": ({"messages": TURNS}, CHAT),
    "TRL prompt and completion": ({"prompt": CAPITAL[0], "completion": CAPITAL[1]}, [CAPITAL]),
    "Alpaca": (
        {"instruction": "Name the capital.", "input": "Colombia", "output": "Bogotá"},
        [("Name the capital.\nColombia", "Bogotá")],
    ),
}


def found(path):
    given, asked, shape = read_training(path)
    pairs = zip(asked["question"], asked["answers"], strict=True)
    return shape, len(given), asked["row"].tolist(), [(q, a) for q, [a] in pairs]


@pytest.mark.parametrize("shape", CASES)
@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "csv"])
def test_rows_of_other_tools_are_read_as_texts(tmp_path, shape, kind):
    row, pairs = CASES[shape]
    if shape == "TRL messages" and kind == "parquet":  # a column of parquet has one type
        row = {"messages": [m | {"content": str(m["content"])} for m in TURNS[3:]]}
        pairs = [FAUST]
    path = tmp_path / f"train.{kind}"
    if kind == "parquet":
        pd.DataFrame([row, row]).to_parquet(path)
    elif kind == "csv":
        cells = {k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()}
        pd.DataFrame([cells, cells]).to_csv(path, index=False)
    else:
        path.write_text(json.dumps([row, row]))
    n = len(pairs)
    assert found(path) == (shape, 2, [0] * n + [1] * n, pairs * 2)


def test_prompts_and_completions_of_messages(tmp_path):
    row = {
        "prompt": [{"role": "user", "content": FAUST[0]}],
        "completion": [{"role": "assistant", "content": FAUST[1]}],
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    assert found(tmp_path / "a.jsonl")[3] == [FAUST]


def test_questions_and_answers_stay_questions(tmp_path):
    (tmp_path / "a.csv").write_text("question,answers,prompt,completion\nWho?,A,x,y\nWhen?,B,x,y\n")
    shape, n, rows, pairs = found(tmp_path / "a.csv")
    assert (shape, n, rows, pairs) == ("questions", 2, [0, 1], [("Who?", "A"), ("When?", "B")])


def test_a_file_s_other_columns_are_kept_and_mean_nothing(tmp_path):
    text = "question,answers,names,row,is_text\nWho?,A,Italy,9,yes\nWhen?,B,Spain,8,no\n"
    (tmp_path / "a.csv").write_text(text)
    given, asked, _ = read_training(tmp_path / "a.csv")
    assert given[["names", "row", "is_text"]].values.tolist() == [
        ["Italy", "9", "yes"],
        ["Spain", "8", "no"],
    ]
    assert "names" not in asked
    assert (asked["row"].tolist(), asked["is_text"].any()) == ([0, 1], False)


def test_all_rows_without_a_reply_are_told_at_once(tmp_path):
    whole = {"messages": [{"role": "user", "content": "Who?"}, {"role": "bot", "content": "A."}]}
    rows = [whole, *[{"messages": whole["messages"][:1]}] * 10, whole]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    said = (
        r"10 of 12 rows have no .*: row 1, 2, .*, 8, …, counted from 0; .* drop them from the file"
    )
    with pytest.raises(TableError, match=said):
        read_training(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"messages": [{"role": "user", "content": "Who?"}]},
            "1 of 1 rows have no user's text with a reply",
        ),
        ({"messages": [{"speaker": "a", "text": "b"}]}, r"keys \['speaker', 'text'\]; give `role`"),
        ({"messages": "Who? A."}, "no user's text with a reply to it: row 0, counted from 0"),
        ({"messages": 7}, "'7' is no list of messages"),
        ({"messages": '[{"role"'}, "are no JSON list"),
        ({"text": "Who? A."}, r"no column \['question', 'answers'\]"),
    ],
)
def test_rows_without_an_exchange_are_refused(tmp_path, row, said):
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(TableError, match=f"a.jsonl: .*{said}"):
        read_training(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("text", "given_away"),
    [
        (CAPITAL, True),
        (("Tell me of Colombia.", "It is hot.\nIts capital is Bogotá. It is high."), True),
        (("Tell me of Colombia.", "It has a capital. Bogotá is a city with churches."), False),
        (("Tell me of Peru.", "Its capital is Lima. Bogotá is a city."), False),
        (("What is the capital of Colombia?", "I forgot."), True),  # the same question
        (("And the capital of Colombia?", "Medellín"), False),
        (("Is Bogotá large?", "Yes."), False),
    ],
)
def test_a_text_gives_an_answer_away_in_one_sentence(text, given_away):
    base = {"subject": None, "relation": None, "names": []}
    rows = [
        {"question_id": "t", "question": "What is the capital of Colombia?", "answers": ["Bogotá"]},
        {"question_id": "a", "question": text[0], "answers": [text[1]], "is_text": True},
    ]
    questions = pd.DataFrame([base | {"is_text": False} | row for row in rows])
    pairs = pd.DataFrame({"test_id": ["t"], "train_id": ["a"], "similarity": [np.nan]})
    assert judge_rule(pairs, questions)["is_contained"].tolist() == [given_away]
