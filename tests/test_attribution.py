"""Subsets of one size, shares of the gain, and first hits, checked by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from lib.study.attribution import (
    against,
    chance_of_training,
    first_hits,
    gain_shares,
    make_subsets,
    nothing_learnt,
    pooled,
    signals,
    trace,
    without_interval,
)
from lib.study.redistribution import accessibility


def access(sizes: dict) -> pd.DataFrame:
    """Accessibility of questions by stratum: share 0, 0.1 and 0.5 of ten samples."""
    hits = {"zero": 0, "low": 1, "middle": 5}
    rows = [
        (f"{name}{i}", j, j < hits[name])
        for name, size in sizes.items()
        for i in range(size)
        for j in range(10)
    ]
    frame = pd.DataFrame(rows, columns=["question_id", "sample", "correct"])
    frame = frame.assign(policy="base", judge="alias")
    return accessibility(frame.astype({"correct": "boolean"}))


def grades(correct: list, ids=None) -> pd.DataFrame:
    ids = ids or [f"q{i}" for i in range(len(correct))]
    return pd.DataFrame({"question_id": ids, "correct": correct})


def test_subsets_have_one_size_and_their_own_questions():
    frame = access({"zero": 30, "low": 12, "middle": 20})
    subsets = make_subsets(frame, random_subsets=2, seed=0)
    strata = ["zero", "low", "middle"]
    whole = {"zero": 30, "low": 12, "middle": 20, "not_zero": 32, "not_low": 50, "not_middle": 42}
    matched = dict.fromkeys(["zero_matched", "middle_matched", "random", "random_2"], 12)
    assert subsets.groupby("subset").size().to_dict() == whole | matched
    by_name = subsets.groupby("subset")["question_id"].agg(set)
    assert not subsets.duplicated().any()
    for stratum in strata:
        assert all(q.startswith(stratum) for q in by_name[stratum])
        assert not any(q.startswith(stratum) for q in by_name[f"not_{stratum}"])
    assert by_name["random"] != by_name["random_2"]
    pd.testing.assert_frame_equal(subsets, make_subsets(frame, 2, 0))
    assert not subsets.equals(make_subsets(frame, 2, 1))


def test_shares_of_the_gain_by_hand():
    base, full = grades([0] * 8 + [1, 1]), grades([1] * 4 + [0] * 4 + [1, 1])
    half, none = grades([1, 1] + [0] * 6 + [1, 1]), base
    shares = gain_shares(base, full, {"half": half, "none": none}, n_boot=500).set_index("subset")
    assert shares.loc["half", ["gain", "value"]].tolist() == [0.2, 0.5]
    assert shares.loc["none", ["gain", "value", "p"]].tolist() == [0.0, 0.0, 1.0]
    assert 0 <= shares.loc["half", "low"] < 0.5 < shares.loc["half", "high"] <= 1
    assert (shares["holm"] >= shares["p"]).all()


def test_a_share_of_no_gain_has_no_interval():
    base = grades([0, 1] * 10)
    row = gain_shares(base, base, {"same": base}, n_boot=200).iloc[0]
    assert not np.isfinite([row["low"], row["high"]]).all()


def test_difference_against_a_reference_is_paired():
    random, zero = grades([0] * 20 + [1] * 20), grades([1] * 40)
    row = against({"zero": (zero, random)}, n_boot=500).iloc[0]
    assert row["value"] == 0.5
    assert row["low"] > 0
    assert row["p"] < 0.01
    assert row["n"] == 40
    same = against({"same": (random, random)}, n_boot=500).iloc[0]
    assert same["value"] == 0 and same["low"] == -same["high"] < 0  # others might differ
    assert same["p"] == 1


def test_a_difference_knows_what_chance_does_to_a_training():
    repeats = [grades([1] * hits + [0] * (20 - hits)) for hits in (4, 6, 8)]  # .2, .3, .4
    chance = chance_of_training(repeats)
    assert chance == (pytest.approx(0.01), 2)
    assert chance_of_training(repeats[:1]) is None
    unjudged = [frame.assign(correct=frame["correct"].astype("boolean")) for frame in repeats]
    unjudged[0].loc[19, "correct"] = pd.NA  # then nobody is asked that question
    assert chance_of_training(unjudged)[0] == pytest.approx(0.01 * (20 / 19) ** 2)

    zero = grades([1] * 10 + [0] * 10)
    pairs = {"zero": (zero, pooled(repeats)), "left out": (zero, repeats[1])}
    frame = against(pairs, chance=chance, trainings={"zero": (1, 3)}).set_index("name")
    mean = pooled(repeats).set_index("question_id")["correct"]
    change = zero.set_index("question_id")["correct"] - mean
    total = change.var() / 20 + 0.01 * (1 + 1 / 3)
    assert frame.loc["zero", "value"] == pytest.approx(0.2)
    df = total**2 / ((change.var() / 20) ** 2 / 19 + (0.01 * 4 / 3) ** 2 / 2)
    half = t.ppf(0.975, df) * np.sqrt(total)
    assert frame.loc["zero", "high"] == pytest.approx(0.2 + half)
    assert frame.loc["left out", "high"] > frame.loc["zero", "high"]
    assert (frame["p"] > 0.05).all()
    untrained = against(pairs, chance=chance, trainings={"zero": (2, np.inf)}).set_index("name")
    total = change.var() / 20 + 0.01 / 2
    df = total**2 / ((change.var() / 20) ** 2 / 19 + 0.005**2 / 2)
    half = t.ppf(0.975, df) * np.sqrt(total)
    assert untrained.loc["zero", "high"] == pytest.approx(0.2 + half)
    same = against({"same": (zero, zero)}, chance=(0.0, 2)).iloc[0]  # no chance was seen
    assert same["low"] < 0 < same["high"] and same["p"] == 1
    alone = against(pairs).set_index("name")  # of questions alone
    assert alone.loc["zero", "low"] > 0


ROLLOUTS = pd.DataFrame({
    "step": [1, 1, 2, 2, 3], "question_id": ["zero0", "low0", "zero0", "zero1", "zero1"],
    "hits": [0, 2, 1, 0, 0], "n": [5] * 5, "live": [False, True, True, False, False],
})  # fmt: skip


def test_trace_counts_draws_hits_and_the_first_hit():
    traced = trace(ROLLOUTS, access({"zero": 2, "low": 1, "middle": 1})).set_index("question_id")
    assert traced.loc["zero0", ["draws", "hits", "first_hit"]].tolist() == [10, 1, 2]
    assert traced.loc["low0", ["draws", "hits", "first_hit"]].tolist() == [5, 2, 1]
    assert np.isnan(traced.loc["zero1", "first_hit"])
    assert "middle0" not in traced.index


def test_pooled_references_count_each_policy_alike():
    one, two = grades([0, 1, 1]), grades([0, 0, 1])
    assert pooled([one, two])["correct"].tolist() == [0, 0.5, 1]
    row = against({"x": (grades([1, 1, 1]), pooled([one, two]))}, n_boot=100).iloc[0]
    assert row["value"] == 0.5


def test_first_hits_against_luck():
    # zero0 is right at its seventh fresh sample, zero1 never
    again = [("zero0", 10 + i, i == 6) for i in range(10)]
    again += [("zero1", 10 + i, False) for i in range(10)]
    again = pd.DataFrame(again, columns=["question_id", "sample", "correct"])
    frame = first_hits(ROLLOUTS, access({"zero": 2, "low": 1, "middle": 1}), again)
    by_who = {who: rows.set_index("step") for who, rows in frame.groupby("who")}
    hits = by_who["trained"]
    assert hits["value"].tolist() == [0, 0.5, 0.5]
    assert hits["n"].tolist() == [1, 2, 2]
    # five draws of zero0 by step 1 do not reach the seventh, ten by step 2 do
    assert by_who["resampled"]["value"].tolist() == [0, 0.5, 0.5]
    # after 0 of 10 samples a uniform prior is Beta(1, 11): 5 more draws all miss with 11 / 16,
    # 10 more with 11 / 21
    assert by_who["prior"]["value"].tolist() == pytest.approx(
        [5 / 16, (10 / 21 + 5 / 16) / 2, 10 / 21]
    )
    assert ((hits["low"] <= hits["value"]) & (hits["value"] <= hits["high"])).all()


def test_a_training_without_a_live_group_has_no_interval():
    some = pd.DataFrame({"step": [1, 1], "question_id": ["a", "b"], "hits": [0, 2], "n": [5, 5]})
    none, some = some.assign(live=False), some.assign(live=[False, True])
    parts = {"zero": none.assign(hits=0), "all": none.assign(hits=5), "x": some}
    table = signals(parts | {"no rollouts": pd.DataFrame()})
    assert table["live"].tolist() == [0, 0, 1]
    zero, every = nothing_learnt(table)
    assert zero.startswith("zero: no group carried signal (0 of 10 rollouts were right)")
    assert every.startswith("all: no group carried signal (10 of 10")
    assert table[["groups", "draws", "hits"]].iloc[2].tolist() == [2, 10, 2]
    shares = pd.DataFrame({"subset": ["zero", "x"], "gain": [0.0, 0.1], "value": [0.0, 0.5]})
    shares = shares.assign(low=0.0, high=0.6, gain_low=0.0, gain_high=0.2)
    kept = without_interval(shares, ["zero"]).set_index("subset")
    assert kept.loc["zero", ["low", "high", "gain_low", "gain_high"]].isna().all()
    assert kept.loc["x", "gain_high"] == 0.2
    assert kept.loc["zero", "value"] == 0
