"""GRPO as the paper uses it: direct prompt, binary reward, TRL's trainer over the shared-prefix
engine.

The recipe: sample n answers of each question from the policy; reward 1 for a correct one, else 0;
an answer's advantage is its reward less its group's mean, over the group's standard deviation;
raise the probability of answers by their advantage. What differs from TRL's GRPOTrainer, and where:

1) Rollouts come from lib.engine.decoding: a prompt runs once for its group, each prefix once.
2) Rows of a group stay together in one micro-batch, where they share their prompt.
3) Shared prefixes run once in every scoring and in the update.
4) A group without signal is not run in the update, where that is exact (no KL term).
5) A group's advantages may be weighted by its difficulty (F-GRPO; off by default).
"""

import argparse
import copy
import gc
import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import AutoModelForCausalLM, PrinterCallback
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from lib.config import Profile, load_profile
from lib.engine.decoding import decode
from lib.engine.models import Policy, load_policy, locate, make_policy
from lib.engine.trie import share_prefixes, use_layouts
from lib.judge.grading import make_reward
from lib.judge.rules import judge_answer
from lib.prompts import direct, render
from lib.runs import run_folder
from lib.tables import write_text
from lib.training.apart import finished, read_rollouts, schedule, training_steps
from lib.training.evaluation import Evaluation, save_weights, sharded
from lib.training.rewards import Correctness
from lib.training.watch import last_checkpoint


class SharedPrefixGRPO(GRPOTrainer):
    """TRL's GRPOTrainer with the engine under it; losses, advantages and logging are TRL's."""

    skip_zero_variance = False
    # F-GRPO's gamma (arXiv 2602.06717): advantages times (1 - the group's success) ** gamma
    difficulty_weight = 0.0
    rollout_rows = 256
    _whole = _live = None

    # 2) rows of a group stay together
    def _prepare_inputs(self, generation_batch):
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        # as in TRL, without its shuffle: rows of a group stay in one micro-batch, where they share
        # their prefix
        every = self.args.steps_per_generation * self.num_iterations
        if self._step % every == 0 or self._buffered_inputs is None:
            scored = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_tensor_dict(scored, self.args.steps_per_generation)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    # 1) rollouts from the engine
    def _generate_single_turn(
        self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False
    ):
        """n rollouts of each question at temperature 1; the same for the same seed, step and place
        in the batch.

        The place counts over all processes, so that their number changes no rollout.
        """
        if self.use_vllm:  # TRL's own, with its transfer of the weights
            return super()._generate_single_turn(
                prompt_ids,
                images,
                multimodal_fields,
                num_generations,
                has_tool_images=has_tool_images,
            )
        prompts, length = prompt_ids[::num_generations], self.max_completion_length
        policy = make_policy(self.whole_model(), self.processing_class)
        first = self.accelerator.process_index * len(prompts)

        def draws(i):
            return np.random.default_rng(
                [self.args.seed, self.state.global_step, 0, first + i]
            ).random((num_generations, length))

        done = {
            d["index"]: d for d in decode(policy, prompts, draws, length, self.rollout_rows, True)
        }
        order = [done[i] for i in range(len(prompts))]
        tokens = sum(len(ids) for d in order for ids in d["ids"])
        self._metrics["train"]["rollout_entropy"].append(
            sum(d["entropy"].sum() for d in order) / tokens
        )
        return [ids for d in order for ids in d["ids"]], None

    def whole_model(self):
        """The model that decodes: the trained one, or under FSDP2 a copy of the whole weights,
        gathered now.

        All processes must call it together.
        """
        model = self.accelerator.unwrap_model(self.model)
        if not sharded(model):
            return model
        if self._whole is None:
            self._whole = (
                AutoModelForCausalLM.from_config(model.config).to(self.accelerator.device).eval()
            )
            if self.args.bf16:
                self._whole.bfloat16()
            use_layouts(self._whole)
        with torch.no_grad():
            for whole, part in zip(self._whole.parameters(), model.parameters(), strict=True):
                whole.copy_(part.full_tensor())
        return self._whole

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        groups = (
            rewards.nanmean(1).view(-1, self.num_generations).nanmean(1, keepdim=True).nan_to_num()
        )
        self._success = groups.expand(-1, self.num_generations).reshape(
            -1
        )  # of every row of all processes
        return rewards

    # 5) advantages weighted by difficulty
    def _generate_and_score_completions(self, inputs):
        scored = super()._generate_and_score_completions(inputs)
        if self.difficulty_weight and self.model.training:
            first = self.accelerator.process_index * len(inputs)
            success = self._success[first : first + len(inputs)].clamp(0, 1)
            scored["advantages"] = scored["advantages"] * (1 - success) ** self.difficulty_weight
        return scored

    def _compute_loss(self, model, inputs):
        skip = self.skip_zero_variance and self.model.training
        self._live = inputs["advantages"] != 0 if skip else None
        return super()._compute_loss(model, inputs)

    # 4) rows without signal are not run
    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, **kwargs
    ):
        """TRL's, but a row whose advantage is 0 is not run: at beta = 0 it gives no gradient,
        whatever stands there.

        Such rows stay in the loss's denominator, so the gradient is the same.
        """
        score, live = super()._get_per_token_logps_and_entropies, self._live
        self._live = None
        if live is None or bool(live.all()):
            return score(model, input_ids, attention_mask, logits_to_keep, **kwargs)
        rows = (
            live.nonzero()[:, 0] if live.any() else live.new_zeros(1, dtype=torch.long)
        )  # a loss needs a graph
        logps, entropies, aux = score(
            model, input_ids[rows], attention_mask[rows], logits_to_keep, **kwargs
        )

        def spread(values):
            return values.new_zeros(len(live), logits_to_keep).index_put((rows,), values)

        return spread(logps), None if entropies is None else spread(entropies), aux


def arguments(profile: Profile, steps: int, work: Path, seed: int) -> GRPOConfig:
    """TRL's settings of a run; those whose defaults would change the algorithm are spelt out."""
    grpo, processes = profile.grpo, int(os.environ.get("WORLD_SIZE", 1))
    rows = grpo.questions_per_step * grpo.num_generations
    if rows % (grpo.micro_batch * processes):
        raise ValueError(
            f"grpo: questions_per_step * num_generations = {rows} completions do not divide into "
            "micro_batch = "
            f"{grpo.micro_batch} on each of {processes} processes; change one of them in the "
            "profile"
        )
    return GRPOConfig(
        output_dir=str(work),
        seed=seed,
        max_steps=steps,
        learning_rate=grpo.learning_rate,
        lr_scheduler_type="constant",  # TRL's default is linear
        per_device_train_batch_size=grpo.micro_batch,
        gradient_accumulation_steps=rows // (grpo.micro_batch * processes),
        num_generations=grpo.num_generations,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        max_completion_length=profile.sampling.max_new_tokens,
        beta=grpo.beta,
        use_bias_correction_kl=False,  # plain k3; TRL's default weights it
        epsilon=grpo.epsilon,
        num_iterations=1,
        loss_type=grpo.loss_type,
        scale_rewards=grpo.scale_rewards,
        bf16=grpo.bf16,  # TRL's default is True, on CPU too
        gradient_checkpointing=False,
        shuffle_dataset=False,  # the schedule is shuffled already
        save_steps=grpo.save_every,
        save_total_limit=1,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
    )


def train_grpo(
    profile, train, validation, folder, seed, steps, keep_steps=(), policy=None, reward=None
) -> Path:
    """Train on the questions `train` for `steps` steps into `folder`; returns the folder.

    reward: (questions, gold answers, predictions) -> 1.0, 0.0 or None each, in place of the
    profile's judge, which then only evaluates; rollouts.jsonl then holds the texts and their
    rewards too.

    The folder holds `last/` and, with validation questions, `best/` (weights and tokenizer),
    `step<k>/` for each k of `keep_steps`, log.jsonl (one row per step) and rollouts.jsonl (step,
    question_id, hits, n). A killed call goes on from its last checkpoint; a finished one
    (`budget.json`) returns at once.
    """
    folder = Path(folder)
    if finished(folder):
        return folder
    folder.mkdir(parents=True, exist_ok=True)

    policy, first = start(profile, policy)
    watch = Evaluation(folder, profile, validation, tuple(keep_steps))
    judge = reward or make_reward(profile.judge, train)
    group = profile.grpo.num_generations
    correct = Correctness(judge, watch.rollouts, group, keep_texts=reward is not None)
    data = training_rows(train, steps, profile.grpo.questions_per_step, seed)

    trainer = make_trainer(
        profile, policy, correct, data, arguments(profile, steps, folder / "work", seed)
    )
    trainer.add_callback(watch)
    watch.trainer = trainer
    watch.reference = reference_policy(trainer, policy, first)
    if watch.reference is None and len(validation):
        watch.reference = load_policy(profile)

    trainer.train(resume_from_checkpoint=last_checkpoint(folder / "work"))
    return publish(trainer, watch, len(train))


def start(profile: Profile, policy: Policy | None) -> tuple[Policy, Policy | None]:
    """(the policy to train, a copy of it as it is now when it was given)."""
    first = policy and Policy(copy.deepcopy(policy.model).eval(), policy.tokenizer, policy.stops)
    policy = policy or load_policy(profile)
    policy.model.float()  # bf16 weights would round updates of this size away
    policy.model.train()
    return policy, first


def training_rows(train: pd.DataFrame, steps: int, per_step: int, seed: int) -> list[dict]:
    """The prompts of all groups in training order, each with what the reward needs."""
    rows = train.set_index("question_id")
    order = schedule(rows.index.tolist(), steps, per_step, seed)
    return [
        {
            "prompt": direct(rows.at[question_id, "question"]),
            "question_id": question_id,
            "question": rows.at[question_id, "question"],
            "answers": list(rows.at[question_id, "answers"]),
        }
        for question_id in order
    ]


def make_trainer(profile, policy: Policy, correct, data: list[dict], config: GRPOConfig):
    """The trainer over the engine, checked on its first prompt."""
    if config.beta:  # TRL loads the reference by the model's name: let it be the same revision
        config.model_init_kwargs = {"revision": locate(profile.models[profile.model])[1]}
    trainer = SharedPrefixGRPO(
        model=policy.model,
        reward_funcs=correct,
        args=config,
        train_dataset=Dataset.from_list(data),
        processing_class=policy.tokenizer,
    )
    trainer.skip_zero_variance = profile.grpo.skip_zero_variance
    trainer.difficulty_weight = profile.grpo.difficulty_weight
    trainer.rollout_rows = profile.sampling.rows
    trainer.remove_callback(PrinterCallback)

    share_prefixes(trainer.model)  # 3)
    if trainer.ref_model is not None:
        share_prefixes(trainer.ref_model)
    check_prompt(trainer, policy, data[0])
    return trainer


def reference_policy(trainer, policy: Policy, first: Policy | None) -> Policy | None:
    """The policy before training: TRL's reference where it is whole here, else `first`."""
    reference = trainer.ref_model
    if reference is None or sharded(reference):
        return first
    return Policy(reference, policy.tokenizer, policy.stops)


def publish(trainer, watch: Evaluation, questions: int) -> Path:
    """Write the last weights, then the budget, whose existence means that all is whole."""
    folder, steps = watch.work, trainer.state.global_step
    save_weights(trainer, folder / "last", {"step": steps})
    trainer.accelerator.wait_for_everyone()  # every process has written its rollouts

    if trainer.is_world_process_zero():
        shutil.rmtree(folder / "work", ignore_errors=True)
        rollouts = read_rollouts(folder)
        budget = {
            "method": "grpo",
            "examples": int(rollouts["n"].sum()),
            "questions": int(rollouts["question_id"].nunique()),
            "epochs": len(rollouts) / questions,
            "steps": steps,
            "seconds": watch.seconds(),
        }
        write_text(folder / "budget.json", json.dumps(budget, indent=1) + "\n")
    trainer.accelerator.wait_for_everyone()
    return folder


def check_prompt(trainer, policy: Policy, row: dict) -> None:
    """Check that the trainer sees the prompt that evaluation renders, and an answer's end."""
    seen, ours = (
        trainer._tokenize_prompts([row["prompt"]])[0][0],
        render(policy.tokenizer, row["prompt"]),
    )
    if list(seen) != ours:
        raise ValueError(
            f"the trainer renders another prompt than lib.prompts: {seen} against {ours}"
        )
    if policy.tokenizer.eos_token_id not in trainer.eos_token_ids:
        raise ValueError(
            f"{policy.tokenizer.eos_token!r} ends no answer in the trainer: {trainer.eos_token_ids}"
        )
    if not judge_answer(row["answers"][0], row["answers"], "exact"):
        raise ValueError(f"{row['question_id']}: its own gold answer earns no reward")


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
    warnings.filterwarnings(
        "ignore", message=".*gradient_checkpointing", category=FutureWarning
    )  # TRL sets it
    profile = load_profile(args.run, args.model, args.dataset)
    here = run_folder(args.run, profile.model, profile.dataset, args.seed)
    questions = pd.read_parquet(here / "02_dedup" / "questions.parquet")
    train = questions[questions["split"] == "train"]
    for subset in args.subsets:
        if subset == "full":
            validation = questions[questions["split"] == "validation"]
            steps = training_steps(profile, len(train))
            keep = {min(profile.attribution.steps, steps)}
            train_grpo(profile, train, validation, here / "04_grpo", args.seed, steps, keep)
        else:
            subsets = pd.read_parquet(here / "06_attribution" / "subsets.parquet")
            ids = subsets.loc[subsets["subset"] == subset, "question_id"]
            some, folder = train[train["question_id"].isin(ids)], here / "06_attribution" / subset
            print(f"{subset}: {len(some)} questions", flush=True)
            train_grpo(
                profile, some, questions.head(0), folder, args.seed, profile.attribution.steps
            )
        gc.collect()  # a trainer and its model refer to each other
    PartialState().destroy_process_group()  # its threads must not outlive the interpreter


if __name__ == "__main__":
    main()
