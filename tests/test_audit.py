"""The audit on hand-made verdicts, the labelled file, known facts and attacks."""

import json

import numpy as np
import pandas as pd
import pytest

from lib.config import Judge, load_profile
from lib.judge.attacks import ATTACKS
from lib.metrics import cohen_kappa
from lib.study.audit import (
    LABELLED,
    agreement,
    attack_rows,
    both_ways,
    compare,
    confusions,
    judges,
    known_cases,
    labelled,
    verdicts,
)
from lib.text import holds

KINDS = {
    "right",
    "longer",
    "alias",
    "finer",
    "coarser",
    "wrong",
    "several",
    "hedged",
    "abstains",
    "cut",
    "restates",
    "nonsense",
}


def judged(verdicts, labels, judge="alias", source="known"):
    """A judged frame of one judge; None = it failed."""
    rows = [f"r{i}" for i in range(len(labels))]
    return pd.DataFrame(
        {
            "row": rows,
            "source": source,
            "question": rows,
            "answers": [["a"]] * len(rows),
            "prediction": "p",
            "label": labels,
            "kind": "",
            "note": "",
            "judge": judge,
            "correct": pd.array(verdicts, dtype="boolean"),
        }
    )


def test_the_labelled_file_is_whole():
    rows = labelled()
    assert len(rows) >= 200 and rows["row"].is_unique and rows["label"].dtype == bool
    assert rows.groupby("dataset").size().between(50, 75).all() and rows["dataset"].nunique() == 4
    assert set(rows["kind"]) == KINDS
    assert not rows.loc[
        rows["kind"].isin(["abstains", "wrong", "several", "nonsense", "restates"]), "label"
    ].any()
    assert rows.loc[rows["kind"].isin(["right", "longer", "alias", "finer"]), "label"].all()
    assert rows["answers"].map(len).min() >= 1 and rows["prediction"].str.strip().ne("").all()
    assert not rows.duplicated(["question_id", "prediction"]).any()
    assert "CC BY-SA" in (LABELLED.parent / "README.md").read_text()
    assert str(len(rows)) in (LABELLED.parent / "README.md").read_text()
    json.loads(LABELLED.read_text().splitlines()[0])


def test_rates_and_kappa_by_hand():
    # 2 right called right, 1 right called wrong, 1 wrong called right, 4 wrong called wrong, 2
    # failed
    frame = judged(
        [True, True, False, True, False, False, False, False, None, None],
        [True, True, True, False, False, False, False, False, True, False],
    )
    got = agreement(frame, 200).set_index("measure")
    assert got.loc["agreement", "value"] == 6 / 8 and got.loc["agreement", "n"] == 8
    assert (
        got.loc["false_positive", "value"] == 1 / 5 and got.loc["false_negative", "value"] == 1 / 3
    )
    assert got.loc["failed", "value"] == 2 / 10 and got.loc["failed", "n"] == 10
    # said right 3/8, is right 3/8: chance 9/64 + 25/64 = 34/64; (48/64 - 34/64) / (30/64)
    assert got.loc["kappa", "value"] == pytest.approx(14 / 30)
    assert got.loc["kappa", "low"] < 14 / 30 < got.loc["kappa", "high"]
    assert (
        np.isnan(cohen_kappa([[3, 0, 0, 0]]))
        and cohen_kappa([[2, 0, 0, 2]]) == 1
        and cohen_kappa([[1, 1, 1, 1]]) == 0
    )


def test_a_source_of_one_label_has_no_kappa_and_no_rate_of_the_other_kind():
    got = agreement(judged([True, False], [False, False], source="attack"), 50).set_index("measure")
    assert got.loc["false_positive", "value"] == 0.5
    assert np.isnan(got.loc["kappa", "value"]) and np.isnan(got.loc["false_negative", "value"])


def test_mcnemar_between_judges_with_holm():
    labels = [True] * 10
    one = judged([True] * 10, labels, "one")
    two = judged([True] * 2 + [False] * 8, labels, "two")
    three = judged([True] * 9 + [None], labels, "three")
    got = compare(pd.concat([one, two, three])).set_index(["first", "second"])
    assert got.loc[("one", "two"), ["first_only", "second_only", "n"]].tolist() == [8, 0, 10]
    assert got.loc[("one", "two"), "p"] == pytest.approx(2 / 2**8)
    assert got.loc[("one", "two"), "p_holm"] == pytest.approx(3 * 2 / 2**8)
    assert got.loc[("one", "three"), ["first_only", "n", "p"]].tolist() == [0, 9, 1.0]


def test_confusions_list_wrong_rows_and_no_failures():
    frame = judged([True, False, None, True], [False, True, True, True])
    got = confusions(frame.assign(answers=[np.array(["a"])] * 4))  # as parquet gives them
    assert got["answers"].tolist() == [["a"], ["a"]]
    assert got[["row", "mistake"]].values.tolist() == [
        ["r0", "called right"],
        ["r1", "called wrong"],
    ]


def test_known_cases_are_true_and_false():
    questions = pd.DataFrame(
        {
            "question_id": list("abcde"),
            "question": [f"Where is {c}?" for c in "ABCDE"],
            "subject": list("ABCDE"),
            "relation": ["city"] * 3 + ["river", None],
            "answers": [["France", "French Republic"], ["Spain"], ["New France"], ["Po"], ["x"]],
        }
    )
    cases = known_cases(questions, 10, 0).set_index("row")
    # the river has no other answer, the last no relation; France and New France are no wrong
    # answers of each other
    assert set(cases["question"]) == {"Where is A?", "Where is B?", "Where is C?"}
    for row in cases.itertuples():
        assert any(holds(row.prediction, a) for a in row.answers) == row.label, row
    assert holds(cases.loc["a-wrong", "prediction"], "Spain") and holds(
        cases.loc["c-wrong", "prediction"], "Spain"
    )
    assert len(known_cases(questions, 1, 0)) == 2


def test_attack_rows_are_all_wrong_and_as_many_as_asked():
    questions = pd.DataFrame(
        {
            "question": [f"Where is {c}?" for c in "ABCD"],
            "answers": [["France"], ["Spain"], ["Peru"], ["Chad"]],
        }
    )
    cases = attack_rows(questions, 30, 0)
    assert len(cases) == 30 and not cases["label"].any() and cases["row"].is_unique
    assert set(cases["kind"]) <= set(ATTACKS)


def test_rules_are_always_audited_and_a_model_where_one_is_named():
    profile = load_profile("laptop")
    assert list(judges(profile)) == ["exact", "alias"]
    model = Judge(kind="llm", model="m", base_url="http://localhost/v1")
    named = judges(profile.model_copy(update={"judge": model}))
    assert list(named) == ["exact", "alias", "model, naive", "model, guarded"]
    naive, guarded = both_ways(model).values()
    assert (naive.prompt, naive.guards, guarded.prompt, guarded.guards) == (
        "naive",
        False,
        "rules",
        True,
    )


def test_rule_judges_on_the_labelled_rows():
    frame = verdicts(labelled(), judges(load_profile("laptop")))
    got = agreement(frame, 100).set_index(["judge", "measure"])["value"]
    assert got["exact", "false_positive"] == 0 and got["exact", "false_negative"] > 0.5
    assert got["alias", "agreement"] > 0.85 and got["alias", "kappa"] > got["exact", "kappa"]
