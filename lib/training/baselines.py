"""The training baselines: SFT on gold answers, RFT on correct samples, DPO on correct against
incorrect ones.

All three use TRL's trainers on token ids: the direct prompt as the policy sees it when it answers,
then the answer, then the end-of-text token. Shared prefixes run once (lib.engine.trie). A killed
training goes on from its last checkpoint; finished weights are loaded, never trained again.
"""

import argparse
import gc
import json
import os
import shutil
import warnings
from pathlib import Path

import pandas as pd
import torch
from accelerate import PartialState
from datasets import disable_progress_bars
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from lib.config import Profile, Tuning, load_profile
from lib.engine.models import Policy, load_policy
from lib.engine.trie import share_prefixes
from lib.prompts import direct
from lib.runs import run_folder
from lib.tables import write_text
from lib.training.apart import METHODS, finished
from lib.training.examples import (
    completion_dataset,
    dpo_pairs,
    pair_dataset,
    rft_rows,
    sft_rows,
    token_counts,
)
from lib.training.watch import Watch, last_checkpoint

SAVE_STEPS = (
    20  # a checkpoint with Adam's state is three times the weights: rare enough to be cheap
)


class PairTrainer(DPOTrainer):
    """TRL's DPO on pairs that are token ids already; the reference is the policy before its first
    step.
    """

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset

    def _precompute_ref_logps(self, dataset, name, batch_size):
        share_prefixes(self.model)  # TRL scores the reference while the trainer is being built
        return super()._precompute_ref_logps(dataset, name, batch_size)


def settings(tuning: Tuning, work: Path, seed: int, mixed: bool) -> dict:
    """TRL arguments that SFT, RFT and DPO share; those whose defaults would change the method are
    spelt out.
    """
    per_step = tuning.micro_batch * int(os.environ.get("WORLD_SIZE", 1))
    if tuning.questions_per_step % per_step:
        raise ValueError(
            f"`questions_per_step` = {tuning.questions_per_step} is not a multiple of {per_step}, "
            f"`micro_batch` times processes; change one of them in the profile"
        )
    return dict(
        output_dir=str(work),
        seed=seed,
        learning_rate=tuning.learning_rate,
        lr_scheduler_type="constant",
        num_train_epochs=tuning.epochs,
        per_device_train_batch_size=tuning.micro_batch,
        gradient_accumulation_steps=tuning.questions_per_step // per_step,
        max_length=None,  # nothing is cut: a cut answer would lose its end-of-text token
        bf16=mixed,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
        save_strategy="steps",
        save_steps=SAVE_STEPS,
        save_total_limit=1,
        logging_steps=5,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )


def _train(
    name: str,
    profile: Profile,
    rows: pd.DataFrame,
    folder,
    seed: int,
    policy: Policy | None,
    **others,
) -> Path:
    """Train `name` on `rows` into `folder`: weights, tokenizer and, last, budget.json; returns the
    folder.

    others: `prompt`, in place of the direct one, and `order`, `sequential` for the rows' own.
    """
    folder, tuning = Path(folder), getattr(profile, name)
    if finished(folder):
        return folder
    if rows.empty:
        raise ValueError(
            f"{name}: the pre-RL samples give nothing to train on; raise sampling.train_samples"
        )
    os.environ["TQDM_DISABLE"] = "1"
    disable_progress_bars()
    work = folder.with_name(folder.name + ".work")
    work.mkdir(parents=True, exist_ok=True)
    watch, policy = Watch(name, work), policy or load_policy(profile)
    mixed = profile.dtype == "bfloat16"
    model = policy.model.float()  # bf16 weights would round small updates away
    arguments = settings(tuning, work, seed, mixed) | {
        "train_sampling_strategy": others.get("order", "random")
    }
    common = dict(model=model, processing_class=policy.tokenizer, callbacks=[watch])
    if name == "dpo":
        data = pair_dataset(rows, policy.tokenizer)
        arguments |= dict(beta=tuning.beta or 0.1, precompute_ref_log_probs=True)
        trainer = PairTrainer(args=DPOConfig(**arguments), train_dataset=data, **common)
    else:
        data = completion_dataset(rows, policy.tokenizer, others.get("prompt", direct))
        trainer = SFTTrainer(args=SFTConfig(**arguments), train_dataset=data, **common)
        share_prefixes(trainer.model)
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_checkpoint(work))
    trainer.save_model(str(work / "final"))
    if trainer.is_world_process_zero():
        tokens, trained = (round(count * tuning.epochs) for count in token_counts(data))
        budget = {
            "method": name,
            "examples": len(rows),
            "questions": int(rows["question_id"].nunique()),
            "epochs": tuning.epochs,
            "steps": trainer.state.global_step,
            "tokens": tokens,
            "tokens_trained": trained,
            "seconds": watch.seconds(),
        }
        _publish(work, folder, policy.tokenizer, budget)
    trainer.accelerator.wait_for_everyone()
    return folder


def _publish(work: Path, folder: Path, tokenizer, budget: dict) -> None:
    """Move the weights in `work`/final to `folder` in one rename, mark them whole, drop the
    checkpoints.
    """
    final = work / "final"
    (final / "training_args.bin").unlink(missing_ok=True)  # a pickle; settings.json says the same
    tokenizer.save_pretrained(final)
    for path in final.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(folder, ignore_errors=True)
    final.rename(folder)
    write_text(folder / "budget.json", json.dumps(budget, indent=1) + "\n")
    shutil.rmtree(work)


def train_sft(profile: Profile, questions, folder, seed: int, policy: Policy | None = None) -> Path:
    """The folder of weights after supervised fine-tuning on the display answers of the training
    questions.
    """
    return _train("sft", profile, sft_rows(questions), folder, seed, policy)


def train_rows(profile: Profile, rows, folder, seed: int, policy=None, prompt=direct) -> Path:
    """The folder of weights after fine-tuning on `rows` (question_id, question, completion) in
    their own order.

    prompt: what makes the messages of a row's `question`. Settings are those of `profile.sft`.
    """
    return _train("sft", profile, rows, folder, seed, policy, prompt=prompt, order="sequential")


def train_rft(profile: Profile, questions, samples, grades, folder, seed: int, policy=None) -> Path:
    """The folder of weights after rejection-sampling fine-tuning: supervised, on the model's
    correct samples.
    """
    rows = rft_rows(questions, samples, grades, profile.rft.samples_per_question, seed)
    return _train("rft", profile, rows, folder, seed, policy)


def train_dpo(profile: Profile, questions, samples, grades, folder, seed: int, policy=None) -> Path:
    """The folder of weights after DPO (arXiv 2305.18290) on the model's correct against its
    incorrect samples.
    """
    pairs = dpo_pairs(questions, samples, grades, profile.dpo.samples_per_question, seed)
    return _train("dpo", profile, pairs, folder, seed, policy)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train baselines of a run from its tables.")
    parser.add_argument("methods", nargs="+", choices=METHODS)
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
    stage, trainings = here / "03_baselines", {"sft": train_sft, "rft": train_rft, "dpo": train_dpo}
    for method in args.methods:
        names = [] if method == "sft" else ["samples", "grades"]
        tables = [pd.read_parquet(stage / f"{name}_base_train.parquet") for name in names]
        trainings[method](profile, questions, *tables, stage / method, args.seed)
        gc.collect()  # a trainer and its model refer to each other
    PartialState().destroy_process_group()  # its threads must not outlive the interpreter


if __name__ == "__main__":
    main()
