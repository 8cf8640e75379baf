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


SOLUTION = "She has 48 and 24 more, 48 + 24 = <<48+24=72>>72.\n#### 72"
GSM = {
    "doc": {"question": "How many?", "answer": SOLUTION},
    "target": SOLUTION,
    "resps": [["She has 48 + 24 = 72. The answer is 72."]],
}


def read(tmp_path, rows):
    return read_predictions(write(tmp_path / "samples.jsonl", rows))[0]


def test_the_gold_answer_of_a_worked_solution_is_what_stands_behind_its_mark(tmp_path):
    table = read(tmp_path, [harness_row(0, "72", **GSM)])
    assert table["answers"].tolist() == [["72"]]
    assert regrade(table, Judge(kind="alias"))["correct"].all()


def test_of_several_filters_one_is_read_and_named(tmp_path, capsys):
    rows = [
        harness_row(i, reply, **GSM, filter=name)
        for name, reply in (("strict-match", "[invalid]"), ("flexible-extract", "72"))
        for i in range(2)
    ]
    assert read(tmp_path, rows)["prediction"].tolist() == ["72", "72"]
    said = capsys.readouterr().out
    assert "several filters, strict-match (2 rows), flexible-extract (2 rows); read are" in said
    assert "the rows of flexible-extract" in said
    table = read(tmp_path, rows[:2])
    assert table["prediction"].tolist() == [GSM["resps"][0][0]] * 2
    assert "in 2 rows the filter found no answer" in capsys.readouterr().out
    assert regrade(table, Judge(kind="alias"), extraction="auto")["correct"].all()


@pytest.mark.parametrize(
    "changes",
    [
        {"filtered_resps": [["-1.25", "False"], ["-0.5", "True"]]},
        {"filtered_resps": [[-1.25, False], [-0.5, True]]},
        {"filtered_resps": [-1.25, -0.5]},
        {"filtered_resps": ["-1.25", "-0.5"]},
        {"filtered_resps": ["-1.25"], "doc": DOC | {"choices": ["France", "Spain"]}},
    ],
)
def test_log_likelihoods_are_no_predictions(tmp_path, changes):
    with pytest.raises(TableError, match="row 0: `filtered_resps` holds log-likelihoods.* write"):
        read(tmp_path, [harness_row(0, "", **changes)])


def test_a_negative_number_that_a_model_wrote_is_one(tmp_path):
    assert read(tmp_path, [harness_row(0, "-1.25")])["prediction"].tolist() == ["-1.25"]


@pytest.mark.parametrize(
    ("answer", "answers"),
    [
        ({"value": "France", "aliases": []}, ["France"]),
        ({"value": "France"}, ["France"]),
        ({"value": "Gaul", "aliases": ["France", "gaul"]}, ["Gaul", "France"]),
        ({"value": None, "aliases": []}, ["France", "Frankreich"]),
    ],
)
def test_an_answer_with_a_value_and_aliases(tmp_path, answer, answers):
    row = harness_row(0, "France", doc={"question": "Where?", "answer": answer})
    assert read(tmp_path, [row])["answers"].tolist() == [answers]


@pytest.mark.parametrize(
    ("target", "said"), [(None, "row 0: `answers` is empty"), ({"a": 1}, "an object with the keys")]
)
def test_a_target_that_is_no_text_is_refused(tmp_path, target, said):
    row = harness_row(0, "x", target=target, doc={"question": "Where?"})
    with pytest.raises(TableError, match=said):
        read(tmp_path, [row])


def test_a_format_that_is_asked_for_needs_its_columns(tmp_path):
    (tmp_path / "a.csv").write_text("question,answers,prediction\nWho?,A,A\n")
    with pytest.raises(TableError, match=r"no column \['doc', 'target', 'resps'\]"):
        read_predictions(tmp_path / "a.csv", "lm-eval")


def inspect_log(tmp_path, *samples):
    path = tmp_path / "log.json"
    path.write_text(json.dumps({"samples": samples}))
    table, _ = read_predictions(path)
    absent = table.pop("no_reply")
    return table, regrade(table, Judge(kind="alias"), path, True, "auto", absent)


@pytest.mark.parametrize(
    ("changes", "correct", "why"),
    [
        ({"error": {"message": "Timeout\n at x"}, "output": None}, None, "no reply: Timeout at x"),
        ({"error": {"message": "Cut"}, "output": {"choices": []}}, None, "no reply: Cut"),
        ({"output": {"choices": [], "error": "Refused"}}, None, "no reply: Refused"),
        ({"output": {}}, None, "no reply: no output"),
        ({"output": None}, None, "no reply: no output"),
        ({"output": {"choices": [None]}}, None, "no reply: no output"),
        ({"output": {"choices": None, "completion": ""}}, None, "no reply: no output"),
        ({"output": {"choices": [{"message": {"content": ""}}]}}, False, "blank"),
        ({"output": {"choices": [{"message": {"content": None}}]}}, False, "blank"),
        ({"output": "France"}, True, "states a gold answer"),
        ({"error": {"message": "late"}, "output": "France"}, True, "states a gold answer"),
    ],
)
def test_a_sample_without_a_reply_has_no_verdict(tmp_path, changes, correct, why):
    _, graded = inspect_log(tmp_path, sample(1, "Spain"), sample(2, "") | changes)
    assert not graded["correct"][0]
    assert graded["correct"].isna()[1] if correct is None else graded["correct"][1] == correct
    assert graded["why"][1] == why
    assert graded["cause"].isna().tolist() == [True, correct is not None]


def test_an_epoch_without_a_reply_leaves_the_others_their_verdicts(tmp_path):
    failed = sample(1, "", 2) | {"error": {"message": "Timeout"}, "output": None}
    table, graded = inspect_log(tmp_path, sample(1, "France"), failed, sample(1, "Spain", 3))
    assert len(table) == 1
    assert graded["correct"].isna().tolist() == [False, True, False]
    assert graded["correct"].dropna().tolist() == [True, False]
    assert graded["cause"].dropna().tolist() == ["no reply: Timeout"]


def test_one_id_at_several_questions_is_several(tmp_path, capsys):
    other = sample(1, "Spain") | {"input": "Where is Bilbao?", "target": "Spain"}
    table, graded = inspect_log(tmp_path, sample(1, "France"), other, sample(1, "Spain", 2))
    assert table["question_id"].tolist() == ["1", "1 (2)"]
    assert table["answers"].tolist() == [["France"], ["Spain"]]
    assert graded["correct"].tolist() == [True, False, True]
    assert "an id such as '1' stands at several questions" in capsys.readouterr().out
    table, _ = inspect_log(tmp_path, sample(None, "a"), other | {"id": None})
    assert table["question_id"].tolist() == ["0", "1"]
    rows = [harness_row(0, "x"), harness_row(0, "y", doc=DOC | {"question": "Where is Nice?"})]
    assert read(tmp_path, rows)["question_id"].tolist() == ["0", "0 (2)"]


RESULTS = simple_evals("France")
PAGE = RESULTS["htmls"][0]


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ({"samples": None}, "its `samples` are no list"),
        ({"samples": [None]}, "sample 0 has no `input`"),
        ({"samples": [sample(1, "x") | {"input": 5}]}, "sample 0: its `input` holds no text"),
        ({"samples": [sample(1, "x") | {"target": {"a": 1}}]}, "row 0: `answers` holds an object"),
        (RESULTS | {"htmls": None}, "1 `convos` and no `htmls`"),
        (RESULTS | {"htmls": [PAGE] * 2}, "1 `convos` and 2 `htmls`"),
        (RESULTS | {"htmls": [5]}, "result 0 lacks"),
        (RESULTS | {"convos": ["text"]}, "result 0 lacks"),
        (RESULTS | {"convos": [[{"role": "user"}, None]]}, "result 0 lacks"),
        ({"question": "Who?", "answers": "A"}, "one object with the keys .*give a list of rows"),
        ({"data": [{"question": "Who?"}]}, r"with the keys \['data'\], .*give a list of rows"),
        ({"question": {"0": "Who?"}, "answers": {"0": "A"}}, "give a list of rows"),
    ],
)
def test_damaged_logs_and_objects_are_refused_in_one_line(tmp_path, log, said):
    (tmp_path / "a.json").write_text(json.dumps(log))
    with pytest.raises(TableError, match=f"a.json: .*{said}") as error:
        read_predictions(tmp_path / "a.json")
    assert "\n" not in str(error.value)


def test_repeats_of_simple_evals_are_predictions_of_one_question(tmp_path):
    logs = [simple_evals(reply) for reply in ("France", "Italy")]
    log = {key: [one for each in logs for one in each[key]] for key in ("htmls", "convos")}
    (tmp_path / "all.json").write_text(json.dumps(log))
    table, _ = read_predictions(tmp_path / "all.json")
    assert table["prediction"].tolist() == [["France", "Italy"]]


def test_a_flipped_bit_in_a_zip_is_one_line(tmp_path):
    path, long = tmp_path / "log.eval", json.dumps(sample(1, "France " * 300))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as log:
        log.writestr("samples/1_epoch_1.json", long)
    whole = path.read_bytes()
    for at in range(30, 80):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            read_predictions(path)
        except TableError as error:
            assert str(path) in str(error)
