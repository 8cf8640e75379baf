"""Trainings as notebooks see them: steps to plan, processes to start, logs to read."""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from lib.config import PROFILES, Profile, load_profile
from lib.processes import PARENT, end_with_parent, release_memory
from lib.runs import run_folder
from lib.tables import DamagedFile, load_json

METHODS = ("sft", "rft", "dpo")
PYTHON_ERROR = re.compile(
    r"(\[rank\d+\]: )?(?!\S*(ChildFailed|CalledProcess)Error\b)"
    r"[\w.]+(Error|Stopped|Failed|Differ|InUse|Interrupt|DamagedFile)\b"
)


def training_steps(profile: Profile, questions: int) -> int:
    """The number of GRPO steps: as given, or `epochs` passes over the questions in whole steps."""
    grpo = profile.grpo
    return grpo.steps or max(1, int(grpo.epochs * questions / grpo.questions_per_step))


def schedule(question_ids: list[str], steps: int, per_step: int, seed: int) -> list[str]:
    """The question of every group in training order; each pass over the questions is shuffled anew.

    Length steps * per_step. A set smaller than a step comes up more than once in it.
    """
    rng = np.random.default_rng(seed)
    passes = -(-steps * per_step // len(question_ids))  # rounded up
    order = [question_ids[i] for _ in range(passes) for i in rng.permutation(len(question_ids))]
    return order[: steps * per_step]


def advantages(rewards: list[float]) -> list[float]:
    """A group's advantages: reward less mean, over standard deviation (n - 1) + 1e-4, as in TRL."""
    rewards = np.array(rewards)
    return ((rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)).tolist()


def finished(folder: Path | str) -> bool:
    """Whether `folder` holds whole trained weights: its budget is written last."""
    return (Path(folder) / "budget.json").exists()


def drop_weights(folders) -> None:
    """Remove the weights of trainings that nobody reads again: of most the answers are stored.

    Logs and budgets stay, so that none is trained again; loading the weights then says so.
    """
    for folder in folders:
        for name in ("best", "last"):
            shutil.rmtree(Path(folder) / name, ignore_errors=True)


def seeded(names, seeds: int) -> list[str]:
    """The names of the trainings with the second and later training seeds."""
    return [f"{name}_seed{k}" for k in range(1, seeds) for name in names]


def train_apart(
    folders, run, model=None, dataset=None, seed=0, launch=None, module="lib.training.arms"
) -> list[dict]:
    """Train in processes that give their memory back; the budget of each of `folders`.

    folders: the folder of each training by name; finished ones are not trained again. module: what
    trains them, called with the ends of their folders, such as 03_baselines/sft. launch: the
    profile's launcher, such as `accelerate launch` ({profiles} stands for the profiles' folder),
    which starts a process per training; without it one process trains them all. Raises RuntimeError
    with the reason when a process fails.
    """
    start = (
        shlex.split(launch.format(profiles=shlex.quote(str(PROFILES))))
        if launch
        else [sys.executable]
    )
    values = {"--run": run, "--model": model, "--dataset": dataset, "--seed": seed}
    options = [str(part) for pair in values.items() if pair[1] is not None for part in pair]

    release_memory()  # the trainings need it now
    missing = [name for name, folder in folders.items() if not finished(folder)]
    for name in folders.keys() - missing:  # a kill came before the checkpoints were dropped
        shutil.rmtree(Path(folders[name]) / "work", ignore_errors=True)
    batches = [[name] for name in missing] if launch else [missing] if missing else []
    for names in batches:
        asked = ["/".join(Path(folders[name]).parts[-2:]) for name in names]
        code, lines = run_and_print([*start, "-m", module, *asked, *options])
        unfinished = [name for name in names if not finished(folders[name])]
        if code or unfinished:
            said = f"{module} ended with code {code}, {unfinished} not whole"
            raise RuntimeError(f"{said}: {reason(lines)}")
    return [load_json(Path(folder) / "budget.json") for folder in folders.values()]


def reason(lines: list[str]) -> str:
    """Why processes ended, from their lines: the last error of Python, else the last three lines.

    What a launcher says after it, that a child has failed, is none.
    """
    errors = [line for line in lines if PYTHON_ERROR.match(line)]
    return errors[-1] if errors else " | ".join(lines[-3:])


def begin(description: str) -> tuple[list[str], Profile, Path, int]:
    """What `train_apart` asks of this process: names, profile, the run's folder and its seed.

    From now on the process ends when the one that it works for has ended.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("names", nargs="+", help="of the trainings, such as 03_baselines/sft")
    parser.add_argument("--run", default="laptop")
    parser.add_argument("--model")
    parser.add_argument("--dataset")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    end_with_parent()
    # TRL sets the setting that this warns of
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
    profile = load_profile(args.run, args.model, args.dataset)
    folder = run_folder(args.run, profile.model, profile.dataset, args.seed)
    return args.names, profile, folder, args.seed


def run_and_print(command: list[str]) -> tuple[int, list[str]]:
    """Run a command and print its lines as they come; its exit code and the lines."""
    lines = []
    # a launcher such as accelerate lies beside this Python, which need not be on PATH
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {PARENT: str(os.getpid()), "PATH": path},
    ) as process:
        for line in process.stdout:
            lines.append(line.rstrip())
            print(lines[-1], flush=True)
    return process.returncode, lines


def read_lines(path: Path) -> list[dict]:
    """The records of a JSON lines file, without a torn last one; [] when there is no file.

    Raises DamagedFile, with the number of the line, where another one cannot be read.
    """
    lines = path.read_text().splitlines() if path.exists() else []
    records = []
    for i, line in enumerate(lines):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            if i + 1 < len(lines):
                mend = f"remove the folder {path.parent} to train again"
                raise DamagedFile(f"{path} is damaged at line {i + 1}; {mend}") from None
    return records


def read_search(folder: Path) -> pd.DataFrame:
    """The learning rates that a training tried: accuracy on validation, its interval, n, by rate.

    Empty where there was no search.
    """
    path = Path(folder) / "search.json"
    trials = load_json(path)["trials"] if path.exists() else []
    columns = ["learning_rate", "accuracy", "accuracy_low", "accuracy_high", "n"]
    frame = pd.DataFrame(trials, columns=columns)
    return frame.assign(learning_rate=frame["learning_rate"].map("{:g}".format))


def read_log(folder: Path) -> pd.DataFrame:
    """The training log: one row per step (0 = before training); null where not evaluated."""
    return pd.DataFrame(read_lines(Path(folder) / "log.jsonl"))


def read_rollouts(folder: Path) -> pd.DataFrame:
    """One row per group: step, question_id, hits (correct rollouts), n (rollouts judged), live.

    A live group has rewards that differ, so that it carries signal.
    """
    frame = pd.DataFrame(read_lines(Path(folder) / "rollouts.jsonl"))
    if len(frame) and "live" not in frame:  # written before it was kept
        frame["live"] = frame["hits"].between(1, frame["n"] - 1)
    return frame
