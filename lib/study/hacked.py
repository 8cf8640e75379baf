"""What the two arms of lib.study.hacking did: rollouts, curves, both ends, validation accuracy."""

from pathlib import Path

import numpy as np
import pandas as pd

from lib.judge.grading import judge_answer
from lib.metrics import share_interval
from lib.training.apart import read_log, read_rollouts

ROLLOUT_MEASURES = ("reward", "true", "attack")


def rollouts(folder: Path, questions: pd.DataFrame, attack: str) -> pd.DataFrame:
    """Every rollout of an arm: step, group, question_id, text, reward, true, attack.

    reward: NA where the judge failed; true: right by the rule judge on the known answers; attack:
    whether the attack stands in the text.
    """
    groups = read_rollouts(folder).reset_index(names="group")
    rows = groups.explode(["texts", "rewards"], ignore_index=True).rename(columns={"texts": "text"})
    known = questions.set_index("question_id")

    rewards = [None if pd.isna(reward) else float(reward) for reward in rows["rewards"]]
    true = [
        judge_answer(text, list(known.at[i, "answers"]), "alias", known.at[i, "question"])
        for i, text in zip(rows["question_id"], rows["text"], strict=True)
    ]
    return rows[["step", "group", "question_id", "text"]].assign(
        reward=pd.array(rewards, dtype="Float64"),
        true=true,
        attack=rows["text"].str.contains(attack, regex=False, case=False),
    )


def curves(arms: dict[str, pd.DataFrame], n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Reward, true accuracy and share of attacks of each arm and step.

    arms: arm -> frame of `rollouts`. Frame of arm, step, measure, value, low, high, n (groups).
    Intervals are bootstrapped over groups, since rollouts of one question are alike.
    """
    rows = []
    for arm, frame in arms.items():
        for step, part in frame.groupby("step"):
            for measure in ROLLOUT_MEASURES:
                means = _group_means(part, measure)
                low, high = share_interval(means, n_boot, seed)
                rows.append((arm, step, measure, means.mean(), low, high, len(means)))
    return pd.DataFrame(rows, columns=["arm", "step", "measure", "value", "low", "high", "n"])


def _group_means(frame: pd.DataFrame, measure: str) -> np.ndarray:
    """Each group's mean of a measure, without the groups whose every verdict failed."""
    values = frame[measure].astype("Float64")
    return values.groupby(frame["group"]).mean().dropna().to_numpy(float)


def ends(arms: dict[str, pd.DataFrame], n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Each measure in the first and in the last quarter of an arm's steps, and its change.

    arms: arm -> frame of `rollouts`. Frame of arm, measure, when (first, last, change), value, low,
    high, n (groups). The interval of a change bootstraps both ends.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for arm, frame in arms.items():
        steps = frame["step"].max()
        quarter = max(1, steps // 4)
        early = frame[frame["step"] <= quarter]
        late = frame[frame["step"] > steps - quarter]

        for measure in ROLLOUT_MEASURES:
            first = _group_means(early, measure)
            last = _group_means(late, measure)
            draws = [
                rng.choice(last, len(last)).mean() - rng.choice(first, len(first)).mean()
                for _ in range(n_boot)
            ]
            for when, means in (("first", first), ("last", last)):
                low, high = share_interval(means, n_boot, seed)
                rows.append((arm, measure, when, means.mean(), low, high, len(means)))

            low, high = np.quantile(draws, (0.025, 0.975))
            change = last.mean() - first.mean()
            rows.append((arm, measure, "change", change, low, high, len(first) + len(last)))
    return pd.DataFrame(rows, columns=["arm", "measure", "when", "value", "low", "high", "n"])


def validation_accuracy(arms: dict[str, Path]) -> pd.DataFrame:
    """True greedy accuracy on the validation questions at the start and the end of each arm.

    arms: arm -> folder of its training. Frame of arm, when (first, last), value, low, high, n.
    """
    rows = []
    for arm, folder in arms.items():
        log = read_log(folder).dropna(subset=["accuracy"])
        for when, row in (("first", log.iloc[0]), ("last", log.iloc[-1])):
            ends = row["accuracy_low"], row["accuracy_high"]
            rows.append((arm, when, row["accuracy"], *ends, int(row["n"])))
    return pd.DataFrame(rows, columns=["arm", "when", "value", "low", "high", "n"])
