"""The commands for anybody's files, python -m lib.judge and lib.dedup, as a reader calls them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from faults import outages
from faults.staging import honest, scripted_server
from lib.config import ROOT, Judge
from lib.judge.grading import asked_of, regrade
from lib.metrics import accuracy
from lib.tables import TableError

CASES = pd.DataFrame({
    "question": ["In which country is Rome?", "In which country is Bern?"],
    "answers": [["Italy"], ["Switzerland", "Swiss Confederation"]],
    "prediction": ["It is in Italy.", ["Germany", "Switzerland", ""]],
})  # fmt: skip


def run(module, *arguments):
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI_")}
    environment["OUTPUTS"] = str(Path(arguments[0]).parent)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


def test_regrade_by_hand():
    graded = regrade(CASES, Judge(kind="alias"))
    assert graded["correct"].tolist() == [True, False, True, False]
    assert "question_id" not in graded
    assert graded.index.tolist() == [0, 1, 1, 1]
    assert graded["judge"].eq("alias").all()
    assert graded["raw"].isna().all()
    assert not graded["disputed"].any()
    exact = regrade(CASES, Judge(kind="exact"))
    assert exact["correct"].tolist() == [False, False, True, False]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_judging_reads_and_writes_every_kind_of_file(kind, tmp_path):
    before, after = tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
    if kind == "csv":
        lists = {
            c: CASES[c].map(lambda v: json.dumps(v) if isinstance(v, list) else v) for c in CASES
        }
        pd.DataFrame(lists).to_csv(before, index=False)
    elif kind == "jsonl":
        CASES.to_json(before, orient="records", lines=True)
    else:
        CASES.assign(prediction=[[CASES["prediction"][0]], CASES["prediction"][1]]).to_parquet(
            before
        )
    done = run("lib.judge", before, after)
    assert done.returncode == 0, done.stderr
    # two questions: one all right, one right in one of three
    assert "accuracy 0.667 [" in done.stdout
    assert "4 predictions; 0 verdicts failed" in done.stdout
    readers = {
        "csv": pd.read_csv,
        "jsonl": lambda p: pd.read_json(p, lines=True),
        "parquet": pd.read_parquet,
    }
    assert readers[kind](after)["correct"].tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    "column, value, options, said",
    [
        (None, None, [], "no column ['prediction']"),
        (
            "prediction",
            "['Spain', 'Italy']",
            [],
            "row 0: `prediction` \"['Spain', 'Italy']\" is no",
        ),
        ("prediction", "x", ["--judge", "llm"], "needs --model"),
        ("prediction", "x", ["--judge", "llm", "--model", "m"], "no key for the judge m"),
        (
            "prediction",
            "x",
            ["--judge", "llm", "--model", "m", "--base-url", "http://127.0.0.1:9/v1"],
            "does not answer",
        ),
        ("prediction", "x", ["--judge", "guess"], "invalid choice: 'guess'"),
        (
            "prediction",
            "x",
            ["--model", "m", "--base-url", "http://127.0.0.1:9/v1"],
            "--model, --base-url: for a judge that is a model; add --judge llm, or drop them",
        ),
        ("prediction", "x", ["--auditor", "m", "--judge", "exact"], "--auditor: for a judge that"),
        ("prediction", "x", ["--timeout", "60"], "--timeout: for a judge that is a model"),
        (
            "prediction",
            "x",
            ["--judge", "llm", "--model", "m", "--auditor-url", "http://127.0.0.1:9/v1"],
            "--auditor-url needs --auditor",
        ),
    ],
)
def test_bad_input_ends_in_one_line(column, value, options, said, tmp_path):
    frame = pd.DataFrame({"question": ["a b"], "answers": ["x"]})
    (frame if column is None else frame.assign(**{column: [value]})).to_csv(
        tmp_path / "in.csv", index=False
    )
    done = run("lib.judge", tmp_path / "in.csv", tmp_path / "out.csv", *options)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("judging: ") or "usage: " in done.stderr
    assert not (tmp_path / "out.csv").exists()


def test_a_model_that_is_not_served_and_a_dead_address_in_the_environment(tmp_path):
    CASES.assign(prediction="Italy", answers="Italy").to_csv(tmp_path / "in.csv", index=False)
    with scripted_server(honest, models=["good"]) as (server, folder, _):
        os.environ["OPENAI_BASE_URL"] = (
            "http://127.0.0.1:9/v1"  # what is given on the command line wins
        )
        given = [
            tmp_path / "in.csv",
            tmp_path / "out.csv",
            "--judge",
            "llm",
            "--base-url",
            server.url,
            "--model",
        ]
        command = [sys.executable, "-m", "lib.judge", *map(str, given)]
        bad = subprocess.run([*command, "best"], cwd=ROOT, capture_output=True, text=True)
        assert bad.returncode != 0
        assert bad.stderr.count("\n") == 1
        assert "it serves good" in bad.stderr
        assert not server.order
        assert not (tmp_path / "out.csv").exists()
        good = subprocess.run(
            [*command, "good", "--auditor", "good", "--auditor-url", server.url],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert good.returncode == 0, good.stderr
        assert "judge and auditor agree on 1.000" in good.stdout
        assert "accuracy 1.000" in good.stdout
        assert good.stdout.startswith("judge: good, a model; auditor: good\n")


def test_the_command_goes_on_after_a_kill():
    found = outages.kills(times=2, n=60)
    assert found["ok"]
    assert found["detected"] == 2
    assert "byte-identical" in found["note"]


LONG = [
    "It may be Rome.\n\n**Answer:** Italy",
    "<think>Spain? No",
    "\\boxed{Spain} or \\boxed{Italy}",
    "Italy or Spain",
    "",
]


def test_what_is_taken_out_is_counted_and_written(tmp_path):
    rows = pd.DataFrame({"question": CASES["question"][0], "answers": "Italy", "prediction": LONG})
    rows.to_csv(tmp_path / "in.csv", index=False)
    done = run("lib.judge", tmp_path / "in.csv", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    assert "accuracy 0.400 [" in done.stdout  # two of five
    counts = "1 label; 1 unfinished thoughts; 1 boxed, last of several; 1 whole text; 1 blank"
    assert f"taken out (--extract auto): {counts}" in done.stdout
    why = "2 states a gold answer; 1 no answer (unfinished thoughts); 1 hedges; 1 blank"
    assert f"why: {why}" in done.stdout
    out = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert out["prediction"].tolist() == LONG
    assert out["extracted"].tolist() == ["Italy", "", "Italy", "Italy or Spain", ""]
    assert out["correct"].tolist() == [True, False, True, False, False]
    plain = run("lib.judge", tmp_path / "in.csv", tmp_path / "out.csv", "--extract", "none")
    assert "taken out" not in plain.stdout
    assert "extracted" not in pd.read_csv(tmp_path / "out.csv")


def test_columns_of_the_user_s_own_are_kept(tmp_path, capsys):
    own = {"correct": ["yes", "no"], "why": ["a", "b"], "extracted": [1, 2], "judge": ["me", "you"]}
    graded = regrade(CASES.assign(**own), Judge(kind="alias"), "in.csv", extraction="auto")
    given = graded.drop_duplicates("question")
    assert {c: given[f"{c}_given"].tolist() for c in own} == own
    assert graded["correct"].tolist() == [True, False, True, False]
    assert graded["judge"].eq("alias").all()
    said = capsys.readouterr().out
    assert said.startswith("in.csv: columns of your own are kept: correct as correct_given, why as")
    plain = regrade(CASES.assign(extracted=[1, 2]), Judge(kind="alias"))
    assert plain["extracted"].tolist() == [1, 2, 2, 2]
    with pytest.raises(
        ValueError, match=r"in.csv: its columns \['correct_given', .* rename or drop"
    ):
        regrade(graded, Judge(kind="alias"), "in.csv", extraction="auto")


def test_a_blank_prediction_is_a_wrong_answer():
    graded = regrade(CASES.assign(prediction=["Italy", [" ", None]]), Judge(kind="alias"))
    assert graded["correct"].tolist() == [True, False, False]


def test_a_text_that_reads_as_a_list_is_one_text_where_the_caller_says_so():
    cases = CASES.assign(prediction=["Italy", '["Germany", "Switzerland"]'])
    assert len(regrade(cases, Judge(kind="alias"))) == 3
    assert len(regrade(cases, Judge(kind="alias"), texts=True)) == 2


def test_dedup_of_two_files(tmp_path):
    train = {
        "question": ["What is the capital of France?", "Who wrote Faust?", "Who wrote The Trial?"],
        "answers": ["Paris", "Goethe", "Kafka"],
    }
    test = {
        "question": [
            "Paris is the capital of which country?",
            "who wrote faust",
            "How tall is K2?",
        ],
        "answers": ["France", "Goethe", "8611 m"],
    }
    for name, rows in (("train", train), ("test", test)):
        pd.DataFrame(rows).to_csv(tmp_path / f"{name}.csv", index=False)
    done = run("lib.dedup", tmp_path / "train.csv", tmp_path / "test.csv", tmp_path / "kept.csv")
    assert done.returncode == 0, done.stderr
    assert "2 of 3 training questions give 2 of 3 test questions away" in done.stdout
    assert pd.read_csv(tmp_path / "kept.csv")["question"].tolist() == ["Who wrote The Trial?"]
    removed = pd.read_csv(tmp_path / "kept.removed.csv")
    assert set(removed["reasoning"]) == {
        "each question holds the other's answer",
        "the same question",
    }
    bad = run(
        "lib.dedup",
        tmp_path / "train.csv",
        tmp_path / "nowhere.csv",
        tmp_path / "kept.csv",
    )
    assert bad.returncode != 0
    assert "no such file" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_dedup_of_chats_keeps_whole_rows(tmp_path):
    chats = [
        [("Tell me the capital of France.", "The capital of France is Paris."), ("Hi", "Hello")],
        [("Who wrote The Trial?", "Kafka did.")],
    ]
    turns = [
        [m for q, a in chat for m in ({"from": "human", "value": q}, {"from": "gpt", "value": a})]
        for chat in chats
    ]
    rows = [{"id": i, "conversations": turns[i]} for i in range(2)]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    (tmp_path / "test.csv").write_text("question,answers\nWhat is the capital of France?,Paris\n")
    done = run("lib.dedup", tmp_path / "train.json", tmp_path / "test.csv", tmp_path / "kept.json")
    assert done.returncode == 0, done.stderr
    assert "read as ShareGPT, 2 rows with 3 replies" in done.stdout
    assert "1 of 3 training questions give 1 of 1 test questions away" in done.stdout
    assert "kept: 1 of 2 rows in" in done.stdout
    assert json.loads((tmp_path / "kept.json").read_text()) == rows[1:]


@pytest.mark.parametrize("empty", ["", " ", None, float("nan")])
def test_rows_without_an_id_are_refused_by_number(empty):
    cases = pd.concat([CASES] * 2, ignore_index=True)
    with pytest.raises(
        ValueError, match=r"in.csv: rows 1, 3: empty `question_id`; fill it or drop"
    ):
        regrade(cases.assign(question_id=["1", empty, "3", empty]), Judge(kind="alias"), "in.csv")


def test_files_in_another_order_are_judged_and_compared_alike(tmp_path):
    cities = ["Rome", "Bern", "Lyon", "Oslo"]
    answers = ["Italy", "Switzerland", "France", "Norway"]
    rows = pd.DataFrame(
        {
            "question": [f"In which country is {city}?" for city in cities],
            "answers": answers,
            "prediction": ["Italy", "Switzerland", "Spain", "Spain"],
        }
    )
    for name, frame in (("a", rows), ("b", rows[::-1])):
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        done = run("lib.judge", tmp_path / f"{name}.csv", tmp_path / f"{name}.graded.csv")
        assert "over 4 questions" in done.stdout
        assert done.stdout.startswith("judge: alias, a rule\n")
        assert "question_id" not in pd.read_csv(tmp_path / f"{name}.graded.csv")
    done = run("lib.compare", tmp_path / "a.graded.csv", tmp_path / "b.graded.csv")
    assert "0 better and 0 worse" in done.stdout
    assert "note: " not in done.stdout


def test_an_output_that_cannot_be_is_refused_before_anything_is_judged(tmp_path):
    source = tmp_path / "in.csv"
    CASES.assign(prediction="Italy", answers="Italy").to_csv(source, index=False)
    before = source.read_bytes()
    (tmp_path / "out.csv").mkdir()
    for out, said in (
        ("in.csv", "would overwrite what is read"),
        ("out.csv", "is a folder"),
        ("in.csv/out.csv", "cannot be written in"),
    ):
        done = run("lib.judge", source, tmp_path / out)
        assert done.returncode == 1
        assert done.stderr.startswith("judging: ") and said in done.stderr
        assert done.stderr.count("\n") == 1
        assert "accuracy" not in done.stdout
    assert source.read_bytes() == before


def test_a_column_that_parquet_cannot_hold_is_refused_before_anything_is_judged(tmp_path):
    rows = [{"question": "Who?", "answers": "A", "prediction": "A", "mixed": m} for m in (1, "b")]
    (tmp_path / "in.json").write_text(json.dumps(rows))
    done = run("lib.judge", tmp_path / "in.json", tmp_path / "out.parquet")
    assert done.returncode == 1
    assert "out.parquet: parquet cannot hold the column 'mixed'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == "judge: alias, a rule\n"
    assert [path.name for path in tmp_path.iterdir()] == ["in.json"]


def test_a_rule_of_dedup_takes_no_model(tmp_path):
    done = run(
        "lib.dedup", tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "c.csv", "--model", "m"
    )
    assert done.returncode == 1
    assert "add --judge llm, or drop them" in done.stderr


def test_one_id_at_two_questions_and_one_question_in_two_rows():
    """Two data sets numbered from 0, and samples of a question row by row without ids."""
    asked = ["In which country is Lyon?", "Where is Rome?", "Who?", "When?", "Why?", "How?"]
    table = pd.DataFrame(
        {
            "question_id": [0, 1, 0, 1, 2, 3],
            "question": asked,
            "answers": [["France"], ["Italy"], ["A B"], ["C D"], ["E F"], ["G H"]],
            "prediction": ["France", "Italy", "x", "x", "x", "x"],
        }
    )
    graded = regrade(table, Judge(kind="alias"))
    reached = accuracy(graded.assign(question_id=asked_of(graded)))
    assert (reached["n"], reached["value"]) == (6, pytest.approx(2 / 6))
    repeated = pd.concat([table.head(2)] * 3, ignore_index=True).drop(columns="question_id")
    graded = regrade(repeated, Judge(kind="alias"))
    assert accuracy(graded.assign(question_id=asked_of(graded)))["n"] == 2
    blank = regrade(repeated.assign(question=""), Judge(kind="alias"))
    assert asked_of(blank).nunique() == 6


def test_an_id_at_two_questions_is_said(capsys):
    table = pd.DataFrame(CASES).assign(question_id="a", question=["Who?", "When?"])
    regrade(table, Judge(kind="alias"), "in.csv")
    assert "in.csv: note: an id such as 'a' stands at several questions" in capsys.readouterr().out


def test_a_question_is_a_text():
    with pytest.raises(TableError, match=r"row 1: `question` .*'role'.* is no text"):
        regrade(CASES.assign(question=["Who?", [{"role": "user"}]]), Judge(kind="alias"), "in")
    with pytest.raises(TableError, match="row 0: empty `question`; a model judges by it"):
        regrade(CASES.assign(question=[None, "Who?"]), Judge(kind="llm", model="m"), "in")
    graded = regrade(CASES.assign(question=[None, "Who?"]), Judge(kind="alias"), "in")
    assert graded["question"].tolist()[0] == ""


def test_relations_that_are_lists_say_nothing_of_rivals():
    cases = CASES.assign(relation=[["P17"], "city_country"])
    assert len(regrade(cases, Judge(kind="alias"))) == 4


def test_dedup_keeps_rows_as_they_were_given(tmp_path):
    rows = [
        {"question": "Who sang Help?", "answers": ["The Beatles", "the beatles"], "popularity": 7},
        {"question": "What is the capital of France?", "answers": ["Paris"], "popularity": 1},
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "test.csv").write_text("question,answers\nWhat is the capital of France?,Paris\n")
    done = run("lib.dedup", *(tmp_path / name for name in ("train.jsonl", "test.csv", "out.jsonl")))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.jsonl").read_text()) == rows[0]
