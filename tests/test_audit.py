"""The audit on hand-made verdicts, the labelled file, known facts and attacks."""

import json

import numpy as np
import pandas as pd
import pytest

from lib.config import Judge, load_profile
from lib.judge.attacks import ATTACKS
from lib.metrics import cohen_kappa
from lib.study.audit import (
    LABELLED_FILE,
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

RIGHT = {"right", "longer", "alias", "finer"}
WRONG = {"wrong", "several", "abstains", "restates", "nonsense"}
KINDS = RIGHT | WRONG | {"coarser", "hedged", "cut"}  # the last three may be either


def judged(verdicts, labels, judge="alias", source="known"):
    """A judged frame of one judge; None = it failed."""
    rows = [f"r{i}" for i in range(len(labels))]
    cases = pd.DataFrame({"row": rows, "question": rows, "label": labels})
    cases = cases.assign(source=source, judge=judge, correct=pd.array(verdicts, dtype="boolean"))
    return cases.assign(answers=[["a"]] * len(rows), prediction="p", kind="", note="")


def test_the_labelled_file_is_whole():
    rows = labelled()
    assert len(rows) >= 200
    assert rows["row"].is_unique
    assert rows["label"].dtype == bool
    assert rows.groupby("dataset").size().between(50, 75).all()
    assert rows["dataset"].nunique() == 4
    assert set(rows["kind"]) == KINDS
    assert not rows.loc[rows["kind"].isin(WRONG), "label"].any()
    assert rows.loc[rows["kind"].isin(RIGHT), "label"].all()
    assert rows["answers"].map(len).min() >= 1
    assert rows["prediction"].str.strip().ne("").all()
    assert not rows.duplicated(["question_id", "prediction"]).any()

    readme = (LABELLED_FILE.parent / "README.md").read_text()
    assert "CC BY-SA" in readme
    assert str(len(rows)) in readme
    json.loads(LABELLED_FILE.read_text().splitlines()[0])


def test_rates_and_kappa_by_hand():
    # 2 right called right, 1 right called wrong, 1 wrong called right, 4 wrong called wrong,
    # 2 failed
    frame = judged(
        [True, True, False, True, False, False, False, False, None, None],
        [True, True, True, False, False, False, False, False, True, False],
    )
    rates = agreement(frame, 200).set_index("measure")
    assert rates.loc["agreement", ["value", "n"]].tolist() == [6 / 8, 8]
    assert rates.loc["false_positive", "value"] == 1 / 5
    assert rates.loc["false_negative", "value"] == 1 / 3
    assert rates.loc["failed", ["value", "n"]].tolist() == [2 / 10, 10]

    # said right 3/8, is right 3/8: chance 9/64 + 25/64 = 34/64; (48/64 - 34/64) / (30/64)
    assert rates.loc["kappa", "value"] == pytest.approx(14 / 30)
    assert rates.loc["kappa", "low"] < 14 / 30 < rates.loc["kappa", "high"]


def test_kappa_of_small_tables():
    assert np.isnan(cohen_kappa([[3, 0, 0, 0]]))
    assert cohen_kappa([[2, 0, 0, 2]]) == 1
    assert cohen_kappa([[1, 1, 1, 1]]) == 0


def test_a_source_of_one_label_has_no_kappa_and_no_rate_of_the_other_kind():
    frame = judged([True, False], [False, False], source="attack")
    value = agreement(frame, 50).set_index("measure")["value"]
    assert value["false_positive"] == 0.5
    assert np.isnan(value["kappa"])
    assert np.isnan(value["false_negative"])


def test_mcnemar_between_judges_with_holm():
    labels = [True] * 10
    one = judged([True] * 10, labels, "one")
    two = judged([True] * 2 + [False] * 8, labels, "two")
    three = judged([True] * 9 + [None], labels, "three")
    tests = compare(pd.concat([one, two, three])).set_index(["first", "second"])
    assert tests.loc[("one", "two"), ["first_only", "second_only", "n"]].tolist() == [8, 0, 10]
    assert tests.loc[("one", "two"), "p"] == pytest.approx(2 / 2**8)
    assert tests.loc[("one", "two"), "p_holm"] == pytest.approx(3 * 2 / 2**8)
    assert tests.loc[("one", "three"), ["first_only", "n", "p"]].tolist() == [0, 9, 1.0]


def test_confusions_list_wrong_rows_and_no_failures():
    frame = judged([True, False, None, True], [False, True, True, True])
    mistakes = confusions(frame.assign(answers=[np.array(["a"])] * 4))  # as parquet gives them
    assert mistakes["answers"].tolist() == [["a"], ["a"]]
    assert mistakes["row"].tolist() == ["r0", "r1"]
    assert mistakes["mistake"].tolist() == ["called right", "called wrong"]


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
    # the river has no other answer, and the last question no relation; France and New France do
    # not serve as wrong answers of each other
    assert set(cases["question"]) == {"Where is A?", "Where is B?", "Where is C?"}
    for row in cases.itertuples():
        assert any(holds(row.prediction, a) for a in row.answers) == row.label, row
    for row in ("a-wrong", "c-wrong"):
        assert holds(cases.loc[row, "prediction"], "Spain")
    assert len(known_cases(questions, 1, 0)) == 2


def test_attack_rows_are_all_wrong_and_as_many_as_asked():
    questions = pd.DataFrame(
        {
            "question": [f"Where is {c}?" for c in "ABCD"],
            "answers": [["France"], ["Spain"], ["Peru"], ["Chad"]],
        }
    )
    cases = attack_rows(questions, 30, 0)
    assert len(cases) == 30
    assert not cases["label"].any()
    assert cases["row"].is_unique
    assert set(cases["kind"]) <= set(ATTACKS)


def test_rules_are_always_audited_and_a_model_where_one_is_named():
    profile = load_profile("laptop")
    assert list(judges(profile)) == ["exact", "alias"]
    model = Judge(kind="llm", model="m", base_url="http://localhost/v1")
    named = judges(profile.model_copy(update={"judge": model}))
    assert list(named) == ["exact", "alias", "model, naive", "model, guarded"]
    naive, guarded = both_ways(model).values()
    assert (naive.prompt, naive.guards) == ("naive", False)
    assert (guarded.prompt, guarded.guards) == ("rules", True)


def test_rule_judges_on_the_labelled_rows():
    frame = verdicts(labelled(), judges(load_profile("laptop")))
    rates = agreement(frame, 100).set_index(["judge", "measure"])["value"]
    assert rates["exact", "false_positive"] == 0
    assert rates["exact", "false_negative"] > 0.5
    assert rates["alias", "agreement"] > 0.85
    assert rates["alias", "kappa"] > rates["exact", "kappa"]
