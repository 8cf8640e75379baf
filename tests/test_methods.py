"""The table of all methods, power and gains by relation, by hand and by simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from lib.metrics import mcnemar, smallest_visible_gain
from lib.study.methods import (
    answer_kinds,
    by_relation,
    compare_methods,
    gain_by_kind,
    gain_over_seeds,
    split_gain,
)


def graded(verdicts) -> pd.DataFrame:
    ids = [f"q{i}" for i in range(len(verdicts))]
    return pd.DataFrame({"question_id": ids, "correct": pd.array(verdicts, "boolean")})


GRADES = {
    "base": graded([True, False, False, False]),
    "sft": graded([True, True, False, False]),
    "grpo": graded([False, True, True, True]),
}


def test_each_against_base_and_grpo_against_each():
    table = compare_methods(GRADES)
    assert table[["policy", "versus"]].values.tolist() == [
        ["sft", "base"], ["grpo", "base"], ["grpo", "sft"],
    ]  # fmt: skip
    assert table["value"].tolist() == [0.25, 0.5, 0.25]
    assert (table["holm"] >= table["p"]).all()


def test_a_gain_is_the_sum_of_form_and_recall():
    parts = split_gain(GRADES["base"], GRADES["sft"], GRADES["grpo"]).set_index("part")["value"]
    assert parts["total"] == parts["form"] + parts["recall"] == 0.5


def test_a_question_that_one_policy_has_no_verdict_for_counts_in_no_part():
    form = graded([True, None, False, False])
    parts = split_gain(GRADES["base"], form, GRADES["grpo"]).set_index("part")
    assert parts["n"].tolist() == [3, 3, 3]
    assert parts.loc["total", "value"] == pytest.approx(1 / 3)


def test_a_gain_by_what_the_answers_before_were():
    ids = [f"q{i}" for i in range(6)]
    questions = pd.DataFrame(
        {
            "question_id": ids,
            "question": [f"In which country is the city of C{i}?" for i in range(5)] + ["Who?"],
            "answers": [["Peru"], ["Peru"], ["Chile"], ["Chile"], ["Iran"], ["Ada"]],
            "relation": ["city_country"] * 5 + [None],
        }
    )
    texts = ["Peru.", "Not Italy but Peru?", "In Italy.", "In the south.", "C4 is in Chile.", "Bob"]
    answers = pd.DataFrame({"question_id": ids, "text": texts})
    before, after = (graded([bool(int(v)) for v in verdicts]) for verdicts in ("100000", "011110"))
    kinds = answer_kinds(answers, before, questions)
    assert kinds.tolist() == ["right", "gold", "another", "none", "another", "none"]
    table = gain_by_kind(kinds, before, after).set_index("kind")
    assert table["value"].tolist() == pytest.approx([-1 / 6, 1 / 6, 2 / 6, 1 / 6])
    assert table["n"].tolist() == [1, 1, 2, 2]
    assert table["value"].sum() == pytest.approx(3 / 6)  # the whole gain
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    unjudged = before.assign(correct=before["correct"].where(before["question_id"] != "q2"))
    assert "q2" not in answer_kinds(answers, unjudged, questions).index


def test_seeds_widen_the_interval():
    rng = np.random.default_rng(0)
    base = graded([False] * 400)
    lucky, unlucky = (graded(list(rng.random(400) < share)) for share in (0.6, 0.2))
    one, two = gain_over_seeds([base], [lucky]), gain_over_seeds([base], [lucky, unlucky])
    shares = lucky["correct"].astype(float)  # one seed: Student's interval of the mean
    half = student.ppf(0.975, 399) * shares.sem()
    assert one["low"] == pytest.approx(shares.mean() - half)
    again = gain_over_seeds([base, base], [lucky, lucky])  # seeds that agree add nothing
    assert again["high"] - again["low"] == pytest.approx(2 * half)
    same = gain_over_seeds([base], [base])  # no answer changed of 400: another one could
    assert (same["low"], same["high"]) == pytest.approx((-0.0095, 0.0095), abs=1e-4)
    assert two["value"] == pytest.approx(np.mean(two["each"]))
    assert (one["seeds"], two["seeds"], two["n"]) == (1, 2, 400)
    assert two["high"] - two["low"] > 3 * (one["high"] - one["low"])


def test_gains_by_relation():
    questions = pd.DataFrame(
        {"question_id": ["q0", "q1", "q2", "q3"], "relation": ["a", "a", "b", None]}
    )
    table = by_relation(GRADES, questions).set_index(["policy", "relation"])
    assert table.loc[("grpo", "a"), "value"] == 0
    assert table.loc[("grpo", "b"), "value"] == 1
    assert table.loc[("sft", "none"), "n"] == 1


def test_the_smallest_visible_gain_is_seen_four_times_of_five():
    rng = np.random.default_rng(0)
    n, discordant = 400, 0.3
    change = rng.random(n) < discordant
    before = graded(list(rng.random(n) < 0.5))
    after = before.assign(correct=before["correct"].to_numpy(bool) ^ change)
    visible = smallest_visible_gain(before, after)
    share, gain = visible["discordant"], visible["value"]

    up = (share + gain) / 2
    hits = 0
    for _ in range(1000):
        draw = rng.random(n)
        one, other = draw < up, (draw >= up) & (draw < share)
        hits += mcnemar(other, one) < 0.05
    # the exact test is a little more careful than the normal approximation
    assert 0.74 <= hits / 1000 <= 0.84


def test_no_change_shows_nothing():
    assert np.isnan(smallest_visible_gain(GRADES["base"], GRADES["base"])["value"])
