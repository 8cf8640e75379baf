"""Two graded files, the same questions: differences by hand, tests, refusals in one line."""

import json
import subprocess
import sys

import pandas as pd
import pytest
from scipy.stats import binomtest

from lib.compare import compare_files, compare_runs, difference, read_graded, sentences
from lib.config import ROOT
from lib.tables import TableError


def graded(verdicts, **more) -> pd.DataFrame:
    ids = [f"q{i}" for i in range(len(verdicts))]
    return pd.DataFrame({"question_id": ids, "correct": pd.array(verdicts, "boolean")} | more)


BASE = graded([True] * 30 + [False] * 70)
BETTER = graded([True] * 25 + [False] * 5 + [True] * 30 + [False] * 40)


def test_the_difference_is_paired_and_tested_exactly():
    row = compare_files({"a": BASE, "b": BETTER}).iloc[0]
    assert (row["value"], row["better"], row["worse"], row["n"]) == (0.25, 30, 5, 100)
    assert row["p"] == binomtest(30, 35, 0.5).pvalue == row["holm"]
    assert 0.1 < row["low"] < 0.25 < row["high"] < 0.4
    assert 0.1 < row["visible"] < 0.25
    [_, _, said] = sentences({"a": BASE, "b": BETTER}, compare_files({"a": BASE, "b": BETTER}))
    assert said.startswith("b less a: +25.0% [")
    assert "better; 100 questions show a true" in said


def test_several_files_are_one_family_and_equal_ones_do_not_differ():
    table = compare_files({"a": BASE, "b": BETTER, "c": BASE}).set_index("file")
    assert table.loc["b", "holm"] == 2 * table.loc["b", "p"]
    assert table.loc["c", ["value", "p", "holm"]].tolist() == [0, 1, 1]


def test_samples_are_compared_by_their_questions_shares():
    two = pd.concat([BASE, BETTER], ignore_index=True)
    row = compare_files({"a": BASE, "both": two}).iloc[0]
    assert (row["value"], row["n"], row["test"]) == (0.125, 100, "permutation")
    assert pd.isna(row["visible"])


def test_failed_verdicts_and_missing_questions_leave_the_pair():
    some = BETTER.head(50).assign(judge="alias")
    some.loc[0, "correct"] = pd.NA
    table = compare_files({"a": BASE.assign(judge="exact"), "b": some})
    assert table["n"].tolist() == [49]
    said = "\n".join(sentences({"a": BASE.assign(judge="exact"), "b": some}, table))
    assert "1 without a verdict" in said
    assert "different judges: alias, exact" in said
    text = sentences({"a": some, "b": BASE}, compare_files({"a": some, "b": BASE}))
    assert "note: 50 questions of b are not in a" in text


def test_files_pair_by_text_where_their_ids_differ(tmp_path):
    texts = {"question": [f"Q {i}" for i in range(4)]}
    one = graded([True, False, True, False], **texts)
    other = one.assign(question_id=[f"x{i}" for i in range(4)])
    assert compare_files({"a": one, "b": other})["n"].tolist() == [4]
    with pytest.raises(TableError, match="no question is in all of them"):
        compare_files({"a": one, "b": other.assign(question="?")})


def test_the_command_reads_csv_and_refuses_in_one_line(tmp_path):
    one, other, bad = (tmp_path / name for name in ("a.csv", "b.jsonl", "bad.csv"))
    BASE.to_csv(one, index=False)
    BETTER.to_json(other, orient="records", lines=True)
    graded([True]).assign(correct="perhaps").to_csv(bad, index=False)
    assert read_graded(one)["correct"].tolist() == BASE["correct"].tolist()

    command = [sys.executable, "-m", "lib.compare"]
    out = tmp_path / "out.csv"
    done = subprocess.run(
        [*command, one, other, "--out", out], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "+25.0%" in done.stdout
    assert pd.read_csv(out)["better"].tolist() == [30]
    for files, said in (
        ([one, bad], "row 0: `correct` = 'perhaps'"),
        ([one, tmp_path / "no.csv"], "no.csv"),
    ):
        done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert said in done.stderr


def test_two_runs_are_compared_policy_by_policy(tmp_path):
    for run, grpo in (("a", BASE), ("b", BETTER)):
        for stage, name, frame in (("03_baselines", "base", BASE), ("04_grpo", "grpo", grpo)):
            folder = tmp_path / run / stage
            folder.mkdir(parents=True)
            frame.to_parquet(folder / f"grades_greedy_{name}_test.parquet")
    (tmp_path / "c").mkdir()
    table, noted = compare_runs(tmp_path / "a", tmp_path / "b")
    table = table.set_index("file")
    assert not noted
    alone = compare_files({"a": BASE, "b": BETTER}).iloc[0]
    assert table.loc["base", "value"] == 0
    assert table.loc["grpo", ["value", "n", "p"]].tolist() == alone[["value", "n", "p"]].tolist()
    assert table.loc["grpo", "holm"] == min(1, 2 * alone["p"])
    said = [difference(row, "the first run's") for row in table.reset_index().itertuples()]
    assert said[0].startswith("base less the first run's: +0.0%")
    with pytest.raises(TableError, match="c: no graded greedy answers"):
        compare_runs(tmp_path / "a", tmp_path / "c")


def test_what_two_runs_do_not_share_is_noted_both_ways(tmp_path):
    frames = {
        "a": {"base": BASE.head(90), "grpo": BASE.head(90), "sft": BASE},
        "b": {"base": BASE.tail(95), "grpo": BASE.tail(95), "sft": BETTER},
    }
    for run, judge in (("a", "alias"), ("b", "exact")):
        (tmp_path / run / "03_baselines").mkdir(parents=True)
        for name, frame in frames[run].items():
            path = tmp_path / run / "03_baselines" / f"grades_greedy_{name}_test.parquet"
            frame.assign(judge="alias" if name == "sft" else judge).to_parquet(path)
    command = [sys.executable, "-m", "lib.compare", tmp_path / "a", tmp_path / "b"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    a, b = tmp_path / "a", tmp_path / "b"
    assert done.stdout.splitlines()[3:] == [
        f"note: 10 questions of {b} are not in {a} (base, grpo)",
        f"note: 5 questions of {a} are not in {b} (base, grpo)",
        "note: the files were graded by different judges: alias, exact (base, grpo)",
    ]


def questions(ids, names, verdicts) -> pd.DataFrame:
    frame = pd.DataFrame({"question": [f"Where is {n}?" for n in names], "correct": verdicts})
    return frame if ids is None else frame.assign(question_id=ids)


IDS = ["row0", "row1", "row2"]


@pytest.mark.parametrize(
    ("one", "other", "note"),
    [
        (None, None, None),
        (IDS, IDS, "id 'row0' is 'Where is Lyon?' in a and 'Where is Rome?' in b"),
        (["a1", "a2", "a3"], IDS, "no question is in all of them, by id"),
        ([None] * 3, IDS, "a: `question_id` is empty in rows 0, 1, 2"),
        (IDS, [" ", "row1", "row0"], "b: `question_id` is empty in row 0"),
        (IDS, None, "no column `question_id` in b"),
        (["x"] * 3, ["x"] * 3, "id 'x' is 'Where is Lyon?' in a and 'Where is Bern?' in a"),
    ],
)
def test_the_same_questions_in_another_order_do_not_differ(one, other, note):
    frames = {
        "a": questions(one, ["Lyon", "Bern", "Rome"], [True, True, False]),
        "b": questions(other, ["Rome", "Bern", "Lyon"], [False, True, True]),
    }
    table = compare_files(frames)
    assert table[["value", "n", "better", "worse"]].values.tolist() == [[0, 3, 0, 0]]
    notes = [line for line in sentences(frames, table) if line.startswith("note: paired")]
    assert len(notes) == (note is not None)
    assert all(note in line for line in notes)


def test_one_id_at_two_questions_is_refused_where_no_text_pairs_them():
    frames = {
        "a": questions(IDS, ["Lyon", "Bern", "Rome"], [True, True, False]),
        "b": questions(IDS, ["Oslo", "Riga", "Kyiv"], [False, True, True]),
    }
    said = "id 'row0' is 'Where is Lyon.' in a and 'Where is Oslo.' in b .* drop the column `quest"
    with pytest.raises(TableError, match=said):
        compare_files(frames)
    one = {name: frame.drop(columns="question") for name, frame in frames.items()}
    assert compare_files(one)["n"].tolist() == [3]
    lost = {name: frame.assign(question_id=[None, "b", "c"]) for name, frame in one.items()}
    with pytest.raises(
        TableError, match="a: `question_id` is empty in row 0; no column `question`"
    ):
        compare_files(lost)


@pytest.mark.parametrize("ids", [[1, 2, 3], [1.0, 2.0, 3.0], ["1", "2", "3"], [" 1", "2 ", "3"]])
def test_numbers_and_texts_are_the_same_ids(ids, tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"question_id": i, "correct": 1}) + "\n" for i in ids)
    )
    (tmp_path / "b.csv").write_text("question_id,correct\n1,0\n2,1\n3,1\n")
    frames = {name: read_graded(tmp_path / name) for name in ("a.jsonl", "b.csv")}
    assert compare_files(frames)["worse"].tolist() == [1]


def test_what_only_the_base_has_is_noted_too():
    frames = {"a": BASE, "b": BETTER.iloc[10:]}
    assert "note: 10 questions of a are not in b" in sentences(frames, compare_files(frames))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("verdicts", [[None, None], [None, True]])
def test_files_without_a_pair_of_verdicts_are_said_in_a_sentence(verdicts):
    frames = {"a": graded([True, None]), "b": graded(verdicts), "c": graded([True, True])}
    table = compare_files(frames)
    assert table["n"].tolist() == [0, 1]
    assert table["holm"].isna().tolist() == [True, False]
    assert table["holm"][1] == table["p"][1]
    said = sentences(frames, table)
    assert "b less a: no question has a verdict in both" in said
    assert ("b: no answer has a verdict, 2 without a verdict" in said) is (verdicts[1] is None)


def test_nothing_that_is_read_is_overwritten(tmp_path):
    for name in ("a.csv", "b.csv"):
        BASE.to_csv(tmp_path / name, index=False)
    before = (tmp_path / "a.csv").read_bytes()
    (tmp_path / "folder.csv").mkdir()
    for out, said in (
        ("a.csv", "would overwrite what is read"),
        ("folder.csv", "is a folder"),
        ("b.csv/x.csv", "cannot be written in"),
        ("x.txt", "unknown extension"),
    ):
        files = [tmp_path / name for name in ("a.csv", "b.csv", out)]
        files.insert(2, "--out")
        command = [sys.executable, "-m", "lib.compare", *files]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
        assert not done.stdout
    assert (tmp_path / "a.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.csv", "folder.csv"]


def test_runs_whose_ids_moved_pair_by_the_questions(tmp_path):
    """A row more at the top of a file without ids: every id names the question before it."""
    names = ["Lyon", "Porto", "Turin", "Cadiz"]
    verdicts = dict(zip(names, [True, False, True, False], strict=True))
    for run, asked in (("a", names), ("b", ["Ghent", *names])):
        ids = [f"my-{i:06d}" for i in range(len(asked))]
        (tmp_path / run / "02_dedup").mkdir(parents=True)
        (tmp_path / run / "03_baselines").mkdir()
        about = pd.DataFrame({"question_id": ids, "question": [f"Where is {n}?" for n in asked]})
        about.to_parquet(tmp_path / run / "02_dedup" / "questions.parquet")
        correct = pd.array([verdicts.get(n, True) for n in asked], "boolean")
        grades = pd.DataFrame({"question_id": ids, "correct": correct})
        grades.to_parquet(tmp_path / run / "03_baselines" / "grades_greedy_base_test.parquet")
    table, noted = compare_runs(tmp_path / "a", tmp_path / "b")
    assert table[["value", "n", "better", "worse"]].values.tolist() == [[0, 4, 0, 0]]
    assert "paired by `question`: id 'my-000000' is" in noted[0]
