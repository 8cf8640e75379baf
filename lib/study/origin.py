"""Was it there before? Made-up facts by how often they were seen, real ones by what is encoded."""

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from lib.engine.models import Policy
from lib.engine.sampling import score
from lib.metrics import (
    error_of_mean,
    gain,
    holm,
    pair,
    paired_interval,
    share_interval,
    student,
    wilson,
)
from lib.study.sharpening import believed

FACT_MEASURES = ("greedy", "samples", "pass_at_n", "contrast")


def fact_table(questions: pd.DataFrame, before: dict, after: dict) -> pd.DataFrame:
    """One row for each made-up fact: question_id, exposures, each of FACT_MEASURES at both times.

    before, after: `greedy` (grades of one answer each), `samples` (grades of n each) and `gold`
    (lib.engine.sampling.score of the sentences of lib.questions.invented.in_sentence). The measures
    are: whether the greedy answer is right, the share of right samples, whether one of them was
    right, and the log-probability of the right city in the sentence less the mean of the other
    cities' there (nats). Facts without a verdict at both times are left out.
    """
    table = questions.set_index("question_id")[["exposures"]]
    for when, found in (("before", before), ("after", after)):
        one = found["greedy"].dropna(subset="correct").set_index("question_id")["correct"]
        judged = found["samples"].dropna(subset="correct")
        counts = judged.groupby("question_id")["correct"].agg(["sum", "size"]).astype(float)
        table[f"greedy_{when}"] = one.astype(float)
        table[f"samples_{when}"] = counts["sum"] / counts["size"]
        table[f"pass_at_n_{when}"] = (counts["sum"] > 0).astype(float)
        table[f"contrast_{when}"] = (
            found["gold"]
            .groupby("question_id")["logprob"]
            .agg(lambda values: values.iloc[0] - values.iloc[1:].mean())
        )
    return table.dropna().reset_index()


def over_seeds(values: pd.Series, seeds: pd.Series, share: bool = False) -> dict:
    """The mean of facts of several seeds: value, low, high, p (of a mean of 0), n (facts), seeds.

    The variances over facts and over seeds add up (lib.metrics.student); with one seed the interval
    is over facts alone and says nothing about other seeds. share: each value lies in 0 to 1, and so
    does the interval. Where no fact differs from 0, or all shares are 1, it is Wilson's over facts.
    """
    groups = [part.to_numpy(float) for _, part in values.groupby(seeds, sort=False)]
    means, n = np.array([facts.mean() for facts in groups]), len(values)
    counts = {"value": float(means.mean()), "n": n, "seeds": len(groups)}
    if not values.any() or (share and (values == 1).all()):
        low, high = (share_interval if share else paired_interval)(values)
        return counts | {"low": low, "high": high, "p": np.nan if values.any() else 1.0}
    found = student(means.mean(), [_within(groups), *_between(means)])
    if share:
        found |= {"low": max(found["low"], 0.0), "high": min(found["high"], 1.0)}
    return counts | found


def _within(groups: list[np.ndarray]) -> tuple[float, float]:
    """What the facts give to the variance of the seeds' mean, and its degrees of freedom."""
    variances, freedoms = zip(*map(error_of_mean, groups), strict=True)
    return sum(variances) / len(groups) ** 2, sum(freedoms)


def _between(means: np.ndarray) -> list[tuple[float, float]]:
    """The same of the seeds; nothing where there is one."""
    return [error_of_mean(means)] if len(means) > 1 else []


def by_exposure(facts: pd.DataFrame) -> pd.DataFrame:
    """Every measure before, after and its change, by exposures.

    facts: rows of `fact_table` with a column `seed`. Frame of exposures, measure, when (before,
    after, change), value, low, high, p, n, seeds, holm (over all changes, else NaN).
    """
    rows = []
    for exposures, part in facts.groupby("exposures"):
        for measure in FACT_MEASURES:
            sides = {when: part[f"{measure}_{when}"] for when in ("before", "after")}
            sides["change"] = sides["after"] - sides["before"]
            for when, values in sides.items():
                row = {"exposures": exposures, "measure": measure, "when": when}
                share = when != "change" and measure != "contrast"
                rows.append(row | over_seeds(values, part["seed"], share))
    frame = pd.DataFrame(rows)
    changes = frame["when"] == "change"
    frame.loc[changes, "holm"] = holm(frame.loc[changes, "p"])
    return frame


def exposure_trend(facts: pd.DataFrame, measure: str, n_boot: int = 2000, seed: int = 0) -> dict:
    """Spearman's correlation of exposures and the change of a measure: value, low, high, n.

    measure: one of FACT_MEASURES. The mean over seeds; the variance over seeds adds to that over
    facts, which is a bootstrap's within each seed. NaN where a side of a seed never changes.
    """
    change = facts[f"{measure}_after"] - facts[f"{measure}_before"]
    both = pd.DataFrame({"shown": facts["exposures"], "change": change})
    tables = [part.to_numpy(float) for _, part in both.groupby(facts["seed"])]
    found, rng = np.array([_correlation(table) for table in tables]), np.random.default_rng(seed)
    counts = {"n": len(facts)}
    if np.isnan(found).any():
        return {"value": np.nan, "low": np.nan, "high": np.nan} | counts
    redrawn = [
        [_correlation(table[rng.integers(0, len(table), len(table))]) for table in tables]
        for _ in range(n_boot)
    ]  # (n_boot, seeds)
    within = np.nanvar(redrawn, axis=0).sum() / len(found) ** 2
    row = student(found.mean(), [(within, len(facts) - 2 * len(found)), *_between(found)])
    low, high = np.clip([row["low"], row["high"]], -1, 1)
    return {"value": float(found.mean()), "low": float(low), "high": float(high)} | counts


def _correlation(table: np.ndarray) -> float:
    """Spearman's correlation of two columns; NaN where one never changes."""
    if (table == table[0]).all(0).any():
        return np.nan
    return float(spearmanr(*table.T).statistic)


def choices(asked: pd.DataFrame, questions: pd.DataFrame, seed: int, others: int = 3):
    """The questions with `answers` = the gold answer and up to `others` of the relation's others.

    The gold answer comes first. Questions whose relation has no other answer are left out.
    """
    rng, rows = np.random.default_rng([seed, 31]), []
    pools = {name: part["answers"] for name, part in questions.groupby("relation")}
    for row in asked.dropna(subset="relation").itertuples():
        own = set(row.answers)
        pool = sorted({answers[0] for answers in pools[row.relation] if not own & set(answers)})
        if pool:
            drawn = [pool[i] for i in rng.permutation(len(pool))[:others]]
            rows.append((row.question_id, row.question, [row.answers[0], *drawn]))
    return pd.DataFrame(rows, columns=["question_id", "question", "answers"])


def encoded(policy: Policy, cases: pd.DataFrame) -> pd.DataFrame:
    """What the policy knows when it need not recall: question_id, choice, p_true (booleans).

    cases: from `choices`. choice: of all answers the gold one is likeliest as the policy's own
    answer; p_true: it is the one that the policy finds most probably true. By chance a question
    with three others is right one time in four.
    """
    said = score(policy, cases)
    asked = cases.explode("answers").rename(columns={"answers": "text"})
    beliefs = believed(policy, asked[["question_id", "question", "text"]])
    gold = cases.set_index("question_id")["answers"].str[0]
    best = said.loc[said.groupby("question_id")["logprob"].idxmax()].set_index("question_id")
    believes = beliefs.loc[beliefs.groupby("question_id")["p_true"].idxmax()]
    believes = believes.set_index("question_id")
    table = pd.DataFrame({"choice": best["answer"] == gold, "p_true": believes["text"] == gold})
    return table.rename_axis("question_id").reset_index()


def repair_by(test: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame, n_boot=2000, seed=0):
    """How many of the wrong answers are repaired, by what was encoded: a row for each test.

    test: from `encoded`. Frame of by (choice, p_true), encoded (yes, no), value, low, high, n (the
    wrong answers before), gain (of all questions), gain_low, gain_high.
    """
    both, rows = pair(before, after), []
    for by in ("choice", "p_true"):
        for known in (True, False):
            ids = test.loc[test[by] == known, "question_id"]
            part = both[both["question_id"].isin(ids)]
            wrong = part[~part["before"].astype(bool)]
            if wrong.empty:
                continue
            hits = int(wrong["after"].astype(bool).sum())
            low, high = wilson(hits, len(wrong))
            sides = (frame[frame["question_id"].isin(ids)] for frame in (before, after))
            lift = gain(*sides, n_boot, seed)
            row = {"by": by, "encoded": "yes" if known else "no", "value": hits / len(wrong)}
            row |= {"low": low, "high": high, "n": len(wrong), "gain": lift["value"]}
            rows.append(row | {"gain_low": lift["low"], "gain_high": lift["high"]})
    return pd.DataFrame(rows)
