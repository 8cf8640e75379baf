"""Every training of the study by its stage and name, which are its folder, too.

03_baselines: sft, rft, dpo. 04_grpo: grpo, the 2 x 2 of fresh or stored answers with or without
negative advantages, the controls of form, the rewards without truth. 06_attribution: subsets of the
training questions, and masked hits. `sft_seed1` is `sft` with the next training seed. What the
later notebooks train is in lib.training.experiments.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from accelerate import PartialState

from lib.config import Profile
from lib.engine.models import load_policy
from lib.judge.grading import make_reward
from lib.processes import release_memory
from lib.questions.atlas import bare_questions
from lib.tables import load_json, load_table, write_text
from lib.training.apart import begin, drop_weights, read_log, training_steps
from lib.training.baselines import train_rows, tune
from lib.training.controls import CoinReward, FormReward, MaskedReward, majority_answers
from lib.training.examples import sft_rows
from lib.training.grpo import train_grpo


@dataclass(frozen=True)
class Study:
    """What every training of a run shares: its settings, questions, folder and seeds."""

    profile: Profile
    questions: pd.DataFrame
    run: Path
    seed: int  # of the run
    training_seed: int  # orders the questions, draws the rollouts

    def split(self, name: str) -> pd.DataFrame:
        return self.questions[self.questions["split"] == name]

    @property
    def steps(self) -> int:
        """The number of steps of every method."""
        return training_steps(self.profile, len(self.split("train")))

    def samples(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The pre-RL samples of the training questions, and their grades."""
        folder = self.run / "03_baselines"
        names = ("samples_base_train", "grades_base_train")
        return tuple(load_table(folder / f"{name}.parquet") for name in names)

    def rate(self, section: str) -> "Study":
        """This study with the learning rate that `section`'s search has chosen, if it searched."""
        stage = "04_grpo" if section == "grpo" else "03_baselines"
        path = self.run / stage / section / "search.json"
        if not path.exists():
            return self
        return with_rate(self, section, load_json(path)["learning_rate"])


def with_rate(study: Study, section: str, rate: float) -> Study:
    """The study with another learning rate in one section of its profile."""
    changed = getattr(study.profile, section).model_copy(update={"learning_rate": rate})
    profile = study.profile.model_copy(update={section: changed})
    return replace(study, profile=profile)


def with_seed(study: Study, name: str) -> tuple[Study, str]:
    """The study with the training seed that a name such as `sft_seed1` asks for, and `sft`."""
    name, again = re.fullmatch(r"(.+?)(?:_seed(\d+))?", name).groups()
    return replace(study, training_seed=study.seed + int(again or 0)), name


def search(study: Study, section: str, folder: Path, train: Callable) -> Study:
    """The study with the learning rate whose short trial is best on the validation questions.

    train: (study, folder, steps) -> None. At a tie the first rate of the profile's list wins. The
    trials lie in `folder`/search without their weights, the choice in `folder`/search.json.
    """
    trials = study.profile.search
    if trials is None or study.training_seed != study.seed or (folder / "search.json").exists():
        return study.rate(section)  # other training seeds take the choice of the first
    rows = []
    for rate in trials.learning_rates:
        trial = folder / "search" / f"{rate:g}"
        print(f"{section}: learning rate {rate:g}", flush=True)
        train(with_rate(study, section, rate), trial, trials.steps)
        release_memory()  # a trainer and its model refer to each other
        log = read_log(trial)
        if log.empty:  # there was nothing to learn from
            return study
        last = log.iloc[-1]
        row = {name: float(last[name]) for name in ("accuracy", "accuracy_low", "accuracy_high")}
        rows.append({"learning_rate": rate} | row | {"n": int(last["n"])})
        drop_weights([trial])
    best = max(rows, key=lambda row: row["accuracy"])
    choice = {"learning_rate": best["learning_rate"], "trials": rows}
    write_text(folder / "search.json", json.dumps(choice, indent=1) + "\n")
    return study.rate(section)


def train_tuned(study: Study, name: str, folder: Path) -> None:
    """SFT, RFT or DPO: its learning rate by search, its weights by validation."""
    study, method = with_seed(study, name)
    tables = (None, None) if method == "sft" else study.samples()

    def train(study: Study, folder: Path, steps: int) -> None:
        seed = study.training_seed
        tune(method, study.profile, study.questions, folder, seed, steps, *tables)

    chosen = search(study, method, folder, train)
    train(chosen, folder, study.steps)


def train_full(study: Study, folder: Path) -> None:
    """GRPO on all training questions: its learning rate by search, its weights by validation.

    The weights at the lengths of the shorter trainings are kept.
    """
    sets, profile = (study.split("train"), study.split("validation")), study.profile
    short = (profile.attribution, profile.controls, profile.ablations)
    lengths = {section.steps for section in short if section}
    keep = {min(length, study.steps) for length in lengths}

    def train(study: Study, folder: Path, steps: int, keep=(), trial: bool = True) -> None:
        train_grpo(study.profile, *sets, folder, study.training_seed, steps, keep, trial=trial)

    train(search(study, "grpo", folder, train), folder, study.steps, keep, trial=False)


def train_control(study: Study, name: str, folder: Path) -> None:
    """GRPO with one thing changed, for the controls' number of steps, by GRPO's learning rate."""
    study = study.rate("grpo")
    train, seed = study.split("train"), study.training_seed
    samples = study.samples()[0] if name in ("offline", "offline_rft", "majority_reward") else None
    options = {
        "on_policy_rft": lambda: {"negatives": False},
        "offline": lambda: {"stored": samples},
        "offline_rft": lambda: {"stored": samples, "negatives": False},
        "form_reward": lambda: {"reward": FormReward(study.questions)},
        "coin_reward": lambda: {"reward": CoinReward(seed)},
        "majority_reward": lambda: {"reward": make_reward(study.profile.judge, train)},
    }[name]()
    if name == "majority_reward":
        train = majority_answers(samples, train)
    steps = min(study.profile.controls.steps, study.steps)
    train_grpo(study.profile, train, train.head(0), folder, seed, steps, **options)


def train_bare_start(study: Study, folder: Path) -> None:
    """The start policy: one pass of SFT over bare answers to what the run does not ask."""
    profile = study.profile
    asked = profile.data.relations if profile.dataset == "atlas" else ()
    bare = bare_questions(asked, profile.controls.start_questions, study.seed)
    train_rows(profile, sft_rows(bare), folder, study.training_seed)


def train_from_start(study: Study, method: str, folder: Path) -> None:
    """GRPO or SFT from the start policy, otherwise as from the base policy."""
    study = study.rate(method)
    seed, steps, profile = study.training_seed, study.steps, study.profile
    policy = load_policy(profile, study.run / "04_grpo" / "start" / "last")
    if method == "sft":
        tune("sft", profile, study.questions, folder, seed, steps, policy=policy)
    else:
        sets = (study.split("train"), study.split("validation"))
        train_grpo(profile, *sets, folder, seed, steps, policy=policy, trial=True)


def train_subset(study: Study, name: str, folder: Path) -> None:
    """GRPO on a subset of lib.study.attribution, or on all with masked hits, without evaluation."""
    study = study.rate("grpo")
    profile, train, seed = study.profile, study.split("train"), study.training_seed
    subsets = load_table(study.run / "06_attribution" / "subsets.parquet")
    options = {}
    if name in ("masked", "masked_random"):
        zero = train["question_id"].isin(subsets.loc[subsets["subset"] == "zero", "question_id"])
        judge, hidden = make_reward(profile.judge, train), set(train.loc[zero, "question"])
        options["reward"] = MaskedReward(judge, hidden, name == "masked_random", seed)
    else:
        ids = subsets.loc[subsets["subset"] == name, "question_id"]
        train = train[train["question_id"].isin(ids)]
    print(f"{name}: {len(train)} questions", flush=True)
    steps = min(profile.attribution.steps, study.steps)
    train_grpo(profile, train, train.head(0), folder, seed, steps, **options)


CONTROLS = (
    "on_policy_rft",
    "offline",
    "offline_rft",
    "form_reward",
    "coin_reward",
    "majority_reward",
)
STARTED = ("start", "start_grpo", "start_sft")


def train_grpo_named(study: Study, name: str, folder: Path) -> None:
    """What 04_grpo trains: GRPO, its controls, the start policy and what begins there."""
    study, name = with_seed(study, name)
    if name == "grpo":
        train_full(study, folder)
    elif name in CONTROLS:
        train_control(study, name, folder)
    elif name == "start":
        train_bare_start(study, folder)
    else:
        train_from_start(study, name.removeprefix("start_"), folder)


def train_all(trainings: dict[str, Callable[[Study, str, Path], None]]) -> None:
    """What a process of `train_apart` does: one training after the other, by the names given.

    trainings: what trains, by stage; called with the study, the training's name and its folder.
    """
    names, profile, run, seed = begin("Train policies of a run, by stage and name.")
    questions = load_table(run / "02_dedup" / "questions.parquet")
    study = Study(profile, questions, run, seed, seed)
    for name in names:
        stage, _, called = name.partition("/")
        trainings[stage](study, called, run / name)
        release_memory()
    PartialState().destroy_process_group()  # its threads must not outlive the interpreter


if __name__ == "__main__":
    train_all(
        {
            "03_baselines": train_tuned,
            "04_grpo": train_grpo_named,
            "06_attribution": train_subset,
        }
    )
