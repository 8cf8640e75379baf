"""Bounds on P(correct) from the enumerated answers, beside the share that sampling found."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from lib.metrics import bootstrap, wilson


def bounds(answers: pd.DataFrame, questions: pd.DataFrame, judge: Callable) -> pd.DataFrame:
    """Lower and upper bound on P(correct) of each question, under the run's judge.

    answers: from likely_answers; judge: from lib.judge.grading.make_reward. Frame of question_id,
    lower, upper, found (the probability of all answers seen), answers (their number). A verdict
    that failed leaves its answer unknown.
    """
    about = questions.set_index("question_id")
    asked = [about.at[q, "question"] for q in answers["question_id"]]
    golds = [list(about.at[q, "answers"]) for q in answers["question_id"]]
    verdicts = judge(asked, golds, answers["text"].tolist())
    table = answers.assign(
        p=np.exp(answers["logprob"]),
        right=[v == 1.0 for v in verdicts],
        wrong=[v == 0.0 for v in verdicts],
    )
    rows = []
    for question_id in questions["question_id"]:  # without an answer found the bounds are 0 and 1
        part = table[table["question_id"] == question_id]
        right, wrong = (part.loc[part[kind].astype(bool), "p"].sum() for kind in ("right", "wrong"))
        rows.append(
            (question_id, right, min(1.0, max(right, 1 - wrong)), part["p"].sum(), len(part))
        )
    return pd.DataFrame(rows, columns=["question_id", "lower", "upper", "found", "answers"])


def bounds_beside_samples(limits: pd.DataFrame, access: pd.DataFrame) -> pd.DataFrame:
    """The bounds beside the sampled share: its Wilson interval (low, high), and whether the two
    meet (`agrees`).

    access: question_id, correct, n, share, from lib.study.redistribution.accessibility.
    """
    table = limits.merge(access[["question_id", "correct", "n", "share"]], on="question_id")
    table["low"], table["high"] = wilson(table["correct"].to_numpy(), table["n"].to_numpy())
    table["agrees"] = (table["low"] <= table["upper"]) & (table["high"] >= table["lower"])
    return table


def bounds_summary(limits: pd.DataFrame, n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Means over questions: frame of when, measure, value, low, high, n.

    limits: from bounds_beside_samples, with `when`. measure: lower and upper (bootstrap), agrees
    (share of questions whose sampled interval meets the bounds, Wilson), zero_held (of the
    questions without a right sample, the share with a right answer among the enumerated ones,
    Wilson).
    """
    rows = []
    for when, part in limits.groupby("when", sort=False):
        for measure in ("lower", "upper"):
            low, high = bootstrap(part[measure], n_boot=n_boot, seed=seed)
            rows.append((when, measure, part[measure].mean(), low, high, len(part)))
        zero = part[part["correct"] == 0]
        for measure, hits in (("agrees", part["agrees"]), ("zero_held", zero["lower"] > 0)):
            value = hits.mean() if len(hits) else np.nan
            rows.append((when, measure, value, *wilson(int(hits.sum()), len(hits)), len(hits)))
    return pd.DataFrame(rows, columns=["when", "measure", "value", "low", "high", "n"])
