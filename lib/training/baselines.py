"""The training baselines: SFT on gold answers, RFT on correct samples, DPO on pairs of samples.

All three use TRL's trainers on token ids: the direct prompt as the policy sees it when it answers,
then the answer, then the end-of-text token. Shared prefixes run once (lib.engine.trie). A killed
training goes on from its last checkpoint. Finished weights are never trained again.
"""

import argparse
import gc
import json
import os
import shutil
import warnings
from pathlib import Path

import pandas as pd
from accelerate import PartialState
from datasets import Dataset, disable_progress_bars
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from lib.config import Profile, Tuning, load_profile
from lib.engine.models import Policy, load_policy
from lib.engine.trie import share_prefixes
from lib.prompts import direct
from lib.runs import run_folder
from lib.tables import write_text
from lib.training.apart import METHODS, finished
from lib.training.arguments import common_arguments
from lib.training.examples import (
    completion_dataset,
    dpo_pairs,
    pair_dataset,
    rft_rows,
    sft_rows,
    token_counts,
)
from lib.training.watch import Watch, last_checkpoint

SAVE_STEPS = 20  # a checkpoint with Adam's state is three times the weights: it must be rare


class PairTrainer(DPOTrainer):
    """TRL's DPO on pairs that are token ids; the reference is the policy before its first step."""

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset

    def _precompute_ref_logps(self, dataset, name, batch_size):
        share_prefixes(self.model)  # TRL scores the reference while the trainer is being built
        return super()._precompute_ref_logps(dataset, name, batch_size)


def train_sft(profile: Profile, questions, folder, seed: int, policy: Policy | None = None) -> Path:
    """The folder of weights after fine-tuning on the training questions' display answers."""
    return fine_tune("sft", profile, sft_rows(questions), folder, seed, policy)


def train_rft(profile: Profile, questions, samples, grades, folder, seed: int, policy=None) -> Path:
    """The folder of weights after rejection-sampling fine-tuning: SFT on correct samples."""
    rows = rft_rows(questions, samples, grades, profile.rft.samples_per_question, seed)
    return fine_tune("rft", profile, rows, folder, seed, policy)


def train_dpo(profile: Profile, questions, samples, grades, folder, seed: int, policy=None) -> Path:
    """The folder of weights after DPO (arXiv 2305.18290) on correct against incorrect samples."""
    pairs = dpo_pairs(questions, samples, grades, profile.dpo.samples_per_question, seed)
    return fine_tune("dpo", profile, pairs, folder, seed, policy)


def train_rows(profile: Profile, rows, folder, seed: int, policy=None, prompt=direct) -> Path:
    """The folder of weights after SFT on `rows` in their own order, with `profile.sft`'s settings.

    rows: question_id, question, completion. prompt: what makes the messages of a question.
    """
    return fine_tune("sft", profile, rows, folder, seed, policy, prompt, order="sequential")


def fine_tune(
    method, profile: Profile, rows, folder, seed: int, policy, prompt=direct, order="random"
) -> Path:
    """Train one of METHODS on `rows`; the folder: weights, tokenizer and, last, budget.json.

    prompt: what makes the messages of a question (SFT and RFT). order: `random`, or `sequential`
    for the order of the rows. Raises ValueError when there are no rows.
    """
    folder = Path(folder)
    if finished(folder):
        return folder
    if rows.empty:
        raise ValueError(
            f"{method}: the pre-RL samples give nothing to train on; raise sampling.train_samples"
        )
    os.environ["TQDM_DISABLE"] = "1"
    disable_progress_bars()
    work = folder.with_name(folder.name + ".work")
    work.mkdir(parents=True, exist_ok=True)

    watch = Watch(method, work)
    policy = policy or load_policy(profile)
    policy.model.float()  # bf16 weights would round small updates away
    tuning = getattr(profile, method)
    if method == "dpo":
        data = pair_dataset(rows, policy.tokenizer)
    else:
        data = completion_dataset(rows, policy.tokenizer, prompt)
    arguments = settings(tuning, work, seed, mixed=profile.dtype == "bfloat16")
    arguments["train_sampling_strategy"] = order
    trainer = make_tuner(method, tuning, policy, data, arguments, watch)

    trainer.train(resume_from_checkpoint=last_checkpoint(work))
    trainer.save_model(str(work / "final"))
    if trainer.is_world_process_zero():
        publish_weights(work, folder, policy.tokenizer, budget(trainer, watch, rows, data))
    trainer.accelerator.wait_for_everyone()
    return folder


def settings(tuning: Tuning, work: Path, seed: int, mixed: bool) -> dict:
    """TRL's arguments for SFT, RFT and DPO; defaults that would change the method are spelt out."""
    per_pass = tuning.micro_batch * int(os.environ.get("WORLD_SIZE", 1))
    if tuning.questions_per_step % per_pass:
        raise ValueError(
            f"`questions_per_step` = {tuning.questions_per_step} is not a multiple of {per_pass}, "
            f"`micro_batch` times processes; change one of them in the profile"
        )

    accumulation = tuning.questions_per_step // per_pass
    return common_arguments(tuning, accumulation, work, seed) | dict(
        num_train_epochs=tuning.epochs,
        max_length=None,  # nothing is cut: a cut answer would lose its end-of-text token
        bf16=mixed,
        save_strategy="steps",
        save_steps=SAVE_STEPS,
        logging_steps=5,
    )


def make_tuner(method: str, tuning: Tuning, policy: Policy, data: Dataset, arguments: dict, watch):
    """TRL's trainer of `policy` on `data`, which runs each shared prefix once."""
    common = dict(
        model=policy.model,
        train_dataset=data,
        processing_class=policy.tokenizer,
        callbacks=[watch],
    )
    if method == "dpo":
        pairs = dict(beta=tuning.beta or 0.1, precompute_ref_log_probs=True)
        trainer = PairTrainer(args=DPOConfig(**arguments, **pairs), **common)
    else:
        trainer = SFTTrainer(args=SFTConfig(**arguments), **common)
        share_prefixes(trainer.model)
    trainer.remove_callback(PrinterCallback)
    return trainer


def budget(trainer, watch: Watch, rows: pd.DataFrame, data: Dataset) -> dict:
    """What a training took: examples, questions, epochs, steps, tokens, seconds."""
    epochs = trainer.args.num_train_epochs
    tokens, trained = (round(count * epochs) for count in token_counts(data))
    return {
        "method": watch.method,
        "examples": len(rows),
        "questions": int(rows["question_id"].nunique()),
        "epochs": epochs,
        "steps": trainer.state.global_step,
        "tokens": tokens,
        "tokens_trained": trained,
        "seconds": watch.seconds(),
    }


def publish_weights(work: Path, folder: Path, tokenizer, facts: dict) -> None:
    """Move `work`/final to `folder` in one rename, write the budget, drop the checkpoints."""
    final = work / "final"
    (final / "training_args.bin").unlink(missing_ok=True)  # a pickle; settings.json says the same
    tokenizer.save_pretrained(final)
    for path in final.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())

    shutil.rmtree(folder, ignore_errors=True)
    final.rename(folder)
    write_text(folder / "budget.json", json.dumps(facts, indent=1) + "\n")  # last: now it is whole
    shutil.rmtree(work)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train baselines of a run from its tables.")
    parser.add_argument("methods", nargs="+", choices=METHODS)
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
    stage = run / "03_baselines"
    trainings = {"sft": train_sft, "rft": train_rft, "dpo": train_dpo}
    for method in args.methods:
        names = [] if method == "sft" else ["samples", "grades"]
        tables = [pd.read_parquet(stage / f"{name}_base_train.parquet") for name in names]
        trainings[method](profile, questions, *tables, stage / method, args.seed)
        gc.collect()  # a trainer and its model refer to each other
    PartialState().destroy_process_group()  # its threads must not outlive the interpreter


if __name__ == "__main__":
    main()
