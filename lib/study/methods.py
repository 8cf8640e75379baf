"""All methods in one table: each against the base policy, and one of them against every other."""

import numpy as np
import pandas as pd

from lib.metrics import beside, error_of_mean, gain, holm, pair, paired_interval, student
from lib.study.mass import rivals
from lib.text import normalise

# what a greedy answer of the base policy was; a gain over it is the sum of what comes from each
KINDS = {
    "right": "were right",
    "gold": "named the gold answer, but were not accepted",
    "another": "named another answer of the relation",
    "none": "named no answer of the relation",
}


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


def split_gain(
    base: pd.DataFrame, form: pd.DataFrame, full: pd.DataFrame, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """A gain in two parts that add up: rows total, form, recall with value, low, high, n, p.

    form: the grades of a policy that can have learnt nothing but the form of an answer. What it
    gains is form; what the fully rewarded policy gains beyond it is recall. Only questions that all
    three policies have a verdict for are counted.
    """
    known = [frame.dropna(subset="correct") for frame in (base, form, full)]
    shared = set.intersection(*(set(frame["question_id"]) for frame in known))
    base, form, full = (frame[frame["question_id"].isin(shared)] for frame in known)
    parts = {"total": (base, full), "form": (base, form), "recall": (form, full)}
    rows = [{"part": name} | gain(*sides, n_boot, seed) for name, sides in parts.items()]
    return pd.DataFrame(rows)


def answer_kinds(answers: pd.DataFrame, grades: pd.DataFrame, questions: pd.DataFrame) -> pd.Series:
    """Which of KINDS each answer was, by question id; those without a verdict are left out.

    answers, grades: one for each question. `another` is what lib.study.mass.rivals finds; where it
    knows no other answers, `another` cannot be told from `none`.
    """
    rows = answers.merge(questions, on="question_id").merge(
        grades.dropna(subset="correct")[["question_id", "correct"]], on="question_id"
    )
    another = rivals(rows, questions) != ""
    said = " " + rows["text"].map(normalise) + " "
    golds = rows["answers"].map(lambda names: [n for n in map(normalise, names) if len(n) > 2])
    gold = [any(f" {n} " in text for n in some) for text, some in zip(said, golds, strict=True)]
    kinds = np.select(
        [rows["correct"].astype(bool), gold, another], ["right", "gold", "another"], "none"
    )
    return pd.Series(kinds, index=rows["question_id"], dtype="str")


def gain_by_kind(
    kinds: pd.Series, before: pd.DataFrame, after: pd.DataFrame, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """The parts of a gain by what the answers before were: kind, value, low, high, n.

    kinds: as of `answer_kinds`. value: the change of accuracy that the questions of a kind make,
    over all questions, so that the kinds add up to the gain; n: questions of the kind. No training
    but that of the policy after is in it.
    """
    both = pair(before, after)
    change = both["after"].astype(float) - both["before"].astype(float)
    kind, rows = both["question_id"].map(kinds), []
    for name in KINDS:
        low, high = paired_interval(change.where(kind == name, 0.0), n_boot, seed)
        value = float(change[kind == name].sum() / len(both))
        row = {"kind": name, "value": value, "low": low, "high": high}
        rows.append(row | {"n": int((kind == name).sum())})
    return pd.DataFrame(rows)


def gain_over_seeds(before: list[pd.DataFrame], after: list[pd.DataFrame]) -> dict:
    """Difference of mean accuracy over training seeds: value, low, high, p, n, seeds, each.

    before, after: grades with one answer for each question, a frame for each training seed (a base
    policy has one). `each` are the gains of the seeds after over the mean before. One seed says
    nothing about other seeds.

    The variances over questions and over the seeds of each side add up (`student`). Where no
    answer changed the interval is that of `paired_interval`.
    """
    old, new = beside(before), beside(after)
    shared = old.index.intersection(new.index)
    old, new = old.loc[shared].to_numpy(), new.loc[shared].to_numpy()  # (questions, seeds)

    change, n = new.mean(1) - old.mean(1), len(shared)
    sides = [side.mean(0) for side in (old, new) if side.shape[1] > 1]
    parts = [error_of_mean(change), *map(error_of_mean, sides)]
    value, each = float(change.mean()), (new.mean(0) - old.mean()).tolist()
    found = student(value, parts)
    if not change.any():
        low, high = paired_interval(change)
        found = {"low": low, "high": high, "p": 1.0}
    return {"value": value} | found | {"n": n, "seeds": new.shape[1], "each": each}


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
