"""Strata, repair and damage, the resampling control and k-equivalence, checked by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.study import redistribution as r


def grades(rows: dict, first: int = 0):
    """A grade frame from question -> list of True, False, None."""
    flat = [(q, first + i, c) for q, cs in rows.items() for i, c in enumerate(cs)]
    frame = pd.DataFrame(flat, columns=["question_id", "sample", "correct"])
    return frame.assign(policy="base", judge="alias").astype({"correct": "boolean"})


def simulated(p, n, seed, first=0):
    """Grades of n samples for questions whose probabilities of a right answer are p."""
    hits = np.random.default_rng(seed).random((len(p), n)) < np.asarray(p)[:, None]
    return grades({f"q{i:04d}": list(map(bool, row)) for i, row in enumerate(hits)}, first)


def test_strata_have_their_stated_edges():
    strata = r.stratify([0, 1 / 128, 0.25, 0.2501, 0.75, 0.76, 1])
    assert list(strata) == ["zero", "low", "low", "middle", "middle", "high", "high"]
    assert list(strata.categories) == list(r.STRATA)


@given(st.lists(st.floats(0, 1), min_size=1))
def test_every_share_has_one_stratum(shares):
    assert not r.stratify(shares).isna().any()


def test_strata_with_a_gap_or_overlap_are_refused():
    with pytest.raises(ValueError, match="0.5 0 times"):
        r.stratify([0.5], {"zero": (0, 0), "high": (0.6, 1)})
    with pytest.raises(ValueError, match="2 times"):
        r.stratify([0.5], {"low": (0, 0.6), "high": (0.4, 1)})


def test_accessibility_counts_without_failures():
    # one sample with a verdict says nothing of four
    verdicts = {"a": [False] * 3 + [None], "b": [True] * 4, "c": [False] + [None] * 3}
    frame = r.accessibility(grades(verdicts))
    assert frame["question_id"].tolist() == ["a", "b"]
    assert frame["n"].tolist() == [3, 4]
    assert frame["share"].tolist() == [0, 1]
    assert frame["stratum"].tolist() == ["zero", "high"]


def test_strata_shares_add_up():
    first, again = (r.accessibility(simulated(np.linspace(0, 1, 50), 8, seed)) for seed in (0, 1))
    shares = r.strata_shares(first, control=again)
    assert shares.groupby("when")["value"].sum().tolist() == pytest.approx([1, 1])
    assert shares.groupby("when")["count"].sum().tolist() == [50, 50]
    assert ((shares["low"] <= shares["value"]) & (shares["value"] <= shares["high"])).all()


def test_repair_and_damage_both_ways():
    samples = grades(
        {"a": [False] * 4, "b": [False] * 4, "c": [True] * 4, "d": [True, False, False, False]}
    )
    before = grades({"a": [False], "b": [False], "c": [True], "d": [True]})
    after = grades({"a": [True], "b": [False], "c": [True], "d": [False]})
    table = r.repair_damage(before, after, r.accessibility(samples))
    table = table.set_index(["direction", "stratum"])
    assert table.loc[("repair", "all"), ["count", "n"]].tolist() == [1, 2]
    assert table.loc[("damage", "all"), ["count", "n"]].tolist() == [1, 2]
    assert table.loc[("repair", "zero"), "value"] == 0.5
    assert table.loc[("damage", "zero"), "n"] == 0
    assert table.loc[("damage", "low"), "value"] == 1
    assert table.loc[("damage", "high"), "value"] == 0
    assert np.isnan(table.loc[("damage", "zero"), "value"])


def test_expectation_at_zero_hits_is_the_papers():
    mean, hit = r.expected_again(0, 128, 40)
    assert mean == pytest.approx(1 / 130)
    assert hit == pytest.approx(1 - 129 / 169)


def test_expectation_holds_when_the_prior_does():
    p = np.random.default_rng(0).random(6000)
    first, again = r.accessibility(simulated(p, 8, 1)), simulated(p, 8, 2, first=8)
    table = r.resampling_control(first, n_boot=200, control=again)
    table = table.set_index(["who", "measure", "stratum"])
    for stratum in ("all", *r.STRATA):
        for measure in ("accuracy", "hit"):
            control = table.loc[("control", measure, stratum)]
            expected = table.loc[("expected", measure, stratum)]
            assert control["value"] == pytest.approx(expected["value"], abs=0.05)
            assert np.isnan(expected["low"])


def test_regression_to_the_mean_shows_without_training():
    p = np.full(8000, 0.02)
    first, again = r.accessibility(simulated(p, 32, 1)), simulated(p, 32, 2, first=32)
    table = r.resampling_control(first, n_boot=200, control=again)
    zero = table.set_index(["who", "measure", "stratum"]).loc[("control", "hit", "zero")]
    assert zero["n"] == (first["correct"] == 0).sum()
    assert zero["value"] == pytest.approx(1 - 0.98**32, abs=0.02)
    assert zero["high"] - zero["low"] < 0.04


def test_gain_over_resampling_is_zero_for_the_same_policy_and_not_for_a_better_one():
    p = np.random.default_rng(0).beta(0.4, 0.9, 300)
    first = r.accessibility(simulated(p, 16, 1))
    control, same, better = simulated(p, 16, 2), simulated(p, 16, 3), simulated(np.sqrt(p), 16, 4)

    def gain(after):
        table = r.gain_over_resampling(first, control, after, n_boot=300)
        return table.set_index("stratum").loc["all"]

    none, some = gain(same), gain(better)
    assert none["low"] < 0 < none["high"]
    assert some["low"] > 0.05
    assert some["value"] == pytest.approx((np.sqrt(p) - p).mean(), abs=0.02)
    assert some["n"] == 300


def test_pass_curves_name_their_samples():
    before, after = simulated([0.1] * 20, 8, 0), simulated([0.6] * 20, 8, 1)
    curves = r.pass_curves(n_boot=100, before=before, after=after)
    wide = curves.pivot(index="k", columns="when", values="value")
    assert wide.index.tolist() == [1, 2, 4, 8]
    assert (wide["after"] > wide["before"]).all()


def test_equivalent_k_of_a_known_curve():
    samples = grades({f"q{i}": [j < 4 for j in range(8)] for i in range(40)})
    half = grades({f"q{i}": [i % 2 == 0] for i in range(40)})
    most = grades({f"q{i}": [i % 4 > 0] for i in range(40)})
    assert r.equivalent_k(samples, half, n_boot=100)["value"] == 1
    row = r.equivalent_k(samples, most, n_boot=100)  # pass@2 = 1 - (4*3)/(8*7) = 0.786 >= 0.75
    assert row["value"] == 2
    assert row["low"] <= 2 <= row["high"]
    assert row["n"] == 40

    never = grades({f"q{i}": [False] * 8 for i in range(40)})
    assert r.equivalent_k(never, most, n_boot=100)["value"] == np.inf
