"""What every training is watched by: its clock, its log, its checkpoints, and gradients that are
not finite.
"""

import json
import shutil
import time
from pathlib import Path

from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from lib.tables import write_text


class Watch(TrainerCallback):
    """Prints the log as lines, keeps the clock across restarts, stops at a broken update."""

    def __init__(self, name: str, work: Path):
        self.name, self.file, self.began = name, work / "seconds.json", time.monotonic()
        self.before = json.loads(self.file.read_text()) if self.file.exists() else 0.0

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            control.should_save = False  # the weights are written whole at once

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            write_text(self.file, json.dumps(self.seconds()))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and "loss" in logs:
            step = f"step {state.global_step}/{state.max_steps}"
            print(
                f"{self.name}: {step}, loss {float(logs['loss']):.3f}, {self.seconds():.0f} s",
                flush=True,
            )

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        if not all((g.to_local() if isinstance(g, DTensor) else g).isfinite().all() for g in grads):
            raise FloatingPointError(
                f"{self.name}: step {state.global_step + 1} has a gradient that is not finite"
            )


def last_checkpoint(work: Path) -> str | None:
    """The newest whole checkpoint in `work`, or None; one that a kill cut short is removed."""
    whole = None
    for path in sorted(work.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1])):
        try:
            json.loads((path / "trainer_state.json").read_text())  # TRL writes it last
            whole = str(path)
        except (OSError, ValueError):
            shutil.rmtree(path)
    return whole
