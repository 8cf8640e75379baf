"""What each change of the recipe brings, by each judge, against GRPO at the same step."""

import numpy as np
import pandas as pd

from lib.config import Profile
from lib.judge.rules import abstains
from lib.metrics import wilson
from lib.study.attribution import against, chance_of_training, pooled

DEFAULT = "grpo_matched"  # the arm in which nothing is changed


def arm_table(profile: Profile) -> pd.DataFrame:
    """What each arm of the profile changes: setting, now, in the arm; one row for each change."""
    rows = []
    for name, arm in (profile.ablations.arms if profile.ablations else {}).items():
        for path, value in arm.set.items():
            section, _, key = path.partition(".")
            rows.append((name, path, getattr(getattr(profile, section), key, None), value))
        for key, usual in (("prompt", "direct"), ("questions", "all"), ("reward", "binary")):
            if getattr(arm, key) != usual:
                rows.append((name, key, usual, getattr(arm, key)))
    return pd.DataFrame(rows, columns=["arm", "setting", "otherwise", "in the arm"])


def outcomes(answers: dict[str, pd.DataFrame], grades: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Shares of right, wrong and abstaining answers: policy, outcome, value, low, high (Wilson), n.

    An answer that is right is never an abstention. Answers without a verdict are left out.
    """
    rows = []
    for policy, frame in answers.items():
        judged = frame.merge(grades[policy][["question_id", "correct"]], on="question_id")
        judged = judged.dropna(subset="correct")
        right, silent = judged["correct"].astype(bool), judged["text"].map(abstains)
        named = {"right": right, "abstained": ~right & silent, "wrong": ~right & ~silent}
        for outcome, which in named.items():
            low, high = wilson(int(which.sum()), len(judged))
            row = {"policy": policy, "outcome": outcome, "value": which.mean()}
            rows.append(row | {"low": low, "high": high, "n": len(judged)})
    return pd.DataFrame(rows, columns=["policy", "outcome", "value", "low", "high", "n"])


def arm_gains(
    grades: dict[str, dict[str, pd.DataFrame]],
    before: dict[str, dict[str, pd.DataFrame]],
    wording: dict[str, str],
    n_boot: int = 2000,
    seed: int = 0,
    repeats: list[str] = (),
) -> pd.DataFrame:
    """Gains of all arms by each judge: judge, arm, what, value, low, high, n, p, holm.

    grades: of each arm's answers, by judge and arm, DEFAULT among them; before: of the base
    policy's answers, by judge and wording; wording: of an arm, where it is not `direct`. what:
    `gain`, over the base policy in the same wording, or `less default`, against DEFAULT. repeats:
    arms that are DEFAULT with other seeds. They are pooled with it, and what they differ by is the
    chance of one training, which is in every interval and p (see `against`); without any these are
    of questions alone. Holm's correction is over the rows of a judge.
    """
    frames, many = [], 1 + len(repeats)
    for judge, arms in grades.items():
        same = [arms[name] for name in (DEFAULT, *repeats) if name in arms]
        arms = {name: frame for name, frame in arms.items() if name not in repeats}
        if same:
            arms[DEFAULT] = pooled(same)
        pairs = {
            (name, "gain"): (frame, before[judge][wording.get(name, "direct")])
            for name, frame in arms.items()
        }
        others = [name for name in arms if name != DEFAULT]
        pairs |= {(name, "less default"): (arms[name], arms[DEFAULT]) for name in others}
        trainings = {(name, "gain"): (many if name == DEFAULT else 1, np.inf) for name in arms}
        trainings |= {(name, "less default"): (1, many) for name in others}
        frame = against(pairs, n_boot, seed, chance_of_training(same), trainings)
        if len(frame):
            frame["arm"], frame["what"] = zip(*frame.pop("name"), strict=True)
            frames.append(frame.assign(judge=judge))
    columns = ["judge", "arm", "what", "value", "low", "high", "n", "p", "holm"]
    return pd.concat(frames)[columns] if frames else pd.DataFrame(columns=columns)
