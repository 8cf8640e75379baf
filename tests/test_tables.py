"""Tables: lists of answers, lists in a csv, files that cannot be read."""

import pandas as pd
import pytest

from lib.tables import FORMATS, TableError, read_answers, read_table, save_table


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


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "question,answers\n", "a.csv: holds no rows"),
        ("a.csv", "", "a.csv: cannot be read as csv"),
        ("a.txt", "Who?", "a.txt: unknown extension '.txt'"),
        ("a.jsonl", "{broken\n", "a.jsonl: cannot be read as jsonl"),
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
