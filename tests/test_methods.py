"""The table of all methods, power and gains by relation, by hand and by simulation."""

import numpy as np
import pandas as pd

from lib.metrics import mcnemar
from lib.study.methods import by_relation, compare_methods, smallest_visible_gain


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
