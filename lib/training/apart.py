"""Trainings as notebooks see them: processes that leave weights, a budget and a log."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from lib.config import PROFILES, Profile

METHODS = ("sft", "rft", "dpo")


def schedule(question_ids: list[str], steps: int, per_step: int, seed: int) -> list[str]:
    """The question of every group, in training order: passes over the questions, each shuffled
    anew.

    Length steps * per_step; a set smaller than a step comes up more than once in it.
    """
    rng = np.random.default_rng(seed)
    passes = -(-steps * per_step // len(question_ids))
    order = [question_ids[i] for _ in range(passes) for i in rng.permutation(len(question_ids))]
    return order[: steps * per_step]


def advantages(rewards: list[float]) -> list[float]:
    """A group's advantages: reward less the mean, over the standard deviation (n - 1) plus 1e-4, as
    in TRL.
    """
    rewards = np.array(rewards)
    return ((rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)).tolist()


def training_steps(profile: Profile, questions: int) -> int:
    """The number of GRPO steps: as given, or `epochs` passes over the questions in whole steps."""
    grpo = profile.grpo
    return grpo.steps or max(1, int(grpo.epochs * questions / grpo.questions_per_step))


def finished(folder: Path | str) -> bool:
    """Whether `folder` holds whole trained weights: its budget is written last."""
    return (Path(folder) / "budget.json").exists()


def train_apart(module, folders, run, model=None, dataset=None, seed=0, launch=None) -> list[dict]:
    """The budget of each training in `folders` (name: folder), run in a process that gives its
    memory back.

    module: `lib.training.baselines`, whose names are METHODS, or `lib.training.grpo`, whose names
    are subsets of lib.study.attribution, or `full` for all questions. One process trains all names,
    or one each under `launch`, the profile's launcher, such as `accelerate launch` ({profiles}
    stands for the profiles' folder); its log is printed. Finished weights are not trained again.
    Raises RuntimeError with the last lines when a process fails.
    """
    options = {"--run": run, "--model": model, "--dataset": dataset, "--seed": seed}
    given = [str(part) for option in options.items() if option[1] is not None for part in option]
    missing = [name for name, folder in folders.items() if not finished(folder)]
    for names in [[name] for name in missing] if launch else [missing] if missing else []:
        command = [
            *(shlex.split(launch.format(profiles=PROFILES)) if launch else [sys.executable]),
            "-m",
            module,
            *names,
            *given,
        ]
        lines = []
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            for line in process.stdout:
                lines.append(line.rstrip())
                print(lines[-1], flush=True)
        unfinished = [name for name in names if not finished(folders[name])]
        if process.returncode or unfinished:
            last = " | ".join(lines[-3:])
            raise RuntimeError(
                f"{module} ended with code {process.returncode}, {unfinished} not whole: {last}"
            )
    return [json.loads((Path(folder) / "budget.json").read_text()) for folder in folders.values()]


def read_lines(path: Path) -> list[dict]:
    """The records of a JSON lines file, without a torn last one; none when it is not there."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def read_log(folder: Path) -> pd.DataFrame:
    """The training log: one row per step (0 = before training); evaluation columns are null between
    evaluations.
    """
    return pd.DataFrame(read_lines(Path(folder) / "log.jsonl"))


def read_rollouts(folder: Path) -> pd.DataFrame:
    """One row per group: step, question_id, hits (correct rollouts), n."""
    return pd.DataFrame(read_lines(Path(folder) / "rollouts.jsonl"))
