"""What every training has beside its updates: a clock, a log, checkpoints, a check of gradients."""

import json
import shutil
import time
from pathlib import Path

import psutil
import torch
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from lib.processes import release_memory
from lib.tables import load_json, write_text

KEPT_GB = 3.5  # held by a training (2**30 bytes)


def give_back() -> None:
    """Give unused memory back where a training on the CPU holds more than KEPT_GB.

    Answers and updates ask for pieces of other sizes: a heap that keeps all grows by a half, one
    that keeps nothing costs a twentieth of the time.
    """
    on_card = torch.cuda.is_available()  # where every step would empty the card's allocator
    if not on_card and psutil.Process().memory_info().rss > KEPT_GB * 2**30:
        release_memory(collect=False)


class Watch(TrainerCallback):
    """Prints the log as lines, keeps the clock across restarts, stops before a broken update."""

    def __init__(self, method: str, work: Path):
        """method: the word that begins each line; work: the folder of the checkpoints."""
        self.method = method
        self.clock = work / "seconds.json"
        self.earlier = load_json(self.clock) if self.clock.exists() else 0.0
        self.started = time.monotonic()

    def seconds(self) -> float:
        """Seconds of training so far, with those before a restart from a checkpoint."""
        return self.earlier + time.monotonic() - self.started

    def on_step_begin(self, args, state, control, **kwargs):
        give_back()

    def on_step_end(self, args, state, control, **kwargs):
        """No checkpoint after the last step: the weights are written whole at once."""
        if state.global_step >= state.max_steps:
            control.should_save = False

    def on_save(self, args, state, control, **kwargs):
        """The clock is written with each checkpoint."""
        if state.is_world_process_zero:
            write_text(self.clock, json.dumps(self.seconds()))

    def on_log(self, args, state, control, logs=None, **kwargs):
        """One printed line per logged step."""
        if state.is_world_process_zero and "loss" in logs:
            step = f"step {state.global_step}/{state.max_steps}"
            loss = f"loss {float(logs['loss']):.3f}"
            print(f"{self.method}: {step}, {loss}, {self.seconds():.0f} s", flush=True)

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        """Raise FloatingPointError before an update by a gradient that is not finite.

        It is difference 8) from TRL in lib.training.grpo.
        """
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        parts = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
        if not all(part.isfinite().all() for part in parts):
            raise FloatingPointError(
                f"{self.method}: step {state.global_step + 1} has a gradient that is not finite"
            )


def last_checkpoint(work: Path) -> str | None:
    """The newest whole checkpoint in `work`, or None; one that a kill cut short is removed."""
    whole = None
    for path in sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1])):
        try:
            json.loads((path / "trainer_state.json").read_text())  # TRL writes it last
            whole = str(path)
        except (FileNotFoundError, ValueError):  # every process looks, one removes
            shutil.rmtree(path, ignore_errors=True)
    return whole
