"""Predictions as other tools leave them, written here as those tools write them."""

import json
import zipfile

import pytest

from lib.config import Judge
from lib.judge.formats import read_predictions
from lib.judge.grading import regrade
from lib.tables import TableError

DOC = {
    "question": "Where is Lyon?",
    "answer": {"value": "France", "aliases": ["France", "Frankreich"]},
}


def harness_row(doc_id: int, reply: str, **changes) -> dict:
    row = {
        "doc_id": doc_id,
        "doc": DOC,
        "target": "['France', 'Frankreich']",
        "arguments": {"gen_args_0": {"arg_0": "Q: Where is Lyon? A:"}},
        "resps": [[f" {reply}\n"]],
        "filtered_resps": [reply],
        "filter": "remove_whitespace",
        "exact_match": 1.0,
    }
    return row | changes


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_samples_of_the_harness(tmp_path):
    rows = [harness_row(0, "France"), harness_row(1, "Spain"), harness_row(0, "x", filter="other")]
    table, form = read_predictions(write(tmp_path / "samples.jsonl", rows))
    assert form == "lm-eval"
    assert table["prediction"].tolist() == ["France", "Spain"]
    assert table["answers"].tolist() == [["France", "Frankreich"]] * 2
    assert table["question"].tolist() == ["Where is Lyon?"] * 2


def test_a_target_that_is_a_list_written_as_text(tmp_path):
    row = harness_row(0, "France", doc={"question": "Where is Lyon?", "answer": ["France"]})
    table, _ = read_predictions(write(tmp_path / "samples.jsonl", [row]))
    assert table["answers"].tolist() == [["France", "Frankreich"]]


def test_several_replies_of_the_harness_are_several_predictions(tmp_path):
    row = harness_row(0, "", filtered_resps=[["France", "Spain"]])
    table, _ = read_predictions(write(tmp_path / "samples.jsonl", [row]))
    assert table["prediction"].tolist() == [["France", "Spain"]]


def sample(name, reply, epoch=1) -> dict:
    message = {"role": "assistant", "content": [{"type": "text", "text": reply}]}
    return {
        "id": name,
        "epoch": epoch,
        "input": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Where is Lyon?"},
        ],
        "target": ["France"],
        "output": {"choices": [{"message": message}]},
    }


def test_logs_of_inspect_with_epochs(tmp_path):
    path = tmp_path / "log.json"
    path.write_text(
        json.dumps({"version": 2, "samples": [sample(1, "France"), sample(1, "Spain", 2)]})
    )
    table, form = read_predictions(path)
    assert form == "inspect"
    assert table["question"].tolist() == ["Where is Lyon?"]
    assert table["prediction"].tolist() == [["France", "Spain"]]


def test_the_zip_that_inspect_writes(tmp_path):
    path = tmp_path / "log.eval"
    with zipfile.ZipFile(path, "w") as log:
        log.writestr("header.json", "{}")
        log.writestr("samples/1_epoch_1.json", json.dumps(sample(1, "France")))
    table, form = read_predictions(path)
    assert form == "inspect"
    assert table["prediction"].tolist() == ["France"]
    assert table["answers"].tolist() == [["France"]]


def test_results_of_simple_evals(tmp_path):
    convo = [
        {"role": "user", "content": "Where is Lyon?"},
        {"role": "assistant", "content": "France"},
    ]
    page = (
        "<h1>Results</h1>\n<p>Correct Answer: C&ocirc;te &amp; co</p>\n<p>Extracted Answer: x</p>"
    )
    path = tmp_path / "simpleqa_allresults.json"
    path.write_text(json.dumps({"score": 1.0, "metrics": {}, "htmls": [page], "convos": [convo]}))
    table, form = read_predictions(path)
    assert form == "simple-evals"
    assert table["answers"].tolist() == [["Côte & co"]]
    assert table["prediction"].tolist() == ["France"]


def test_our_own_table_stays_as_it_is(tmp_path):
    rows = [{"question": "Where is Lyon?", "answers": ["France"], "prediction": "France"}]
    table, form = read_predictions(write(tmp_path / "rows.jsonl", rows))
    assert form == "plain"
    assert list(table) == ["question", "answers", "prediction"]


LONG = "<think>Spain?</think>It lies on the Rhone.\n\n**Answer:** France<|im_end|>"


def simple_evals(reply) -> dict:
    convo = [{"role": "user", "content": "Where is Lyon?"}, {"role": "assistant", "content": reply}]
    return {"htmls": ["<p>Correct Answer: France</p>"], "convos": [convo]}


@pytest.mark.parametrize(
    ("name", "log"),
    [
        ("samples.jsonl", harness_row(0, LONG)),
        ("samples.json", [harness_row(0, LONG), harness_row(1, LONG)]),
        ("log.json", {"samples": [sample(1, LONG), sample(2, LONG)]}),
        ("allresults.json", simple_evals(LONG)),
        ("rows.json", [{"question": "Where is Lyon?", "answers": ["France"], "prediction": LONG}]),
    ],
)
def test_the_answer_is_taken_out_of_every_format(tmp_path, name, log):
    (tmp_path / name).write_text(json.dumps(log))
    table, _ = read_predictions(tmp_path / name)
    graded = regrade(table, Judge(kind="alias"), texts=True, extraction="auto")
    assert graded["prediction"].eq(LONG).all()
    assert graded["extracted"].eq("France").all()
    assert graded["form"].eq("past thoughts > first turn > label").all()
    assert graded["correct"].all()
    assert not regrade(table, Judge(kind="alias"), texts=True)["correct"].any()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", "[1]", "no JSON object"),
        ("a.json", '{"x": 1}', "neither a log of Inspect"),
        ("a.json", '{"samples": []}', "holds no samples"),
        ("a.json", '{"samples": [{}]}', "sample 0"),
        ("a.eval", "not a zip", "Inspect log"),
        ("a.json", "[" * 100_000, "cannot be read"),
    ],
)
def test_what_is_not_as_described_is_said_in_one_line(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(TableError, match=said) as error:
        read_predictions(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    for name in ("a.json", "a.eval", "a.jsonl"):
        with pytest.raises(TableError, match="no such file"):
            read_predictions(tmp_path / name)


def test_an_unknown_format_names_the_known_ones(tmp_path):
    with pytest.raises(TableError, match="lm-eval"):
        read_predictions(tmp_path / "a.jsonl", "harness")
