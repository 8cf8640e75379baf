"""Which training questions bring the gain: subsets, shares of the gain, first hits in training."""

import numpy as np
import pandas as pd

from lib.metrics import (
    beside,
    error_of_mean,
    holm,
    pair,
    paired_interval,
    paired_permutation,
    ratio,
    ratio_of_trainings,
    student,
    wilson,
)
from lib.study.redistribution import expected_again


def make_subsets(access: pd.DataFrame, random_subsets: int, seed: int) -> pd.DataFrame:
    """The training subsets: frame of subset, question_id.

    access: an accessibility frame of the training questions. Each stratum is there whole, as in the
    paper, `<stratum>_matched` cut at random to the size of the smallest one, and left out,
    `not_<stratum>`. The smallest is its own match. `random_subsets` draws of its size from all
    questions (random, random_2, ...) are a control for the matched ones.
    """
    rng = np.random.default_rng(seed)
    strata = {
        name: rows["question_id"].to_numpy()
        for name, rows in access.groupby("stratum", observed=True)
    }
    size = min(map(len, strata.values()))
    everything = access["question_id"]

    subsets = dict(strata)
    for name, ids in strata.items():
        if len(ids) > size:
            subsets[f"{name}_matched"] = rng.choice(ids, size, replace=False)
    if len(strata) > 1:
        for name, ids in strata.items():
            subsets[f"not_{name}"] = everything[~everything.isin(ids)].to_numpy()
    for name in random_names(random_subsets):
        subsets[name] = rng.choice(everything.to_numpy(), size, replace=False)

    rows = [(name, question_id) for name, ids in subsets.items() for question_id in np.sort(ids)]
    return pd.DataFrame(rows, columns=["subset", "question_id"])


def random_names(count: int) -> list[str]:
    """The names of the random subsets."""
    return ["random", *(f"random_{i}" for i in range(2, count + 1))]


def pooled(grades: list[pd.DataFrame]) -> pd.DataFrame:
    """The mean verdict of several policies on each question: question_id, correct (a share)."""
    rows = pd.concat(grades).dropna(subset="correct").astype({"correct": float})
    return rows.groupby("question_id", as_index=False)["correct"].mean()


def gain_shares(
    base: pd.DataFrame,
    full: pd.DataFrame,
    subsets: dict[str, pd.DataFrame],
    n_boot: int = 2000,
    seed: int = 0,
    chance: tuple[float, int] | None = None,
) -> pd.DataFrame:
    """What each subset brings alone, as a share of the gain with all data at the same step.

    base, full, subsets: grades with one answer per question; chance: of a training, as
    `chance_of_training` gives it. Frame of subset, gain, gain_low, gain_high, value, low, high (the
    share), n, p (of the gain, see `against`), holm. Shares need not add up to 1. Where the full
    gain is not clearly positive, a share has no interval.
    """
    pairs = {name: (grades, base) for name, grades in subsets.items()}
    once = dict.fromkeys(subsets, (1, np.inf))
    alone = against(pairs, n_boot, seed, chance, once).set_index("name")
    rows = []
    for name, grades in subsets.items():
        both = pair(base, grades).merge(pair(base, full), on="question_id", suffixes=("", "_full"))
        before = both["before"].astype(float)
        lift = both["after"].astype(float) - before
        full_lift = both["after_full"].astype(float) - before
        if chance and chance[0]:
            share = ratio_of_trainings(lift, full_lift, chance)
        else:
            share = ratio(lift, full_lift, n_boot=n_boot, seed=seed)

        own = alone.loc[name]
        row = {"subset": name, "gain": own["value"]}
        row |= {"gain_low": own["low"], "gain_high": own["high"]}
        rows.append(row | share | {"p": own["p"], "holm": own["holm"]})
    return pd.DataFrame(rows)


def signals(rollouts: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """What each training could learn from: subset, groups, live, draws, hits.

    rollouts: as of lib.training.apart.read_rollouts, by subset; those without groups are left out.
    A training without any live group ends as it began.
    """
    rows = []
    for name, groups in rollouts.items():
        if len(groups):
            counts = groups[["live", "n", "hits"]].sum().astype(int)
            rows.append((name, len(groups), *counts))
    return pd.DataFrame(rows, columns=["subset", "groups", "live", "draws", "hits"])


def nothing_learnt(learnt: pd.DataFrame) -> list[str]:
    """A sentence for each training without a live group. learnt: as of `signals`."""
    return [
        f"{row.subset}: no group carried signal ({row.hits} of {row.draws} rollouts were right), "
        "so nothing was learnt: it is the policy that it began with, and its gain says only that."
        for row in learnt[learnt["live"] == 0].itertuples()
    ]


def without_interval(shares: pd.DataFrame, idle) -> pd.DataFrame:
    """The shares, those of `idle` subsets without intervals.

    A policy that learnt nothing answers as the base policy does: a gain of 0 on any questions, and
    no measurement of what the subset is worth.
    """
    ends = ["low", "high", "gain_low", "gain_high"]
    return shares.assign(**{end: shares[end].mask(shares["subset"].isin(idle)) for end in ends})


def chance_of_training(
    repeats: list[pd.DataFrame], parts: list[pd.Series] | tuple[float] = (1.0,)
) -> tuple[float, int] | None:
    """The variance of one training's accuracy, and its degrees of freedom; None without repeats.

    repeats: grades of trainings that differ by chance alone, such as those on random subsets of one
    size, on the same questions. parts: for a difference that several trainings make, the part of
    each in a question's difference, by question id. What single questions do by chance is in it,
    too, which is on the safe side for several (tests/coverage.py).
    """
    if len(repeats) < 2:
        return None
    answered = beside(repeats)
    spread = sum(answered.mul(part, axis=0).dropna().mean().var() for part in parts)
    return float(spread), len(repeats) - 1


def against(
    pairs: dict[str, tuple[pd.DataFrame, pd.DataFrame]],
    n_boot: int = 2000,
    seed: int = 0,
    chance: tuple[float, int] | dict[str, tuple[float, int]] | None = None,
    trainings: dict[str, tuple[float, float]] | None = None,
):
    """Accuracy of one policy less another's on the same questions, one Holm family.

    pairs: name -> (policy, reference), frames of question_id and correct (a verdict, or a mean of
    several). chance: of a training, as `chance_of_training` gives it; then the intervals and p are
    Student's, of questions and trainings, else of questions alone. trainings: how many the policy
    and the reference of a pair pool, by name, where both are not one; inf for a policy that no
    training has made. Or chance is by name: that of all trainings in a pair. Frame of name, value,
    low, high, n, p (without `chance` by paired permutation), holm.
    """
    rows, pools = [], trainings or {}
    if not isinstance(chance, dict):
        one, df = chance or (0.0, 0)
        many = {name: sum(1 / n for n in pools.get(name, (1, 1))) for name in pairs}
        chance = {name: (one * count, df) for name, count in many.items()}
    for name, sides in pairs.items():
        kept = [frame.dropna(subset="correct")[["question_id", "correct"]] for frame in sides]
        both = kept[0].merge(kept[1], on="question_id", suffixes=("", "_reference"))
        both = both.astype({"correct": float, "correct_reference": float})
        change = both["correct"] - both["correct_reference"]
        if chance[name] and chance[name][0]:
            found = student(change.mean(), [error_of_mean(change), chance[name]])
            low, high, p = found.values()
        else:
            low, high = paired_interval(change, n_boot, seed)
            p = paired_permutation(both["correct_reference"], both["correct"], seed)
        rows.append((name, change.mean(), low, high, len(both), p))
    frame = pd.DataFrame(rows, columns=["name", "value", "low", "high", "n", "p"])
    return frame.assign(holm=holm(frame["p"]))


def trace(rollouts: pd.DataFrame, access: pd.DataFrame) -> pd.DataFrame:
    """The course of every training question: question_id, stratum, draws, hits, first_hit.

    rollouts: step, question_id, hits, n (lib.training.apart.read_rollouts); access: pre-RL
    accessibility. first_hit is a step, or nan.
    """
    totals = rollouts.groupby("question_id").agg(draws=("n", "sum"), hits=("hits", "sum"))
    first = rollouts[rollouts["hits"] > 0].groupby("question_id")["step"].min().rename("first_hit")
    frame = access[["question_id", "stratum"]].merge(totals.join(first), on="question_id")
    return frame.astype({"first_hit": float})


def first_hits(
    rollouts: pd.DataFrame, access: pd.DataFrame, again: pd.DataFrame, stratum: str = "zero"
) -> pd.DataFrame:
    """The share of the questions of `stratum` that had a right answer by each step.

    Frame of step, who, value, low, high (Wilson), n (questions asked by that step). who: `trained`,
    the rollouts; `resampled`, as many answers of the base policy to the same questions (again: a
    grade frame of fresh samples, at least as many as were drawn), which is luck without learning;
    `prior`, the share to expect by a uniform prior on each question's accessibility and its pre-RL
    samples, an upper line on luck: most questions at zero are less accessible than it thinks.
    """
    inside = access[access["stratum"] == stratum].set_index("question_id")
    within = rollouts[rollouts["question_id"].isin(inside.index)]
    right = again[again["correct"].fillna(False).astype(bool)].sort_values("sample")
    order = again.groupby("question_id")["sample"].rank(method="first") - 1  # 0, 1, 2, …
    first = order.loc[right.index].groupby(right["question_id"]).min()  # samples before a hit

    rows = []
    for step in sorted(within["step"].unique()):
        groups = within[within["step"] <= step].groupby("question_id")
        totals = groups.agg(draws=("n", "sum"), hits=("hits", "sum"))
        n = len(totals)
        before = inside.loc[totals.index]
        _, luck = expected_again(before["correct"], before["n"], totals["draws"])
        resampled = first.reindex(totals.index) < totals["draws"]
        for who, hit in (("trained", totals["hits"] > 0), ("resampled", resampled)):
            count = int(hit.sum())
            rows.append((step, who, count / n, *wilson(count, n), n))
        rows.append((step, "prior", float(np.mean(luck)), np.nan, np.nan, n))
    return pd.DataFrame(rows, columns=["step", "who", "value", "low", "high", "n"])
