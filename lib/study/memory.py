"""What a run holds at once, counted from a model's shape: bytes of each phase, on one card.

The shape is read from `config.json`; the weights are not needed. For the paper's models it is known
here, so that a plan needs no network.
"""

import math
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from lib.config import PROFILES, Profile, load_profile
from lib.engine.families import key_heads
from lib.engine.linear import PACKED_MOST
from lib.engine.models import locate

GB = 2**30
PROGRAM = 0.9  # GB of Python and its packages
PROMPT = 64  # tokens of a prompt, its template included
FEWEST_ROWS = 64  # prefixes decoded together, below which decoding is slow
SPARE = 1.25  # allocators and what is not counted
# layers, hidden, inner, heads, key heads, head width, vocabulary, whether the embeddings are tied
KNOWN = {
    "Qwen/Qwen2.5-1.5B-Instruct": (28, 1536, 8960, 12, 2, 128, 151936, True),
    "Qwen/Qwen2.5-7B-Instruct": (28, 3584, 18944, 28, 4, 128, 152064, False),
    "meta-llama/Llama-3.1-8B-Instruct": (32, 4096, 14336, 32, 8, 128, 128256, False),
    "allenai/OLMo-2-1124-7B-Instruct": (32, 4096, 11008, 32, 32, 128, 100352, False),
}


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that decide on memory; parameters counts all weights."""

    layers: int
    hidden: int
    inner: int  # of the gated MLP
    heads: int
    key_heads: int
    width: int  # of a head
    vocabulary: int
    parameters: int


def read_shape(source: str) -> Shape:
    """The shape of a profile's model: as it is known here, or from its config.json.

    Raises OSError or ValueError where there is none.
    """
    name, revision = locate(source)
    if name not in KNOWN:
        return shape_of(AutoConfig.from_pretrained(name, revision=revision))
    *sizes, tied = KNOWN[name]
    layers, hidden, inner, heads, key_heads, width, vocabulary = sizes
    attention = hidden * width * (2 * heads + 2 * key_heads)
    weights = layers * (attention + 3 * hidden * inner) + (2 - tied) * vocabulary * hidden
    return Shape(*sizes, parameters=weights)  # norms and biases are a ten-thousandth


def shape_of(config) -> Shape:
    """The shape in a transformers configuration."""
    config = config.get_text_config()
    with torch.device("meta"):  # no memory is taken
        model = AutoModelForCausalLM.from_config(config)
    return Shape(
        config.num_hidden_layers,
        config.hidden_size,
        config.intermediate_size,
        config.num_attention_heads,
        *key_heads(config),
        config.vocab_size,
        sum(parameter.numel() for parameter in model.parameters()),
    )


def launched(profile: Profile) -> tuple[int, bool, bool]:
    """Processes of a training, whether its weights are divided, whether its gradients are.

    In a job of Slurm's the processes are the cards that it gave, as in nodes.sh.
    """
    found = re.search(r"--config_file (\S+)", profile.launch or "")
    if not found:
        return 1, False, False
    path = Path(found[1].replace("{profiles}", str(PROFILES)))
    settings = yaml.safe_load(path.read_text())
    kind = settings["distributed_type"]
    processes = settings["num_processes"]
    if "SLURM_JOB_ID" in os.environ and "nodes.sh" in profile.launch:
        given = ("SLURM_JOB_NUM_NODES", "SLURM_GPUS_ON_NODE")
        processes = math.prod(int(os.environ.get(name, 1)) for name in given)
    return processes, kind == "FSDP", kind in ("FSDP", "DEEPSPEED")


def memory_need(profile: Profile, shape: Shape) -> pd.DataFrame:
    """GB of each part in each phase, for one process: phase, part, gb.

    Phases: sampling (a policy answers), training (a micro-batch forward and backward), rollouts
    (the policy in training answers).
    """
    size = torch.finfo(getattr(torch, profile.dtype)).bits // 8
    answers = _answering(profile, shape, size, profile.sampling.max_new_tokens)
    rolled = _answering(profile, shape, 4, profile.sampling.rollout_tokens)
    trained = _held_in_training(profile, shape)
    weights, server = shape.parameters * size, profile.sampling.backend == "vllm"
    phases = {
        "sampling": {"weights": weights, **_server(weights, server), **answers},
        "training": trained | _activations(profile, shape),
        "rollouts": trained | _server(weights, profile.grpo.rollouts == "vllm") | rolled,
    }
    rows = [
        (phase, part, count / GB)
        for phase, parts in phases.items()
        for part, count in parts.items()
    ]
    return pd.DataFrame(rows, columns=["phase", "part", "gb"])


def _server(weights: int, there: bool) -> dict[str, int]:
    """Bytes of vLLM's own copy of the weights, which lies beside the policy's."""
    return {"vLLM's weights": weights} if there else {}


def _answering(profile: Profile, shape: Shape, size: int, tokens: int) -> dict[str, float]:
    """Bytes of decoding: keys and values of all rows, their logits twice, packed weights.

    Decoding takes fewer rows where memory is short, so that only some of them must fit.
    """
    rows = min(profile.sampling.rows, FEWEST_ROWS)
    entry = 2 * shape.layers * shape.key_heads * shape.width * size
    each = 2 if profile.sampling.bf16_products else size
    packed = each * (shape.parameters - shape.vocabulary * shape.hidden)
    return {
        "keys and values": rows * (PROMPT + tokens) * entry,
        "logits": 2 * rows * shape.vocabulary * 4,
        # on a CPU
        "packed weights": packed if profile.dtype == "float32" and packed <= PACKED_MOST else 0,
    }


def _held_in_training(profile: Profile, shape: Shape) -> dict[str, float]:
    """Bytes that a training holds from step to step.

    Without adapters weights, gradients and Adam's two moments are float32. With them the weights
    stay as they are, and what is trained is float32 beside them.
    """
    processes, weights, gradients = launched(profile)
    trained = adapter_parameters(profile.lora.rank, shape) if profile.lora else shape.parameters
    size = torch.finfo(getattr(torch, profile.dtype)).bits // 8
    held = size * shape.parameters + 4 * trained if profile.lora else 4 * trained
    copied, reference = weights, profile.grpo.beta and not profile.lora
    by_weights, by_gradients = (processes if divided else 1 for divided in (weights, gradients))
    return {
        "weights": held / by_weights,
        "gradients": 4 * trained / by_gradients,
        "Adam": 8 * trained / by_gradients,
        "reference": held / by_weights if reference else 0,
        "gathered copy": (2 if profile.grpo.bf16 else 4) * shape.parameters if copied else 0,
    }


def adapter_parameters(rank: int, shape: Shape) -> int:
    """Weights of LoRA's matrices on all linear layers of the blocks."""
    queries, keys = shape.heads * shape.width, shape.key_heads * shape.width
    attention = 2 * (shape.hidden + queries) + 2 * (shape.hidden + keys)
    return shape.layers * rank * (attention + 3 * (shape.hidden + shape.inner))


def _activations(profile: Profile, shape: Shape) -> dict[str, float]:
    """Bytes that one micro-batch keeps for its backward pass: a prompt is run once for its group.

    A layer keeps eight vectors of the hidden size for each token, what attention reads and gives,
    twice, and four of the MLP; a group keeps its attention mask.
    """
    grpo, size = profile.grpo, 2 if profile.grpo.bf16 else 4
    groups = max(1, grpo.micro_batch // grpo.num_generations)
    answers = grpo.num_generations * profile.sampling.rollout_tokens  # tokens of a group
    attention = shape.width * (2 * shape.heads + 2 * shape.key_heads)
    token = 8 * shape.hidden + 2 * attention + 4 * shape.inner
    mask = shape.heads / shape.key_heads * answers * (PROMPT + answers)
    kept = groups * ((PROMPT + answers) * token + mask)
    if grpo.gradient_checkpointing:  # each layer's input, and all of the layer that is run again
        inputs = groups * (PROMPT + answers) * shape.hidden
        return {"activations": (shape.layers * inputs + kept) * size}
    return {"activations": shape.layers * kept * size}


def peak(need: pd.DataFrame, on_card: bool) -> float:
    """GB of the phase that needs most; beside it, off a card, the program itself."""
    most = float(need.groupby("phase")["gb"].sum().max())
    return SPARE * most + (0 if on_card else PROGRAM)


def check_memory(
    profile: Profile, shape: Shape, there: float | None = None, cards: bool | None = None
) -> str:
    """One line on need and memory. Raises MemoryError, saying what to do, where it does not fit.

    there: GB of this machine, or of its smallest card where it has cards.
    """
    cards = torch.cuda.is_available() if cards is None else cards
    there = there or _memory_here()
    need = memory_need(profile, shape)
    gb, where = peak(need, cards), "a card" if cards else "this machine"
    most = need.groupby("phase")["gb"].sum().idxmax()
    said = f"about {gb:.1f} GB at its height ({most}); {where} has {there:.1f} GB"
    if gb > there:
        raise MemoryError(
            f"{said}; lower grpo.micro_batch in the profile, take a smaller model, or divide the "
            "training over cards (launch)"
        )
    return said


def _memory_here() -> float:
    """GB of the smallest card, or of the machine, or of a smaller limit on this process group."""
    if torch.cuda.is_available():
        cards = range(torch.cuda.device_count())
        return min(torch.cuda.get_device_properties(i).total_memory for i in cards) / GB
    limits = [psutil.virtual_memory().total]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container
        path = Path("/sys/fs/cgroup") / name
        if path.exists() and path.read_text().strip().isdigit():
            limits.append(int(path.read_text()))
    return min(limits) / GB


def main() -> None:
    try:
        profile = load_profile(*sys.argv[1:])
        check_memory(profile, read_shape(profile.models[profile.model]))
    except (ValueError, OSError, MemoryError) as error:
        sys.exit(f"memory: {' '.join(str(error).split())}")


if __name__ == "__main__":  # make asks before it starts: run, model, dataset
    main()
