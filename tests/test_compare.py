"""Two graded files, the same questions: differences by hand, tests, refusals in one line."""

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
    table = compare_runs(tmp_path / "a", tmp_path / "b").set_index("file")
    alone = compare_files({"a": BASE, "b": BETTER}).iloc[0]
    assert table.loc["base", "value"] == 0
    assert table.loc["grpo", ["value", "n", "p"]].tolist() == alone[["value", "n", "p"]].tolist()
    assert table.loc["grpo", "holm"] == min(1, 2 * alone["p"])
    said = [difference(row, "the first run's") for row in table.reset_index().itertuples()]
    assert said[0].startswith("base less the first run's: +0.0%")
    with pytest.raises(TableError, match="c: no graded greedy answers"):
        compare_runs(tmp_path / "a", tmp_path / "c")
