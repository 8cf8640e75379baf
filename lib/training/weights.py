"""Weights on their way to disk: gathered from all processes and written whole."""

import json
import os
import shutil
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from lib.engine.adapters import plain_model
from lib.engine.trie import use_layouts
from lib.tables import load_json, write_text


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


def saved_step(folder: Path) -> int | None:
    """The step whose weights a folder of `save_weights` holds; None where there are none."""
    facts = folder / "facts.json"
    return load_json(facts).get("step") if facts.exists() else None


def link(source: str, target: str) -> None:
    """The same file under a second name, or a copy where the disk has no such names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def copy_weights(source: Path, target: Path) -> None:
    """The folder of weights in place of another one, whole or not there; both share their files."""
    temporary = target.with_name(target.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary, copy_function=link)
    shutil.rmtree(target, ignore_errors=True)
    os.rename(temporary, target)


def publish(trainer, watch, budget: dict) -> None:
    """Save the last weights, write the budget, which says: finished, and drop the checkpoints.

    watch: the training's lib.training.evaluation.Evaluation. Where the best weights are the last
    ones, both folders share their files.
    """
    trainer.accelerator.wait_for_everyone()  # the first process may still write the best ones
    best, last, step = watch.folder / "best", watch.folder / "last", trainer.state.global_step
    shared = saved_step(best) == step
    if not shared:
        save_weights(trainer, last, {"step": step})
    if trainer.is_world_process_zero():
        if shared:
            copy_weights(best, last)
        write_text(watch.folder / "budget.json", json.dumps(budget, indent=1) + "\n")
        shutil.rmtree(watch.folder / "work", ignore_errors=True)  # after it: a kill loses nothing
    trainer.accelerator.wait_for_everyone()


def whole_model(trainer):
    """The model that decodes; all processes must call this together.

    It is the trained model itself, or, where FSDP2 gives each process a part of the weights, a copy
    of the whole weights as they are now.
    """
    unwrapped = trainer.accelerator.unwrap_model(trainer.model)
    model = plain_model(unwrapped)
    if not sharded(model):
        return model
    if model is not unwrapped:
        raise ValueError("`lora` trains on one card or under DDP; divided weights are not merged")

    if getattr(trainer, "_whole", None) is None:
        # made in its precision, not cast to it: rotary frequencies stay float32
        dtype = torch.bfloat16 if trainer.args.bf16 else torch.float32
        whole = AutoModelForCausalLM.from_config(model.config, dtype=dtype)
        whole.generation_config = model.generation_config  # answers end where they ended before
        trainer._whole = whole.to(trainer.accelerator.device).eval()
        use_layouts(trainer._whole)

    with torch.no_grad():
        for whole, part in zip(trainer._whole.parameters(), model.parameters(), strict=True):
            whole.copy_(part.full_tensor())
    return trainer._whole
