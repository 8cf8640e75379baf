"""What a GRPO training is evaluated by, every few steps: validation accuracy, KL, and collapse."""

import json
import os
import shutil
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
from torch.distributed.tensor import DTensor

from lib.config import Profile
from lib.engine.decoding import decode
from lib.engine.models import make_policy
from lib.engine.sampling import answer_logprobs
from lib.judge.grading import make_reward
from lib.metrics import wilson
from lib.prompts import direct, render
from lib.tables import write_text
from lib.training.apart import read_lines
from lib.training.watch import Watch

KL_QUESTIONS = 16  # validation questions whose sampled answers measure the KL
CURVES = {  # TRL's names of what the curves show
    "reward": "reward",
    "completions/mean_length": "length",
    "rollout_entropy": "entropy",
    "grad_norm": "grad_norm",
    "loss": "loss",
}


class Evaluation(Watch):
    """Greedy validation accuracy and KL every few steps; keeps the best weights, the log, and an
    eye on collapse.

    Every process evaluates, since sharded weights are gathered by all of them; the first one
    writes.
    """

    def __init__(
        self, work: Path, profile: Profile, validation: pd.DataFrame, keep_steps: tuple[int, ...]
    ):
        super().__init__("grpo", work / "work")
        self.work = work
        self.profile = profile
        self.validation = validation
        self.keep_steps = keep_steps
        self.log = work / "log.jsonl"
        self.rollouts = work / "rollouts.jsonl"
        self.trainer = None  # set when it stands
        self.reference = None  # the first policy, a Policy

    def rows(self) -> list[dict]:
        """What was logged so far."""
        return read_lines(self.log)

    def on_train_begin(self, args, state, control, **kwargs):
        # a killed run goes on from its checkpoint: what was logged after it comes again
        for path in (self.log, self.rollouts) if state.is_world_process_zero else ():
            kept = [row for row in read_lines(path) if row["step"] <= state.global_step]
            write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self.trainer.accelerator.wait_for_everyone()
        unmeasured = state.global_step == 0 and len(self.validation) and not self.rows()
        self.trainer.accelerator.wait_for_everyone()
        if unmeasured:
            self.add(state, self.measure())

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in logs:
            return
        row = {short: logs.get(name) for name, short in CURVES.items()}
        row["signal_share"] = 1 - logs["frac_reward_zero_std"]
        step, grpo = state.global_step, self.profile.grpo
        if len(self.validation) and (step % grpo.evaluate_every == 0 or step == state.max_steps):
            row |= self.measure()
            self.keep_best(step, row["accuracy"])
            control.should_training_stop |= self.collapsed(step, row["accuracy"])
        if step in self.keep_steps:
            save_weights(self.trainer, self.work / f"step{step}")
        self.add(state, row)
        if state.is_world_process_zero:
            self.print_progress(state, row)

    def print_progress(self, state, row: dict) -> None:
        step, seconds = state.global_step, self.seconds()
        left = seconds / step * (state.max_steps - step)
        shown = [key for key in ("reward", "signal_share", "accuracy") if key in row]
        measures = "".join(f", {key} {row[key]:.2f}" for key in shown)
        line = f"step {step}/{state.max_steps}{measures}, {seconds:.0f} s, {left:.0f} s to go"
        print(line, flush=True)

    def add(self, state, row: dict) -> None:
        """Append one row to the log."""
        if state.is_world_process_zero:
            row = {"step": state.global_step, "seconds": self.seconds(), **row}
            with open(self.log, "a") as file:
                file.write(json.dumps(row) + "\n")

    def measure(self) -> dict:
        """Greedy accuracy on the validation questions, and KL from the first policy (nats an
        answer).

        KL is the mean log-ratio of one sampled answer to each of KL_QUESTIONS validation questions.
        """
        greedy, sampled, prompts = self.answer()
        tokenizer = self.trainer.processing_class
        texts = [tokenizer.decode(done["ids"][0], skip_special_tokens=True) for done in greedy]
        questions = self.validation["question"].tolist()
        golds = [list(answers) for answers in self.validation["answers"]]

        judged = make_reward(self.profile.judge, self.validation)(questions, golds, texts)
        verdicts = [verdict for verdict in judged if verdict is not None]
        low, high = wilson(int(sum(verdicts)), len(verdicts))

        answers = [(prompt, done["ids"][0]) for prompt, done in zip(prompts, sampled, strict=False)]
        first = np.mean(answer_logprobs(self.reference, answers))
        kl = float(np.mean([done["logprob"][0] for done in sampled]) - first)
        share = sum(verdicts) / len(verdicts)
        measures = {"accuracy": share, "accuracy_low": low, "accuracy_high": high}
        return measures | {"n": len(verdicts), "kl": kl}

    def answer(self) -> tuple[list[dict], list[dict], list[list[int]]]:
        """(a greedy answer to each validation question, a sampled one to the first few, the
        prompts).

        The samples of a question are drawn by its own random numbers, the same at every evaluation.
        """
        length, rows = self.profile.sampling.max_new_tokens, self.profile.sampling.rows
        tokenizer = self.trainer.processing_class
        prompts = [render(tokenizer, direct(q)) for q in self.validation["question"]]
        some = self.validation["question_id"].head(KL_QUESTIONS)
        keys = [None] * len(prompts) + [crc32(question_id.encode()) for question_id in some]

        def draws(i):
            return None if keys[i] is None else np.random.default_rng(keys[i]).random((1, length))

        policy = make_policy(self.trainer.whole_model(), tokenizer)
        training = policy.model.training
        policy.model.eval()
        done = decode(policy, prompts + prompts[: len(some)], draws, length, rows)
        by_index = {answer["index"]: answer for answer in done}
        policy.model.train(training)

        ordered = [by_index[i] for i in range(len(keys))]
        return ordered[: len(prompts)], ordered[len(prompts) :], prompts

    def keep_best(self, step: int, accuracy: float) -> None:
        """Keep these weights when no earlier evaluation was as good."""
        earlier = [
            row["accuracy"] for row in self.rows() if "accuracy" in row and 0 < row["step"] < step
        ]
        if not earlier or accuracy > max(earlier):
            save_weights(self.trainer, self.work / "best", {"step": step, "accuracy": accuracy})

    def collapsed(self, step: int, accuracy: float) -> bool:
        """Whether this evaluation and the one before are below half of the best: training stops."""
        seen = [row["accuracy"] for row in self.rows() if "accuracy" in row and row["step"] < step]
        return len(seen) > 1 and max(accuracy, seen[-1]) < max(seen) / 2


def sharded(model) -> bool:
    """Whether each process holds a part of the weights only (FSDP2)."""
    return any(isinstance(p, DTensor) for p in model.parameters())


def save_weights(trainer, folder: Path, facts: dict | None = None) -> Path:
    """Write weights, tokenizer and `facts` as a folder that is whole or not there.

    All processes call it together; the first one writes.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded(model) else None
    if not trainer.is_world_process_zero():
        return folder

    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary, state_dict=state)
    trainer.processing_class.save_pretrained(temporary)
    write_text(temporary / "facts.json", json.dumps(facts or {}) + "\n")

    shutil.rmtree(folder, ignore_errors=True)
    os.rename(temporary, folder)
    return folder
