"""All methods in one table: each against the base policy, and one of them against every other."""

import numpy as np
import pandas as pd
from scipy.stats import norm

from lib.metrics import LEVEL, gain, holm, pair

POWER = 0.8  # the chance to see the smallest gain that is called visible


def compare_methods(
    grades: dict[str, pd.DataFrame],
    base: str = "base",
    main: str = "grpo",
    n_boot: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Paired differences on the same questions, one Holm family.

    Frame of policy, versus, value, low, high, n, p, holm.

    grades: one graded answer for each question, by policy. Rows: every policy against `base`, then
    `main` against every other policy. value is the accuracy of `policy` less that of `versus`, with
    a bootstrap interval over questions; p is McNemar's exact test.
    """
    pairs = [(name, base) for name in grades if name != base]
    pairs += [(main, name) for name in grades if name not in (base, main) and main in grades]
    rows = [
        {"policy": policy, "versus": versus} | gain(grades[versus], grades[policy], n_boot, seed)
        for policy, versus in pairs
    ]
    frame = pd.DataFrame(rows, columns=["policy", "versus", "value", "low", "high", "n", "p"])
    return frame.assign(holm=holm(frame["p"]) if len(frame) else [])


def smallest_visible_gain(before: pd.DataFrame, after: pd.DataFrame, power: float = POWER) -> dict:
    """The smallest gain that this many questions would have shown: value, discordant, n.

    A two-sided McNemar test at 5 % sees a true gain of `value` with the chance `power`, when as
    many questions change sides (`discordant`, a share) as did here. Connor 1987 (Biometrics 43,
    207).
    """
    both = pair(before, after)
    n = len(both)
    discordant = float((both["before"] != both["after"]).mean()) if n else np.nan
    if not n or discordant == 0:
        return {"value": np.nan, "discordant": discordant, "n": n}

    alpha, beta = norm.ppf(0.5 + LEVEL / 2), norm.ppf(power)

    def chance_is_enough(change: float) -> bool:
        spread = np.sqrt(max(discordant - change**2, 0.0))
        return change * np.sqrt(n) >= alpha * np.sqrt(discordant) + beta * spread

    low, high = 0.0, discordant
    if not chance_is_enough(high):
        return {"value": np.nan, "discordant": discordant, "n": n}
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if chance_is_enough(middle) else (middle, high)
    return {"value": high, "discordant": discordant, "n": n}


def by_relation(
    grades: dict[str, pd.DataFrame], questions: pd.DataFrame, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Every policy's gain over `base` by relation.

    Frame of relation, policy, before, value, low, high, n, p, holm.

    Questions without a relation are one group, `none`. Holm's correction is over all rows.
    """
    relation = questions.set_index("question_id")["relation"].fillna("none")
    rows = []
    for policy, after in grades.items():
        if policy == "base":
            continue
        both = pair(grades["base"], after)
        for name, part in both.groupby(both["question_id"].map(relation), sort=True):
            sides = (
                part[["question_id", side]].rename(columns={side: "correct"})
                for side in ("before", "after")
            )
            row = {"relation": name, "policy": policy, "before": float(part["before"].mean())}
            rows.append(row | gain(*sides, n_boot, seed))
    frame = pd.DataFrame(rows)
    return frame.assign(holm=holm(frame["p"])) if len(frame) else frame
