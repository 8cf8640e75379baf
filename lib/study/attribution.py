"""Which training questions bring the gain: subsets by accessibility, shares of the gain, first hits
in training.
"""

import numpy as np
import pandas as pd

from lib.metrics import bootstrap, gain, holm, pair, paired_permutation, ratio, wilson
from lib.study.redistribution import expected_again


def make_subsets(
    access: pd.DataFrame, random_subsets: int, leave_out: bool, seed: int
) -> pd.DataFrame:
    """The training subsets: frame of subset, question_id.

    access: an accessibility frame of the training questions. Every stratum is cut, by lot, to the
    size of the smallest one that is not empty, so that `random_subsets` draws of that size from all
    questions (random, random_2, ...) are a control for each of them. With `leave_out` also
    `not_<stratum>`: as many questions from all the others.
    """
    rng = np.random.default_rng(seed)
    by_stratum = {
        name: rows["question_id"].to_numpy()
        for name, rows in access.groupby("stratum", observed=True)
    }
    size = min(map(len, by_stratum.values()))
    pools = dict(by_stratum)
    if leave_out:
        everything = access["question_id"]
        others = {
            f"not_{name}": everything[~everything.isin(ids)].to_numpy()
            for name, ids in by_stratum.items()
        }
        pools |= {name: ids for name, ids in others.items() if len(ids) >= size}
    names = ["random", *(f"random_{i}" for i in range(2, random_subsets + 1))]
    pools |= dict.fromkeys(names, access["question_id"].to_numpy())
    chosen = {name: np.sort(rng.choice(ids, size, replace=False)) for name, ids in pools.items()}
    return pd.DataFrame(
        [(name, q) for name, ids in chosen.items() for q in ids], columns=["subset", "question_id"]
    )


def gain_shares(
    base: pd.DataFrame, full: pd.DataFrame, subsets: dict[str, pd.DataFrame], n_boot=2000, seed=0
):
    """What each subset brings alone, as a share of the gain with all data at the same step.

    base, full, subsets: grades with one answer a question. Frame of subset, gain, gain_low,
    gain_high, value, low, high (the share), n, p (McNemar against base), holm. Shares need not add
    up to 1; where the full gain is not clearly positive, a share has no interval.
    """
    rows = []
    for name, grades in subsets.items():
        own = gain(base, grades, n_boot, seed)
        both = pair(base, grades).merge(pair(base, full), on="question_id", suffixes=("", "_full"))
        lift = [
            both[c].astype(float) - both["before"].astype(float) for c in ("after", "after_full")
        ]
        share = ratio(*lift, n_boot=n_boot, seed=seed)
        rows.append(
            {
                "subset": name,
                "gain": own["value"],
                "gain_low": own["low"],
                "gain_high": own["high"],
                **share,
                "p": own["p"],
            }
        )
    return pd.DataFrame(rows).assign(holm=lambda frame: holm(frame["p"]))


def against(
    reference: pd.DataFrame, subsets: dict[str, pd.DataFrame], n_boot: int = 2000, seed: int = 0
):
    """Accuracy of each subset's policy minus the reference's, on the same questions, with Holm over
    subsets.

    Frame of subset, value, low, high, n, p (paired permutation), holm.
    """
    rows = []
    for name, grades in subsets.items():
        both = pair(reference, grades).astype({"before": float, "after": float})
        change = both["after"] - both["before"]
        low, high = bootstrap(change, n_boot=n_boot, seed=seed)
        p = paired_permutation(both["before"], both["after"], seed)
        rows.append(
            {
                "subset": name,
                "value": change.mean(),
                "low": low,
                "high": high,
                "n": len(both),
                "p": p,
            }
        )
    return pd.DataFrame(rows).assign(holm=lambda frame: holm(frame["p"]))


def trace(rollouts: pd.DataFrame, access: pd.DataFrame) -> pd.DataFrame:
    """The course of every training question: question_id, stratum, draws, hits, first_hit (step, or
    nan).

    rollouts: step, question_id, hits, n (lib.training.apart.read_rollouts); access: pre-RL
    accessibility.
    """
    totals = rollouts.groupby("question_id").agg(draws=("n", "sum"), hits=("hits", "sum"))
    first = rollouts[rollouts["hits"] > 0].groupby("question_id")["step"].min().rename("first_hit")
    frame = access[["question_id", "stratum"]].merge(totals.join(first), on="question_id")
    return frame.astype({"first_hit": float})


def first_hits(rollouts: pd.DataFrame, access: pd.DataFrame, stratum: str = "zero") -> pd.DataFrame:
    """How many questions of `stratum` had a correct rollout by each step: step, value, low, high,
    n, expected.

    The share (Wilson) is of questions asked by that step. `expected` is the share that a policy
    which never learns would reach by then, by a uniform prior on each question's accessibility and
    its pre-RL samples.
    """
    inside = access[access["stratum"] == stratum].set_index("question_id")
    rows = rollouts[rollouts["question_id"].isin(inside.index)].sort_values("step")
    found = []
    for step in sorted(rows["step"].unique()):
        asked = (
            rows[rows["step"] <= step]
            .groupby("question_id")
            .agg(draws=("n", "sum"), hits=("hits", "sum"))
        )
        before = inside.loc[asked.index]
        hit = int((asked["hits"] > 0).sum())
        luck = expected_again(before["correct"], before["n"], asked["draws"])[1]
        low, high = wilson(hit, len(asked))
        found.append((step, hit / len(asked), low, high, len(asked), float(np.mean(luck))))
    return pd.DataFrame(found, columns=["step", "value", "low", "high", "n", "expected"])
