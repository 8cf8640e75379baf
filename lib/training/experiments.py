"""What the experiments after the main study train, each training by its stage and name.

08_ablations: the profile's arms, and `default_seed1`, GRPO as it is with the next training seed.
09_transfer: GRPO on the questions of one source, or on those with one half of the answers.
10_origin: a policy that has seen made-up facts, and GRPO from it; `taught_seed1` is `taught` with
the next training seed.
"""

from pathlib import Path

import pandas as pd

from lib.config import Judge, changed
from lib.engine.models import load_policy
from lib.judge.grading import make_reward
from lib.prompts import requested, worded
from lib.questions.invented import invented_questions, told_facts
from lib.questions.splits import answer_half
from lib.sections import Arm
from lib.training.arms import Study, train_all, with_seed
from lib.training.baselines import train_rows
from lib.training.controls import TernaryReward
from lib.training.grpo import train_grpo


def train_ablation(study: Study, name: str, folder: Path) -> None:
    """GRPO with what the profile's arm changes, on the questions that it names."""
    settings = study.profile.ablations
    if name not in settings.arms:
        study, name = with_seed(study, name)
    study = study.rate("grpo")
    arm, steps = settings.arms.get(name, Arm()), settings.steps
    profile, train = changed(study.profile, arm.set | {"ablations": None}), study.split("train")
    if arm.questions == "mixed":
        grades = study.samples()[1].dropna(subset="correct")
        share = grades.groupby("question_id")["correct"].mean()
        train = train[train["question_id"].isin(share.index[(share > 0) & (share < 1)])]
    print(f"{name}: {len(train)} questions", flush=True)
    options = {"prompt": worded(arm.prompt)}
    if arm.reward == "ternary":
        options["reward"] = TernaryReward(make_reward(profile.judge, train))
    train_grpo(profile, train, train.head(0), folder, study.training_seed, steps, **options)


def train_source(study: Study, name: str, folder: Path) -> None:
    """GRPO on the training questions of some relations, or of one half of the answers."""
    study = study.rate("grpo")
    transfer, train = study.profile.transfer, study.split("train")
    if name in transfer.sources:
        train = train[train["relation"].isin(transfer.sources[name])]
    else:
        train = train[train["relation"].isin(transfer.halved)]
        train = train[answer_half(train, study.seed) == name]
    print(f"{name}: {len(train)} questions", flush=True)
    seed = study.training_seed
    train_grpo(study.profile, train, train.head(0), folder, seed, transfer.steps)


def train_taught(study: Study, folder: Path) -> None:
    """The policy that has seen the made-up facts, each as often as its `exposures` say."""
    origin, seed = study.profile.origin, study.training_seed
    rate = {"sft.learning_rate": origin.teach_learning_rate}
    profile, rows = changed(study.profile, rate), told_facts(origin_questions(study), seed)
    train_rows(profile, rows, folder, seed, prompt=requested, epochs=origin.teach_epochs)


def train_on_taught(study: Study, taught: Path, folder: Path) -> None:
    """GRPO from that policy on the made-up training questions, judged by their one right city."""
    origin = study.profile.origin
    settings = {"grpo.learning_rate": origin.learning_rate, "judge": Judge(kind="alias")}
    profile, questions = changed(study.profile, settings), origin_questions(study)
    train = questions[questions["split"] == "train"]
    policy, seed = load_policy(profile, taught / "last"), study.training_seed
    train_grpo(profile, train, train.head(0), folder, seed, origin.steps, policy=policy)


def origin_questions(study: Study) -> pd.DataFrame:
    """The made-up facts of one training seed."""
    origin = study.profile.origin
    return invented_questions(origin.exposures, origin.train, origin.test, study.training_seed)


def train_origin(study: Study, name: str, folder: Path) -> None:
    """`taught`, or `taught_grpo` from it."""
    study, kind = with_seed(study, name)
    if kind == "taught":
        train_taught(study, folder)
    else:
        train_on_taught(study, folder.with_name(name.replace("taught_grpo", "taught")), folder)


if __name__ == "__main__":
    train_all(
        {
            "08_ablations": train_ablation,
            "09_transfer": train_source,
            "10_origin": train_origin,
        }
    )
