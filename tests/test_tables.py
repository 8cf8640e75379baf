"""Tables: lists of answers, lists in a csv, files that cannot be read."""

import json

import pandas as pd
import pytest

from lib.cells import read_answers
from lib.tables import FORMATS, TableError, key_text, need, read_table, save_table


@pytest.mark.parametrize(
    ("value", "answers"), [("A", ["A"]), ('["A", "B"]', ["A", "B"]), (7, ["7"])]
)
def test_read_answers(value, answers):
    assert read_answers(value) == answers


@pytest.mark.parametrize("nothing", [None, float("nan"), [], [" "], "", {}])
def test_no_answer_is_refused(nothing):
    with pytest.raises(TableError, match="`answers` is empty"):
        read_answers(nothing)


@pytest.mark.parametrize("extension", FORMATS)
def test_a_saved_table_reads_as_it_was(tmp_path, extension):
    rows = pd.DataFrame({"question": ["Who?", "When?"], "answers": [["A", "NA"], ["1999"]]})
    path = save_table(rows, tmp_path / f"rows{extension}")
    back = read_table(path)
    assert back["question"].tolist() == ["Who?", "When?"]
    assert back["answers"].map(read_answers).tolist() == [["A", "NA"], ["1999"]]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_cells_of_a_csv_come_out_as_they_went_in(tmp_path):
    text = "question,code,when,answers\nWho?,007,2019-05-01,NA\nWhat?,1e5,,None\n"
    (tmp_path / "in.csv").write_text(text)
    save_table(read_table(tmp_path / "in.csv"), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == text


def test_values_of_a_jsonl_come_out_as_they_went_in(tmp_path):
    lines = [
        '{"answers": 1945, "code": "007", "share": 0.12345678901234567, "ok": true, "none": null}',
        '{"answers": 3.5, "code": "1e5", "share": 2.0, "ok": false, "none": "é"}',
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    frame = read_table(tmp_path / "in.jsonl")
    assert frame["answers"].map(read_answers).tolist() == [["1945"], ["3.5"]]
    assert (~frame["ok"]).tolist() == [False, True]
    save_table(frame, tmp_path / "out.jsonl")
    assert [*map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())] == [
        *map(json.loads, lines)
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "question,answers\n", "a.csv: holds no rows"),
        ("a.csv", "", "a.csv: cannot be read as csv"),
        ("a.txt", "Who?", "a.txt: unknown extension '.txt'"),
        ("a.jsonl", "{broken\n", "a.jsonl: cannot be read as jsonl"),
        ("a.jsonl", "[1]\n", "a.jsonl: cannot be read as jsonl: a line is no JSON object"),
    ],
)
def test_unreadable_files_are_refused_by_name(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(TableError, match=message):
        read_table(tmp_path / name)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(TableError, match="none.csv: no such file"):
        read_table(tmp_path / "none.csv")


def test_an_unknown_extension_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="a.txt: unknown extension '.txt'; give one of .csv"):
        save_table(pd.DataFrame({"x": [1]}), tmp_path / "new" / "a.txt")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("cell", ["=HYPERLINK(0)", "@x", "'=x", "''@y", "-a", "+b", "\t=x"])
def test_no_cell_of_a_csv_is_a_formula_and_all_come_out_as_they_went_in(cell, tmp_path):
    path = tmp_path / "x.csv"
    save_table(pd.DataFrame({"text": [cell, "plain", "-5", "+1.5", "'quoted'"]}), path)
    lines = path.read_text().splitlines()
    assert not any(line.lstrip('"').startswith(("=", "@", "\t", "-a", "+b")) for line in lines)
    assert lines[2:] == ["plain", "-5", "+1.5", "'quoted'"]
    assert read_table(path)["text"].tolist() == [cell, "plain", "-5", "+1.5", "'quoted'"]


@pytest.mark.parametrize(
    ("there", "missing", "meant"),
    [
        ("answer", "answers", "answer"),
        ("Target", "answers", "Target"),
        ("anwsers", "answers", "anwsers"),
        (" answers", "answers", " answers"),
        ("ground truth", "answers", "ground truth"),
        ("prompt", "question", "prompt"),
        ("query", "question", "query"),
        ("response", "prediction", "response"),
    ],
)
def test_a_column_of_another_name_is_suggested(there, missing, meant):
    frame = pd.DataFrame({"x": [1], there: ["a"]})
    with pytest.raises(TableError) as error:
        need(frame, [missing], "a.csv")
    said = f"there are ['x', {there!r}]; did you mean {meant!r}? rename it to {missing!r}"
    assert str(error.value) == f"a.csv: no column [{missing!r}]; {said}"


def test_what_is_like_no_column_is_not_suggested():
    with pytest.raises(TableError, match=r"no column \['answers'\]; there are \['x', 'colour'\]$"):
        need(pd.DataFrame({"x": [1], "colour": ["a"]}), ["answers"], "a.csv")


@pytest.mark.parametrize("extension", FORMATS)
def test_a_failed_writing_leaves_nothing_behind(tmp_path, extension, monkeypatch):
    def fail(frame, path):
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setitem(FORMATS, extension, (None, fail))
    with pytest.raises(OSError, match="disk full"):
        save_table(pd.DataFrame({"x": [1]}), tmp_path / f"a{extension}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cells", [[1, "a"], [["a"], "a"], [{"a": 1}, 2]])
def test_a_column_that_parquet_cannot_hold_is_named(tmp_path, cells):
    frame = pd.DataFrame({"good": ["x", "y"], "bad": pd.Series(cells, dtype=object)})
    with pytest.raises(TableError, match="a.parquet: parquet cannot hold the column 'bad' .*jsonl"):
        save_table(frame, tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())
    save_table(frame, tmp_path / "a.jsonl")


def test_an_index_with_a_name_is_a_column(tmp_path):
    frame = pd.DataFrame({"question": ["Who?"]}, index=pd.Index(["q7"], name="question_id"))
    frame.to_parquet(tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet")["question_id"].tolist() == ["q7"]
    frame.reset_index(drop=True).iloc[[0]].to_parquet(tmp_path / "a.parquet")
    assert list(read_table(tmp_path / "a.parquet")) == ["question"]


@pytest.mark.parametrize("extension", [".csv", ".tsv", ".json", ".jsonl"])
def test_arrays_of_a_parquet_lose_nothing(tmp_path, extension):
    messages = [[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}], None]
    numbers = [[float(i) for i in range(1500)] + [float("nan")], []]
    rows = pd.DataFrame({"messages": messages, "numbers": numbers, "name": ["a", None]})
    rows.to_parquet(tmp_path / "in.parquet")
    path = save_table(read_table(tmp_path / "in.parquet"), tmp_path / f"out{extension}")
    assert "NaN" not in path.read_text()
    back = read_table(path)
    is_text = isinstance(back["messages"][0], str)
    found, first = (
        json.loads(v) if is_text else v for v in (back["messages"][0], back["numbers"][0])
    )
    assert found == messages[0]
    assert first == numbers[0][:-1] + [None]
    assert key_text(back["messages"][1]) == key_text(back["name"][1]) == ""


def test_half_a_character_is_marked_and_all_else_stays(tmp_path):
    """JavaScript's slice cuts an emoji in two; no file in UTF-8 holds the half."""
    lines = [r'{"q": "cut \ud83d", "p": "\ud83d\ude00 \\ud83d"}', r'{"q": "\ude00 a", "p": null}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    frame = read_table(tmp_path / "in.jsonl")
    assert frame["q"].tolist() == ["cut \ufffd", "\ufffd a"]
    assert frame["p"][0] == "\U0001f600 \\ud83d"
    for extension in FORMATS:
        save_table(frame, tmp_path / f"out{extension}")
