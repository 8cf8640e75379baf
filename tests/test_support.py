"""Flips, support, paired pass@k and ranks, by hand."""

import numpy as np
import pandas as pd

from lib.study import support

QUESTIONS = pd.DataFrame({"question_id": ["a", "b"], "question": ["where is x", "where is y"]})


def grades(**shares) -> pd.DataFrame:
    rows = [(q, i, c) for q, verdicts in shares.items() for i, c in enumerate(verdicts)]
    frame = pd.DataFrame(rows, columns=["question_id", "sample", "correct"])
    return frame.astype({"correct": "boolean"})


BEFORE = grades(a=[0, 0, 0, 1], b=[1, 1, 1, 1])
AFTER = grades(a=[1, 1, 0, 0], b=[1, 1, 1, 0])


def test_flips_of_samples_are_products_of_shares():
    table = support.sample_flips(BEFORE, n_boot=100, after=AFTER).set_index("direction")
    # wrong before: 3/4 of a, none of b; of these half are right after
    assert table.loc["repair", "value"] == 0.5
    # right before: 1/4 and 1; lost: 1/4 * 1/2 + 1 * 1/4
    assert np.isclose(table.loc["damage", "value"], 0.375 / 1.25)


def test_paired_pass_at_k_is_the_difference_of_the_curves():
    table = support.pass_difference(BEFORE, n_boot=100, after=AFTER).set_index("k")
    assert np.isclose(table.loc[1, "value"], 0.625 - 0.625)
    # a: 1/2 before, 5/6 after; b: 1 both times
    assert np.isclose(table.loc[2, "value"], (5 / 6 - 1 / 2) / 2)


def test_support_gained_and_lost():
    before, after = grades(a=[0, 0], b=[1, 0]), grades(a=[1, 0], b=[0, 0])
    table = support.support_change(before, after=after).set_index("change")
    assert table["value"].to_dict() == {"gained": 1.0, "lost": 1.0}
    assert table["n"].tolist() == [1, 1]


def samples(**texts) -> pd.DataFrame:
    rows = [(q, i, text) for q, given in texts.items() for i, text in enumerate(given)]
    return pd.DataFrame(rows, columns=["question_id", "sample", "text"])


def test_the_rank_of_the_promoted_answer():
    before = samples(a=["Peru", "Chile", "Chile"], b=["Spain", "Italy", "Spain"])
    after = samples(a=["Peru", "Peru", "Chile"], b=["Norway", "Norway", "Spain"])
    table = support.promoted_rank(QUESTIONS, before, after=after).set_index("rank")["value"]
    assert table.to_dict() == {"1": 0.0, "2 to 4": 0.5, "5 and more": 0.0, "unseen": 0.5}


def test_accuracy_by_stratum():
    access = pd.DataFrame(
        {"question_id": ["a", "b"], "stratum": ["zero", "high"], "correct": [0, 4]}
    )
    one = pd.DataFrame({"question_id": ["a", "b"], "correct": [True, False]})
    table = support.by_stratum({"grpo": one}, access).set_index("stratum")
    assert table["value"].to_dict() == {"zero": 1.0, "high": 0.0}
