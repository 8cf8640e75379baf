"""Bounds on P(correct) from the enumerated answers, beside the share that sampling found."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from lib.metrics import bootstrap, wilson


def bounds(answers: pd.DataFrame, questions: pd.DataFrame, judge: Callable) -> pd.DataFrame:
    """Lower and upper bound on P(correct) of each question, under the run's judge.

    answers: from lib.engine.likely.likely_answers; judge: from lib.judge.grading.make_reward. Frame
    of question_id, lower, upper, found (the probability of all answers seen), answers (their
    number). A verdict that failed leaves its answer unknown.
    """
    rows = questions.set_index("question_id").loc[answers["question_id"]]
    golds = [list(gold) for gold in rows["answers"]]
    verdicts = judge(rows["question"].tolist(), golds, answers["text"].tolist())
    judged = answers.assign(
        p=np.exp(answers["logprob"]),
        right=[verdict == 1.0 for verdict in verdicts],
        wrong=[verdict == 0.0 for verdict in verdicts],
    )

    # a right answer counts in full, a wrong one against the whole; without any answer, 0 and 1
    table = []
    for question_id in questions["question_id"]:
        part = judged[judged["question_id"] == question_id]
        right = part.loc[part["right"].astype(bool), "p"].sum()
        wrong = part.loc[part["wrong"].astype(bool), "p"].sum()
        upper = min(1.0, max(right, 1 - wrong))
        table.append((question_id, right, upper, part["p"].sum(), len(part)))
    return pd.DataFrame(table, columns=["question_id", "lower", "upper", "found", "answers"])


def bounds_beside_samples(limits: pd.DataFrame, access: pd.DataFrame) -> pd.DataFrame:
    """The bounds beside the sampled share and its Wilson interval: low, high, and `agrees`.

    access: question_id, correct, n, share, from lib.study.redistribution.accessibility. agrees:
    whether the interval and the bounds meet.
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
            low, high = wilson(int(hits.sum()), len(hits))
            rows.append((when, measure, value, low, high, len(hits)))
    return pd.DataFrame(rows, columns=["when", "measure", "value", "low", "high", "n"])
