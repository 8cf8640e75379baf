"""GRPO as the paper uses it: direct prompt, binary reward, TRL's trainer over the engine.

A step of the recipe:
- sample n answers to each of the step's questions from the policy: a group per question;
- the reward of an answer is 1 where the judge finds it right, else 0;
- its advantage is its reward less its group's mean, over its group's standard deviation;
- change the weights once: answers become more, or less, probable by their advantage.

What differs from TRL's GRPOTrainer has a number, which stands again at each place:
1) The questions come in an order of our own, and every pass asks each question once.
2) The engine samples the answers, from random numbers of seed, step and place. With `rollouts:
   vllm` TRL's vLLM does, and TRL weighs each answer by how far its log-probabilities lie off.
3) The answers of a group stay in one micro-batch.
4) Each shared prefix runs once, in the policy and in the reference of the KL.
5) With `skip_zero_variance`, answers without advantage are not run: the gradient is the same.
6) With `difficulty_weight`, a group counts by its failures (F-GRPO); by default it does not.
7) Every default of TRL that would change this recipe is closed.
8) Numbers that are not finite stop the training before an update: TRL would go on.
9) The prompt is the one that evaluation renders; any other is refused.
10) An answer that the limit cut earns nothing, as it is no example for RFT and DPO either.
2, 3, 5, 6 and 9 stand in lib.training.trainer, with two switches for the controls: stored answers
in place of fresh ones, and no negative advantages; 8 and 10 in lib.training.rewards and .watch.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from datasets import Dataset
from huggingface_hub import snapshot_download
from transformers import PrinterCallback
from trl import GRPOConfig

from lib.config import Profile
from lib.engine.adapters import lora_config, plain_model
from lib.engine.models import Policy, load_policy, locate
from lib.engine.trie import share_prefixes
from lib.engine.vllm import MAX_TOKENS
from lib.judge.grading import make_reward
from lib.prompts import direct, render
from lib.training.apart import finished, read_rollouts, schedule
from lib.training.arguments import common_arguments
from lib.training.evaluation import Evaluation
from lib.training.rewards import Rewards
from lib.training.trainer import SharedPrefixGRPO, check_prompt
from lib.training.watch import last_checkpoint
from lib.training.weights import publish, sharded


def train_grpo(
    profile,
    train,
    validation,
    folder,
    seed,
    steps,
    keep_steps=(),
    policy=None,
    reward=None,
    negatives=True,
    stored=None,
    trial=False,
    prompt=direct,
) -> Path:
    """Train on the questions `train` for `steps` steps into `folder`; returns the folder.

    reward: (questions, gold answers, predictions) -> 1.0, 0.0 or None each, in place of the
    profile's judge, which then only evaluates; rollouts.jsonl then holds the texts and their
    rewards too. negatives: False sets the advantage of wrong answers to 0. stored: a sample frame
    of the questions, from which each group is drawn in place of fresh answers. trial: neither the
    first policy nor the KL from it is measured. prompt: a question's chat messages.

    The folder gets `last/` and, with validation questions, `best/` (weights and tokenizer),
    `step<k>/` for each k of `keep_steps`, log.jsonl (one row per step) and rollouts.jsonl (step,
    question_id, hits, n, live). A killed call goes on from its last checkpoint. A finished one
    (`budget.json`) returns at once.
    """
    folder = Path(folder)
    if finished(folder):
        return folder
    folder.mkdir(parents=True, exist_ok=True)

    measured = len(validation) > 0 and not trial
    first = again(profile, policy) if measured else None
    policy = start(profile, policy)
    questions = ordered(train, steps, profile.grpo.questions_per_step, seed, prompt)
    watch = Evaluation(folder, profile, validation, tuple(keep_steps))
    watch.prompt = prompt
    judge = reward or make_reward(profile.judge, train)
    n = profile.grpo.num_generations
    rewards = Rewards(judge, n, watch.rollouts, bool(reward), policy.stops)

    config = arguments(profile, steps, folder / "work", seed)
    config.use_vllm = profile.grpo.rollouts == "vllm" and stored is None
    trainer = make_trainer(profile, policy, questions, rewards.correct, config, watch)
    trainer.negatives, trainer.rewards = negatives, rewards
    if stored is not None:
        trainer.stored = stored_answers(stored, train, policy)
    check_prompt(trainer, policy, questions[0])
    watch.trainer = trainer
    if measured:
        held = reference(trainer, policy)
        watch.reference = (lambda: held) if held else first

    trainer.train(resume_from_checkpoint=last_checkpoint(folder / "work"))
    publish(trainer, watch, rollout_budget(trainer, watch, len(train)))
    return folder


def stored_answers(samples: pd.DataFrame, train: pd.DataFrame, policy: Policy) -> dict:
    """Token ids of each question's samples by the token ids of its prompt.

    A sample that ended by itself ends with the turn's end; a cut one does not.
    """
    prompts = {
        row.question_id: tuple(render(policy.tokenizer, direct(row.question)))
        for row in train.itertuples()
    }
    stored = {prompt: [] for prompt in prompts.values()}
    for row in samples[samples["question_id"].isin(set(prompts))].itertuples():
        ids = policy.tokenizer(row.text, add_special_tokens=False)["input_ids"]
        ending = [policy.end] if row.finish == "stop" else []
        stored[prompts[row.question_id]].append(ids + ending or [policy.end])
    return stored


def again(profile: Profile, policy: Policy | None) -> Callable[[], Policy]:
    """What loads the policy before training whenever it is called, so that nobody holds it.

    A given policy that lies in no folder is copied.
    """
    place = policy.model.name_or_path if policy else None
    if policy is None or Path(place or "?").is_dir():
        return partial(load_policy, profile, place)
    if profile.lora:  # the policy before training is the one without its adapters
        return lambda: policy
    first = replace(policy, model=copy.deepcopy(policy.model).eval())
    return lambda: first


def start(profile: Profile, policy: Policy | None) -> Policy:
    """The policy to train, in float32; under adapters its weights stay as they are."""
    policy = policy or load_policy(profile)
    if not profile.lora:
        policy.model.float()  # bf16 weights would round updates of this size away
    policy.model.train()
    return policy


def ordered(
    train: pd.DataFrame, steps: int, per_step: int, seed: int, prompt: Callable = direct
) -> Dataset:
    """1) One row per group in training order: prompt, question_id, question, answers."""
    rows = train.set_index("question_id")
    order = schedule(rows.index.tolist(), steps, per_step, seed)
    return Dataset.from_list(
        [
            {
                "prompt": prompt(rows.at[question_id, "question"]),
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
    n = grpo.num_generations
    return GRPOConfig(
        **common_arguments(profile, grpo, grpo.questions_per_step * n, work, seed, group=n),
        max_steps=steps,
        shuffle_dataset=False,  # 1) the order is shuffled already
        num_generations=n,
        max_completion_length=profile.sampling.rollout_tokens,
        vllm_mode="colocate",
        vllm_max_model_length=MAX_TOKENS,
        vllm_importance_sampling_correction=True,
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
        log_completions=profile.report_to != "none",  # a table of them for the tracker
        num_completions_to_print=0,
    )


def make_trainer(
    profile: Profile, policy: Policy, questions: Dataset, reward, config: GRPOConfig, watch
) -> SharedPrefixGRPO:
    """The trainer of `policy`, ready for its first step; the profile's switches are set."""
    name, revision = locate(profile.models[profile.model])
    if config.beta:  # TRL loads the reference by the model's name: let it be the same revision
        config.model_init_kwargs = {"revision": revision}
    if config.use_vllm:
        check_vllm()
        config.generation_kwargs = {"stop_token_ids": sorted(policy.stops)}
        if revision and policy.model.name_or_path == name:  # TRL would take the newest one
            policy.model.name_or_path = snapshot_download(name, revision=revision)
    trainer = SharedPrefixGRPO(
        model=policy.model,
        reward_funcs=reward,
        args=config,
        train_dataset=questions,
        processing_class=policy.tokenizer,
        callbacks=[watch],
        peft_config=lora_config(profile),
    )
    trainer.remove_callback(PrinterCallback)

    trainer.rollout_rows = profile.sampling.rows
    trainer.skip_zero_variance = profile.grpo.skip_zero_variance  # 5)
    trainer.difficulty_weight = profile.grpo.difficulty_weight  # 6)
    for model in filter(None, (trainer.model, trainer.ref_model)):
        share_prefixes(plain_model(trainer.accelerator.unwrap_model(model)))  # 4)
    return trainer


def check_vllm() -> None:
    """Raise ValueError where TRL's vLLM cannot take the weights of each step."""
    if not torch.cuda.is_available():
        raise ValueError(
            "grpo.rollouts: vLLM's CPU build packs its weights and takes no others; use `engine`"
        )


def reference(trainer: SharedPrefixGRPO, policy: Policy) -> Policy | None:
    """The policy before training, where the trainer holds it whole: TRL's reference, or adapters
    that can be put off; else None."""
    unwrapped = trainer.accelerator.unwrap_model(trainer.model)
    model = trainer.ref_model if plain_model(unwrapped) is unwrapped else plain_model(unwrapped)
    whole = model is not None and not sharded(model)
    return replace(policy, model=model) if whole else None


def rollout_budget(trainer: SharedPrefixGRPO, watch: Evaluation, questions: int) -> dict:
    """What a training took; all processes call this together.

    questions: how many were given; an epoch is one group for each of them.
    """
    trainer.accelerator.wait_for_everyone()  # every process has written its rollouts
    rollouts = read_rollouts(watch.folder)
    return {
        "method": "grpo",
        "examples": int(rollouts["n"].sum()),
        "questions": int(rollouts["question_id"].nunique()),
        "epochs": len(rollouts) / questions,
        "steps": trainer.state.global_step,
        "seconds": watch.seconds(),
    }
