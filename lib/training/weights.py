"""Weights on their way to disk: gathered from all processes and written whole."""

import json
import os
import shutil
from pathlib import Path

from torch.distributed.tensor import DTensor

from lib.tables import write_text


def sharded(model) -> bool:
    """Whether each process holds only a part of the weights (FSDP2)."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def save_weights(trainer, folder: Path, facts: dict | None = None) -> None:
    """Write weights, tokenizer and `facts` as a folder that is whole or not there.

    All processes call this together; the first one writes.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded(model) else None
    if not trainer.is_world_process_zero():
        return

    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary, state_dict=state)
    trainer.processing_class.save_pretrained(temporary)
    write_text(temporary / "facts.json", json.dumps(facts or {}) + "\n")

    shutil.rmtree(folder, ignore_errors=True)
    os.rename(temporary, folder)
