"""Evaluation in the course of a training: accuracy, KL, the log, the weights worth keeping.

One rule for every trained method: the weights with the best validation accuracy are kept.
"""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
from accelerate.utils import broadcast_object_list

from lib.config import Profile
from lib.engine.adapters import adapters_off
from lib.engine.decoding import decode
from lib.engine.models import make_policy
from lib.engine.sampling import answer_logprobs
from lib.judge.grading import make_reward
from lib.metrics import wilson
from lib.processes import release_memory
from lib.prompts import direct, render
from lib.tables import write_text
from lib.training.apart import read_lines
from lib.training.watch import Watch, give_back
from lib.training.weights import copy_weights, save_weights, saved_step, whole_model

CURVES = {  # column of the log: TRL's name
    "reward": "reward",
    "length": "completions/mean_length",
    "entropy": "rollout_entropy",
    "vllm_difference": "sampling/sampling_logp_difference/mean",  # nats a token, of its rollouts
    "signal_share": "signal_share",
    "grad_norm": "grad_norm",
    "loss": "loss",
}  # a method without rollouts has the last two
PRINT_EVERY = 4  # steps
KL_QUESTIONS = 16  # validation questions whose sampled answers give the KL


class Evaluation(Watch):
    """Greedy validation accuracy and KL every few steps, the log, the best weights, early stopping.

    Every process evaluates, since all of them gather sharded weights together; the first one
    writes. `trainer` and `reference` (it gives the first policy; without one there is no KL, and
    that policy is not measured) are set when the trainer is built.
    """

    def __init__(
        self,
        folder: Path,
        profile: Profile,
        validation: pd.DataFrame,
        keep_steps: tuple[int, ...] = (),
        method: str = "grpo",
    ):
        super().__init__(method, folder / "work")
        self.folder = folder
        self.profile = profile
        self.validation = validation
        self.keep_steps = keep_steps
        self.log = folder / "log.jsonl"
        self.rollouts = folder / "rollouts.jsonl"
        self.prompt = direct
        self.trainer = None
        self.reference = None

    def on_train_begin(self, args, state, control, **kwargs):
        """Forget what was logged after the checkpoint; measure the first policy, once."""
        for path in (self.log, self.rollouts) if state.is_world_process_zero else ():
            rows = [row for row in read_lines(path) if row["step"] <= state.global_step]
            write_text(path, "".join(json.dumps(row) + "\n" for row in rows))

        if state.is_world_process_zero:
            self.go_back(state.global_step)
        # nobody reads the log before it is cut, nobody adds to it before everybody has read it
        self.trainer.accelerator.wait_for_everyone()
        unmeasured = state.global_step == 0 and self.reference and not read_lines(self.log)
        self.trainer.accelerator.wait_for_everyone()
        if unmeasured:
            self.add_row(state, self.measure())

    def on_save(self, args, state, control, **kwargs):
        """Keep the best weights of this checkpoint, under a second name."""
        super().on_save(args, state, control, **kwargs)
        if state.is_world_process_zero and (self.folder / "best").exists():
            copy_weights(self.folder / "best", self.folder / "work" / "best")

    def go_back(self, step: int) -> None:
        """Take the best weights of the checkpoint where those of now were found after it.

        What follows a checkpoint is not always repeated to the bit: of a course that is left there
        must be no weights.
        """
        best, kept = self.folder / "best", self.folder / "work" / "best"
        found = saved_step(best)  # None as well where a kill came while they were replaced
        if found is not None and found <= step:
            return
        shutil.rmtree(best, ignore_errors=True)
        kept_step = saved_step(kept)
        if kept_step is not None and kept_step <= step:
            copy_weights(kept, best)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """One row of the log per step, with an evaluation where one is due."""
        if "loss" not in logs:
            return
        row = {column: logs[name] for column, name in CURVES.items() if name in logs}

        step, last = state.global_step, state.max_steps
        due = step % self.profile.grpo.evaluate_every == 0 or step == last
        if len(self.validation) and due:
            row |= self.measure()
            best, collapsed = self.agreed(partial(self.decide, step, row["accuracy"]))
            if best:
                facts = {"step": step, "accuracy": row["accuracy"]}
                save_weights(self.trainer, self.folder / "best", facts)
            control.should_training_stop |= collapsed
        if step in self.keep_steps:
            save_weights(self.trainer, self.folder / f"step{step}")

        self.add_row(state, row)
        if state.is_world_process_zero:
            self.print_row(step, last, row)

    def add_row(self, state, row: dict) -> None:
        """Append one row to the log."""
        if state.is_world_process_zero:
            row = {"step": state.global_step, "seconds": self.seconds(), **row}
            with open(self.log, "a") as file:
                file.write(json.dumps(row) + "\n")

    def print_row(self, step: int, last: int, row: dict) -> None:
        """One line for the reader of the notebook, with the seconds that are left."""
        columns = [c for c in ("loss", "reward", "signal_share", "accuracy") if c in row]
        if step % PRINT_EVERY and step != last and "accuracy" not in row:
            return
        values = "".join(f", {column} {row[column]:.2f}" for column in columns)
        seconds = self.seconds()
        left = seconds / step * (last - step)
        about = f"{self.method}: step {step}/{last}{values}"
        print(f"{about}, {seconds:.0f} s, {left:.0f} s to go", flush=True)

    def measure(self) -> dict:
        """accuracy, accuracy_low, accuracy_high (Wilson), n; with a reference kl (nats, answer)."""
        tokenizer = self.trainer.processing_class
        prompts = [render(tokenizer, self.prompt(q)) for q in self.validation["question"]]
        give_back()  # what the updates left, then what the answers left
        greedy, sampled = self.answers(prompts)
        give_back()
        row = self.agreed(partial(self.accuracy, greedy))
        return row | {"kl": self.kl(prompts, sampled)} if self.reference else row

    def agreed(self, work: Callable):
        """What `work` gives in the first process, told to all.

        A judge may say one thing to one process and another to the next; each would save and stop
        by itself, and wait for the others for ever.
        """
        box = [work() if self.trainer.accelerator.is_main_process else None]
        return broadcast_object_list(box)[0]

    def answers(self, prompts: list[list[int]]) -> tuple[list[dict], list[dict]]:
        """A greedy answer to each prompt, and a sampled one to each of the first KL_QUESTIONS.

        Both are records of lib.engine.decoding. A question's sample has the same random numbers at
        every evaluation.
        """
        sampling = self.profile.sampling
        length = sampling.max_new_tokens
        ids = self.validation["question_id"].head(KL_QUESTIONS if self.reference else 0)
        keys = [None] * len(prompts) + [crc32(question_id.encode()) for question_id in ids]

        def draws(i):
            return None if keys[i] is None else np.random.default_rng(keys[i]).random((1, length))

        policy = make_policy(whole_model(self.trainer), self.trainer.processing_class)
        every = prompts + prompts[: len(ids)]
        release_memory(collect=False)  # answers and updates ask for pieces of other sizes
        records = decode(policy, every, draws, length, sampling.rows)
        records = sorted(records, key=lambda record: record["index"])
        release_memory(collect=False)
        return records[: len(prompts)], records[len(prompts) :]

    def accuracy(self, greedy: list[dict]) -> dict:
        """The share of right greedy answers, its Wilson interval, and n: answers with a verdict."""
        tokenizer = self.trainer.processing_class
        texts = [tokenizer.decode(r["ids"][0], skip_special_tokens=True) for r in greedy]
        questions = self.validation["question"].tolist()
        golds = [list(answers) for answers in self.validation["answers"]]

        rewards = make_reward(self.profile.judge, self.validation)(questions, golds, texts)
        verdicts = [reward for reward in rewards if reward is not None]
        hits, n = sum(verdicts), len(verdicts)
        low, high = wilson(int(hits), n)
        return {"accuracy": hits / n, "accuracy_low": low, "accuracy_high": high, "n": n}

    def kl(self, prompts: list[list[int]], sampled: list[dict]) -> float:
        """KL from the first policy: mean log-ratio of the sampled answers, in nats per answer."""
        pairs = [(prompts[i], record["ids"][0]) for i, record in enumerate(sampled)]
        now = [record["logprob"][0] for record in sampled]
        with adapters_off(self.trainer.accelerator.unwrap_model(self.trainer.model)):
            first = answer_logprobs(self.reference(), pairs)
        return float(np.mean(now) - np.mean(first))

    def accuracies(self, first: int, step: int) -> list[float]:
        """Accuracy of the logged evaluations from step `first` to before `step`."""
        rows = [row for row in read_lines(self.log) if first <= row["step"] < step]
        return [row["accuracy"] for row in rows if "accuracy" in row]

    def decide(self, step: int, accuracy: float) -> tuple[bool, bool]:
        """Whether these weights are the best since step 1, and whether training has collapsed.

        It has where this evaluation and the one before are below half of the best.
        """
        trained, every = self.accuracies(1, step), self.accuracies(0, step)
        best = not trained or accuracy > max(trained)
        return best, len(every) > 1 and max(accuracy, every[-1]) < max(every) / 2
