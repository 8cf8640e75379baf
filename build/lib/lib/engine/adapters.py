"""LoRA (arXiv 2106.09685): small matrices beside frozen weights, trained in their place.

The frozen policy is the trained one with its adapters off, so a reference needs no second model. A
folder of trained adapters holds them alone; loading merges them into the weights they belong to.
"""

import contextlib
import json
from pathlib import Path

from peft import LoraConfig, PeftModel
from peft.utils import CONFIG_NAME

from lib.config import Profile


def lora_config(profile: Profile) -> LoraConfig | None:
    """peft's configuration of the profile's `lora`; None where all weights are trained."""
    lora = profile.lora
    if lora is None:
        return None
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,  # rollouts and scores would see different policies
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
    )


def plain_model(model):
    """The transformers model itself, with its adapters inside where it has some."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def adapters_off(model):
    """While it is open, a model with adapters is the frozen one; others are what they are."""
    return model.disable_adapter() if isinstance(model, PeftModel) else contextlib.nullcontext()


def adapted(folder: Path | str | None) -> str | None:
    """What the adapters in a folder belong to, a folder or a hub id; None without adapters.

    Raises FileNotFoundError where that folder has gone.
    """
    path = Path(folder or "") / CONFIG_NAME
    if folder is None or not path.exists():
        return None
    base = json.loads(path.read_text())["base_model_name_or_path"]
    if base.startswith("/") and not Path(base).exists():
        raise FileNotFoundError(f"{folder}: its adapters belong to {base}, which is not there")
    return base


def merge(model, folder: Path | str):
    """The model with the adapters of a folder added to its weights."""
    merged = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    # adapters that are trained on top of it belong to this folder
    merged.name_or_path = merged.config._name_or_path = str(Path(folder).resolve())
    return merged
