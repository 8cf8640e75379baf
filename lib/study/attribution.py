"""Which training questions bring the gain: subsets, shares of the gain, first hits in training."""

import numpy as np
import pandas as pd

from lib.metrics import bootstrap, gain, holm, pair, paired_permutation, ratio, wilson
from lib.study.redistribution import expected_again


def make_subsets(
    access: pd.DataFrame, random_subsets: int, leave_out: bool, seed: int
) -> pd.DataFrame:
    """The training subsets: frame of subset, question_id.

    access: an accessibility frame of the training questions. Every stratum is cut at random to the
    size of the smallest one that is not empty. So `random_subsets` draws of that size from all
    questions (random, random_2, ...) are a control for each of them. With `leave_out` there is also
    `not_<stratum>`: as many questions from all the others.
    """
    rng = np.random.default_rng(seed)
    by_stratum = {
        name: rows["question_id"].to_numpy()
        for name, rows in access.groupby("stratum", observed=True)
    }
    size = min(map(len, by_stratum.values()))
    everything = access["question_id"]
    pools = dict(by_stratum)

    if leave_out:
        others = {
            f"not_{name}": everything[~everything.isin(ids)].to_numpy()
            for name, ids in by_stratum.items()
        }
        pools |= {name: ids for name, ids in others.items() if len(ids) >= size}

    names = ["random", *(f"random_{i}" for i in range(2, random_subsets + 1))]
    pools |= dict.fromkeys(names, everything.to_numpy())

    subsets = {name: np.sort(rng.choice(ids, size, replace=False)) for name, ids in pools.items()}
    rows = [(name, question_id) for name, ids in subsets.items() for question_id in ids]
    return pd.DataFrame(rows, columns=["subset", "question_id"])


def gain_shares(
    base: pd.DataFrame, full: pd.DataFrame, subsets: dict[str, pd.DataFrame], n_boot=2000, seed=0
):
    """What each subset brings alone, as a share of the gain with all data at the same step.

    base, full, subsets: grades with one answer per question. Frame of subset, gain, gain_low,
    gain_high, value, low, high (the share), n, p (McNemar against base), holm. Shares need not add
    up to 1. Where the full gain is not clearly positive, a share has no interval.
    """
    rows = []
    for name, grades in subsets.items():
        both = pair(base, grades).merge(pair(base, full), on="question_id", suffixes=("", "_full"))
        before = both["before"].astype(float)
        lift = both["after"].astype(float) - before
        full_lift = both["after_full"].astype(float) - before
        share = ratio(lift, full_lift, n_boot=n_boot, seed=seed)

        own = gain(base, grades, n_boot, seed)
        row = {"subset": name, "gain": own["value"]}
        row |= {"gain_low": own["low"], "gain_high": own["high"]}
        rows.append(row | share | {"p": own["p"]})
    return pd.DataFrame(rows).assign(holm=lambda frame: holm(frame["p"]))


def against(
    reference: pd.DataFrame, subsets: dict[str, pd.DataFrame], n_boot: int = 2000, seed: int = 0
):
    """Accuracy of each subset's policy minus the reference's, on the same questions.

    Frame of subset, value, low, high, n, p (paired permutation), holm (over the subsets).
    """
    rows = []
    for name, grades in subsets.items():
        both = pair(reference, grades).astype({"before": float, "after": float})
        change = both["after"] - both["before"]
        low, high = bootstrap(change, n_boot=n_boot, seed=seed)
        p = paired_permutation(both["before"], both["after"], seed)
        rows.append((name, change.mean(), low, high, len(both), p))
    frame = pd.DataFrame(rows, columns=["subset", "value", "low", "high", "n", "p"])
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


def first_hits(rollouts: pd.DataFrame, access: pd.DataFrame, stratum: str = "zero") -> pd.DataFrame:
    """The share of the questions of `stratum` that had a right rollout by each step.

    Frame of step, value, low, high (Wilson), n (questions asked by that step), expected. `expected`
    is the share that a policy which never learns would reach by then, by a uniform prior on each
    question's accessibility and its pre-RL samples.
    """
    inside = access[access["stratum"] == stratum].set_index("question_id")
    within = rollouts[rollouts["question_id"].isin(inside.index)]
    rows = []
    for step in sorted(within["step"].unique()):
        groups = within[within["step"] <= step].groupby("question_id")
        totals = groups.agg(draws=("n", "sum"), hits=("hits", "sum"))
        n = len(totals)
        hit = int((totals["hits"] > 0).sum())
        low, high = wilson(hit, n)

        before = inside.loc[totals.index]
        _, luck = expected_again(before["correct"], before["n"], totals["draws"])
        rows.append((step, hit / n, low, high, n, float(np.mean(luck))))
    return pd.DataFrame(rows, columns=["step", "value", "low", "high", "n", "expected"])
