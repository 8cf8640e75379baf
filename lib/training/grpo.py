"""GRPO as the paper uses it: direct prompt, binary reward, TRL's trainer over the engine.

A step of the recipe:
- sample n answers to each of the step's questions from the policy: a group per question;
- the reward of an answer is 1 where the judge finds it right, else 0;
- its advantage is its reward less its group's mean, over its group's standard deviation;
- change the weights once: answers become more, or less, probable by their advantage.

What differs from TRL's GRPOTrainer has a number, which stands again at each place:
1) The questions come in an order of our own, and every pass asks each question once.
2) The engine samples the answers, from random numbers of seed, step and place.
3) The answers of a group stay in one micro-batch.
4) Each shared prefix runs once, in the policy and in the reference of the KL.
5) With `skip_zero_variance`, answers without advantage are not run: the gradient is the same.
6) With `difficulty_weight`, a group counts by its failures (F-GRPO); by default it does not.
7) Every default of TRL that would change this recipe is closed.
8) Numbers that are not finite stop the training before an update: TRL would go on.
9) The prompt is the one that evaluation renders; any other is refused.
2, 3, 5, 6 and 9 stand in lib.training.trainer; 8 in lib.training.rewards and lib.training.watch.
"""

import argparse
import copy
import gc
import json
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pandas as pd
from accelerate import PartialState
from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig

from lib.config import Profile, load_profile
from lib.engine.models import Policy, load_policy, locate
from lib.engine.trie import share_prefixes
from lib.judge.grading import make_reward
from lib.prompts import direct
from lib.runs import run_folder
from lib.tables import write_text
from lib.training.apart import finished, read_rollouts, schedule, training_steps
from lib.training.arguments import common_arguments
from lib.training.evaluation import Evaluation
from lib.training.rewards import Rewards
from lib.training.trainer import SharedPrefixGRPO, check_prompt
from lib.training.watch import last_checkpoint
from lib.training.weights import save_weights, sharded


def train_grpo(
    profile, train, validation, folder, seed, steps, keep_steps=(), policy=None, reward=None
) -> Path:
    """Train on the questions `train` for `steps` steps into `folder`; returns the folder.

    reward: (questions, gold answers, predictions) -> 1.0, 0.0 or None each, in place of the
    profile's judge, which then only evaluates; rollouts.jsonl then holds the texts and their
    rewards too.

    The folder gets `last/` and, with validation questions, `best/` (weights and tokenizer),
    `step<k>/` for each k of `keep_steps`, log.jsonl (one row per step) and rollouts.jsonl (step,
    question_id, hits, n). A killed call goes on from its last checkpoint. A finished one
    (`budget.json`) returns at once.
    """
    folder = Path(folder)
    if finished(folder):
        return folder
    folder.mkdir(parents=True, exist_ok=True)

    policy, first = start(profile, policy)
    questions = ordered(train, steps, profile.grpo.questions_per_step, seed)
    watch = Evaluation(folder, profile, validation, tuple(keep_steps))
    judge = reward or make_reward(profile.judge, train)
    rewards = Rewards(judge, profile.grpo.num_generations, watch.rollouts, texts=bool(reward))

    config = arguments(profile, steps, folder / "work", seed)
    trainer = make_trainer(profile, policy, questions, rewards.correct, config, watch)
    check_prompt(trainer, policy, questions[0])
    watch.trainer = trainer
    if len(validation):
        watch.reference = reference(trainer, policy) or first or load_policy(profile)

    trainer.train(resume_from_checkpoint=last_checkpoint(folder / "work"))
    publish(trainer, watch, len(train))
    return folder


def start(profile: Profile, policy: Policy | None) -> tuple[Policy, Policy | None]:
    """The policy to train, in float32, and a copy of a given one as it is before training."""
    first = None
    if policy:
        first = replace(policy, model=copy.deepcopy(policy.model).eval())

    policy = policy or load_policy(profile)
    policy.model.float()  # bf16 weights would round updates of this size away
    policy.model.train()
    return policy, first


def ordered(train: pd.DataFrame, steps: int, per_step: int, seed: int) -> Dataset:
    """1) One row per group in training order: prompt, question_id, question, answers."""
    rows = train.set_index("question_id")
    order = schedule(rows.index.tolist(), steps, per_step, seed)
    return Dataset.from_list(
        [
            {
                "prompt": direct(rows.at[question_id, "question"]),
                "question_id": question_id,
                "question": rows.at[question_id, "question"],
                "answers": list(rows.at[question_id, "answers"]),
            }
            for question_id in order
        ]
    )


def arguments(profile: Profile, steps: int, work: Path, seed: int) -> GRPOConfig:
    """TRL's settings of a run; 7) those whose defaults would change the recipe are spelt out."""
    grpo = profile.grpo
    processes = int(os.environ.get("WORLD_SIZE", 1))
    rows = grpo.questions_per_step * grpo.num_generations
    if rows % (grpo.micro_batch * processes):
        raise ValueError(
            f"grpo: questions_per_step * num_generations = {rows} completions do not divide into "
            f"micro_batch = {grpo.micro_batch} on each of {processes} processes; "
            f"change one of them in the profile"
        )

    accumulation = rows // (grpo.micro_batch * processes)
    return GRPOConfig(
        **common_arguments(grpo, accumulation, work, seed),
        max_steps=steps,
        shuffle_dataset=False,  # 1) the order is shuffled already
        num_generations=grpo.num_generations,
        max_completion_length=profile.sampling.max_new_tokens,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        scale_rewards=grpo.scale_rewards,
        loss_type=grpo.loss_type,  # TRL's default is dapo
        epsilon=grpo.epsilon,
        num_iterations=1,  # one update per batch of answers
        beta=grpo.beta,
        use_bias_correction_kl=False,  # plain k3; TRL's default weights it
        bf16=grpo.bf16,  # TRL's default is True, on a CPU too
        save_steps=grpo.save_every,
        logging_steps=1,
    )


def make_trainer(
    profile: Profile, policy: Policy, questions: Dataset, reward, config: GRPOConfig, watch
) -> SharedPrefixGRPO:
    """The trainer of `policy`, ready for its first step; the profile's switches are set."""
    if config.beta:  # TRL loads the reference by the model's name: let it be the same revision
        config.model_init_kwargs = {"revision": locate(profile.models[profile.model])[1]}
    trainer = SharedPrefixGRPO(
        model=policy.model,
        reward_funcs=reward,
        args=config,
        train_dataset=questions,
        processing_class=policy.tokenizer,
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)

    trainer.rollout_rows = profile.sampling.rows
    trainer.skip_zero_variance = profile.grpo.skip_zero_variance  # 5)
    trainer.difficulty_weight = profile.grpo.difficulty_weight  # 6)
    for model in filter(None, (trainer.model, trainer.ref_model)):
        share_prefixes(model)  # 4)
    return trainer


def reference(trainer: SharedPrefixGRPO, policy: Policy) -> Policy | None:
    """TRL's reference model as a Policy; None where there is none or each process has a part."""
    model = trainer.ref_model
    whole = model is not None and not sharded(model)
    return replace(policy, model=model) if whole else None


def publish(trainer: SharedPrefixGRPO, watch: Evaluation, questions: int) -> None:
    """Save the last weights, drop the checkpoints, and write the budget, which says: finished.

    questions: how many were given; an epoch is one group for each of them.
    """
    save_weights(trainer, watch.folder / "last", {"step": trainer.state.global_step})
    trainer.accelerator.wait_for_everyone()  # every process has written its rollouts

    if trainer.is_world_process_zero():
        shutil.rmtree(watch.folder / "work", ignore_errors=True)
        rollouts = read_rollouts(watch.folder)
        budget = {
            "method": "grpo",
            "examples": int(rollouts["n"].sum()),
            "questions": int(rollouts["question_id"].nunique()),
            "epochs": len(rollouts) / questions,
            "steps": trainer.state.global_step,
            "seconds": watch.seconds(),
        }
        write_text(watch.folder / "budget.json", json.dumps(budget, indent=1) + "\n")
    trainer.accelerator.wait_for_everyone()


def train_full(profile: Profile, questions: pd.DataFrame, run: Path, seed: int) -> None:
    """Train on all training questions of a run; the weights at attribution's length are kept."""
    train = questions[questions["split"] == "train"]
    validation = questions[questions["split"] == "validation"]
    steps = training_steps(profile, len(train))
    keep = {min(profile.attribution.steps, steps)}
    train_grpo(profile, train, validation, run / "04_grpo", seed, steps, keep)


def train_subset(
    profile: Profile, questions: pd.DataFrame, run: Path, seed: int, subset: str
) -> None:
    """Train on one subset of lib.study.attribution, without evaluation."""
    subsets = pd.read_parquet(run / "06_attribution" / "subsets.parquet")
    ids = subsets.loc[subsets["subset"] == subset, "question_id"]
    train = questions[(questions["split"] == "train") & questions["question_id"].isin(ids)]
    print(f"{subset}: {len(train)} questions", flush=True)

    folder = run / "06_attribution" / subset
    train_grpo(profile, train, questions.head(0), folder, seed, profile.attribution.steps)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Train a run's policy with GRPO, on all or some of its questions."
    )
    parser.add_argument(
        "subsets",
        nargs="*",
        default=["full"],
        help="names in 06_attribution/subsets.parquet, or full",
    )
    parser.add_argument("--run", default="laptop")
    parser.add_argument("--model")
    parser.add_argument("--dataset")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    # TRL sets the setting that this warns of
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
    profile = load_profile(args.run, args.model, args.dataset)
    run = run_folder(args.run, profile.model, profile.dataset, args.seed)
    questions = pd.read_parquet(run / "02_dedup" / "questions.parquet")
    for subset in args.subsets:
        if subset == "full":
            train_full(profile, questions, run, args.seed)
        else:
            train_subset(profile, questions, run, args.seed, subset)
        gc.collect()  # a trainer and its model refer to each other
    PartialState().destroy_process_group()  # its threads must not outlive the interpreter


if __name__ == "__main__":
    main()
