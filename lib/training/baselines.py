"""The training baselines: SFT on gold answers, RFT on correct samples, DPO on pairs of samples.

All three use TRL's trainers on token ids: the direct prompt as the policy sees it when it answers,
then the answer, then the end-of-text token. Shared prefixes run once (lib.engine.trie). A killed
training goes on from its last checkpoint. Finished weights are never trained again.
"""

import json
import os
from pathlib import Path

import pandas as pd
from datasets import Dataset, disable_progress_bars, load_from_disk
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from lib.config import Profile, Tuning
from lib.engine.adapters import lora_config, plain_model
from lib.engine.models import Policy, load_policy, locate
from lib.engine.trie import share_prefixes
from lib.prompts import direct
from lib.tables import write_text
from lib.training.apart import finished
from lib.training.arguments import common_arguments
from lib.training.evaluation import Evaluation
from lib.training.examples import (
    completion_dataset,
    dpo_pairs,
    pair_dataset,
    rft_rows,
    sft_rows,
    token_counts,
)
from lib.training.watch import last_checkpoint
from lib.training.weights import publish

SAVE_STEPS = 20  # a checkpoint with Adam's state is three times the weights: it must be rare


class PairTrainer(DPOTrainer):
    """TRL's DPO on pairs that are token ids; the reference is the policy before its first step."""

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset

    def _precompute_ref_logps(self, dataset, name, batch_size):
        """TRL scores the reference while the trainer is being built."""
        for model in filter(None, (self.model, self.ref_model)):
            share_prefixes(plain_model(model))
        if self.accelerator.num_processes > 1:
            # the first process writes the scores beside the rows: all must read the same files
            place = Path(self.args.output_dir) / "pairs"
            if self.accelerator.is_main_process:
                dataset.save_to_disk(place)
            self.accelerator.wait_for_everyone()
            dataset = load_from_disk(place)
        return super()._precompute_ref_logps(dataset, name, batch_size)


def tune(
    method: str,
    profile: Profile,
    questions,
    folder,
    seed: int,
    steps: int,
    samples=None,
    grades=None,
    policy: Policy | None = None,
) -> Path:
    """The folder after one of METHODS, chosen and stopped by the same rule as GRPO.

    SFT learns the training questions' display answers, RFT the policy's own correct samples, DPO
    (arXiv 2305.18290) correct against incorrect ones. samples, grades: of the training questions.
    """
    per_question = getattr(profile, method).samples_per_question
    rows = {
        "sft": lambda: sft_rows(questions),
        "rft": lambda: rft_rows(questions, samples, grades, per_question, seed),
        "dpo": lambda: dpo_pairs(questions, samples, grades, per_question, seed),
    }[method]()
    validation = questions[questions["split"] == "validation"]
    return fine_tune(method, profile, rows, folder, seed, steps, policy, validation=validation)


def train_rows(
    profile: Profile, rows, folder, seed: int, policy=None, prompt=direct, epochs: int = 1
) -> Path:
    """The folder after SFT on `rows` in their own order, with `profile.sft`'s settings.

    rows: question_id, question, completion. prompt: what makes the messages of a question.
    """
    steps = epochs * -(-len(rows) // profile.sft.questions_per_step)
    order = {"prompt": prompt, "order": "sequential"}
    return fine_tune("sft", profile, rows, folder, seed, steps, policy, **order)


def fine_tune(
    method,
    profile: Profile,
    rows,
    folder,
    seed: int,
    steps: int,
    policy,
    validation=None,
    prompt=direct,
    order="random",
) -> Path:
    """Train one of METHODS on `rows`; the folder holds what lib.training.grpo.train_grpo leaves.

    validation: questions by which `best/` is chosen; without any there is only `last/`. prompt:
    what makes the messages of a question (SFT and RFT). order: `random`, or `sequential` for the
    order of the rows. Without rows there is nothing to learn: the budget says so, and there are
    no weights.
    """
    folder = Path(folder)
    if finished(folder):
        return folder
    if rows.empty:
        print(f"{method}: no sample is an example to learn from; nothing is trained", flush=True)
        nothing = {"method": method, "examples": 0, "questions": 0, "epochs": 0.0, "steps": 0}
        write_text(folder / "budget.json", json.dumps(nothing | {"seconds": 0.0}) + "\n")
        return folder
    os.environ["TQDM_DISABLE"] = "1"
    disable_progress_bars()
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)

    watch = Evaluation(
        folder, profile, rows.head(0) if validation is None else validation, (), method
    )
    policy = policy or load_policy(profile)
    if not profile.lora:
        policy.model.float()  # bf16 weights would round small updates away
    tuning = getattr(profile, method)
    if method == "dpo":
        data = pair_dataset(rows, policy.tokenizer)
    else:
        data = completion_dataset(rows, policy.tokenizer, prompt)
    arguments = settings(profile, tuning, work, seed, steps)
    arguments["train_sampling_strategy"] = order
    watch.trainer = trainer = make_tuner(method, profile, policy, data, arguments, watch)

    trainer.train(resume_from_checkpoint=last_checkpoint(work))
    publish(trainer, watch, budget(trainer, watch, rows, data))
    return folder


def settings(profile: Profile, tuning: Tuning, work: Path, seed: int, steps: int) -> dict:
    """TRL's arguments for SFT, RFT and DPO; defaults that would change the method are spelt out."""
    return common_arguments(profile, tuning, tuning.questions_per_step, work, seed) | dict(
        max_steps=steps,
        max_length=None,  # nothing is cut: a cut answer would lose its end-of-text token
        bf16=profile.dtype == "bfloat16",
        save_strategy="steps",
        save_steps=SAVE_STEPS,
        logging_steps=1,
    )


def make_tuner(
    method: str, profile: Profile, policy: Policy, data: Dataset, arguments: dict, watch
):
    """TRL's trainer of `policy` on `data`, which runs each shared prefix once."""
    common = dict(
        model=policy.model,
        train_dataset=data,
        processing_class=policy.tokenizer,
        callbacks=[watch],
        peft_config=lora_config(profile),
    )
    if method == "dpo":
        pairs = dict(beta=profile.dpo.beta or 0.1, precompute_ref_log_probs=True)
        if os.environ.get("ACCELERATE_USE_FSDP") == "true":  # TRL loads the reference by its name
            pairs["model_init_kwargs"] = {"revision": locate(profile.models[profile.model])[1]}
        trainer = PairTrainer(args=DPOConfig(**arguments, **pairs), **common)
    else:
        trainer = SFTTrainer(args=SFTConfig(**arguments), **common)
        share_prefixes(plain_model(trainer.model))
    trainer.remove_callback(PrinterCallback)
    return trainer


def budget(trainer, watch: Evaluation, rows: pd.DataFrame, data: Dataset) -> dict:
    """What a training took: examples, questions, epochs, steps, tokens, seconds."""
    steps = trainer.state.global_step
    batch = trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps
    epochs = steps / -(-len(rows) // (batch * trainer.accelerator.num_processes))
    tokens, trained = (round(count * epochs) for count in token_counts(data))
    return {
        "method": watch.method,
        "examples": len(rows),
        "questions": int(rows["question_id"].nunique()),
        "epochs": epochs,
        "steps": steps,
        "tokens": tokens,
        "tokens_trained": trained,
        "seconds": watch.seconds(),
    }
