"""The memory plan: shapes, hand-counted bytes, refusals."""

import numpy as np
import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

from lib.config import Lora, load_profile
from lib.engine.adapters import lora_config
from lib.engine.trie import share_prefixes
from lib.study.memory import (
    GB,
    PROMPT,
    adapter_parameters,
    check_memory,
    launched,
    memory_need,
    peak,
    read_shape,
    shape_of,
)

SMALL = LlamaConfig(
    num_hidden_layers=3,
    hidden_size=32,
    intermediate_size=48,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=70,
)


def test_a_shape_is_that_of_the_model():
    shape = shape_of(SMALL)
    whole = AutoModelForCausalLM.from_config(SMALL)
    assert shape.parameters == sum(p.numel() for p in whole.parameters())
    assert (shape.layers, shape.key_heads, shape.width, shape.vocabulary) == (3, 2, 8, 70)


@pytest.mark.parametrize(
    ("run", "model", "billions"),
    [
        ("gpu", "qwen2.5-1.5b", 1.54),
        ("paper", "qwen2.5-7b", 7.62),
        ("paper", "llama3.1-8b", 8.03),
        ("paper", "olmo2-7b", 7.30),
    ],
)
def test_known_models_need_no_network_and_fit_their_profile(run, model, billions):
    profile = load_profile(run, model)
    shape = read_shape(profile.models[model])
    assert shape.parameters / 1e9 == pytest.approx(billions, abs=0.01)  # as their makers say
    card = {"gpu": 48, "paper": 80}[run]
    assert peak(memory_need(profile, shape), on_card=True) < card


def test_bytes_by_hand():
    profile = load_profile("laptop")
    shape = read_shape("wheel")
    need = memory_need(profile, shape).set_index(["phase", "part"])["gb"] * GB
    assert need["sampling", "weights"] == 4 * 134_515_008
    # 30 layers, keys and values of 3 heads of 64 in float32, 64 prefixes of 64 + 48 tokens
    assert need["sampling", "keys and values"] == 64 * (64 + 48) * 30 * 2 * 3 * 64 * 4
    assert need["training", "Adam"] == 8 * 134_515_008
    assert need["training", "reference"] == 0  # beta is 0


def test_the_weights_of_a_server_beside_the_policy_count():
    profile = load_profile("paper")  # its samples are vLLM's, its rollouts are not
    shape = read_shape(profile.models[profile.model])
    sampling = profile.sampling.model_copy(update={"backend": "engine"})
    grpo = profile.grpo.model_copy(update={"rollouts": "vllm"})
    other = profile.model_copy(update={"sampling": sampling, "grpo": grpo})
    here, there = (memory_need(p, shape).groupby("phase")["gb"].sum() for p in (profile, other))
    copy = 2 * shape.parameters / GB
    assert here["sampling"] - there["sampling"] == pytest.approx(copy)
    assert there["rollouts"] - here["rollouts"] == pytest.approx(copy)
    assert there["training"] == here["training"]


def test_what_a_launch_divides(monkeypatch):
    assert launched(load_profile("laptop")) == (1, False, False)
    profile = load_profile("paper")
    assert launched(profile) == (8, True, True)
    command = profile.launch.replace("fsdp2", "zero2")
    assert launched(profile.model_copy(update={"launch": command})) == (8, False, True)
    shape = read_shape(profile.models[profile.model])
    need = memory_need(profile, shape).set_index(["phase", "part"])["gb"]
    assert need["training", "Adam"] == pytest.approx(shape.parameters * 8 / 8 / GB)
    for name, value in {"JOB_ID": 7, "JOB_NUM_NODES": 2, "GPUS_ON_NODE": 2}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    assert launched(profile) == (4, True, True)


def test_what_does_not_fit_is_refused_with_what_to_do():
    profile = load_profile("laptop")
    shape = read_shape("wheel")
    assert "this machine has 16.0 GB" in check_memory(profile, shape, there=16.0, cards=False)
    with pytest.raises(MemoryError, match="lower grpo.micro_batch"):
        check_memory(profile, shape, there=2.0, cards=False)


def test_adapters_are_counted_as_peft_makes_them():
    lora = Lora(rank=5, alpha=10)
    profile = load_profile("laptop").model_copy(update={"lora": lora})
    made = get_peft_model(AutoModelForCausalLM.from_config(SMALL), lora_config(profile))
    trained = sum(p.numel() for p in made.parameters() if p.requires_grad)
    assert adapter_parameters(5, shape_of(SMALL)) == trained


def test_adapters_bring_7b_to_one_card():
    profile = load_profile("gpu", "qwen2.5-7b")
    shape = read_shape(profile.models["qwen2.5-7b"])
    assert peak(memory_need(profile, shape), on_card=True) > 140
    profile = profile.model_copy(update={"lora": Lora(rank=16, alpha=32)})
    assert peak(memory_need(profile, shape), on_card=True) < 80


def small(layers: int) -> LlamaConfig:
    return LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=64,
        intermediate_size=160,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=200,
    )


def kept_bytes(config, micro_batch: int, again: bool) -> int:
    """Bytes that autograd keeps of one micro-batch in the engine's packed pass."""
    model = share_prefixes(AutoModelForCausalLM.from_config(config)).train()
    if again:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(micro_batch // 5):
        prompt = rng.integers(0, 200, PROMPT).tolist()
        rows += [prompt + rng.integers(0, 200, 24).tolist() for _ in range(5)]
    ids = torch.tensor(rows)
    labels = ids.clone()
    labels[:, :PROMPT] = -100
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        mask = torch.ones_like(ids)
        out = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
    counted = sum(size for pointer, size in kept.items() if pointer not in weights)
    out.loss.backward()
    return counted


def planned_bytes(config, micro_batch: int, again: bool) -> float:
    """What the plan says of the same."""
    profile = load_profile("laptop")
    changed = {"micro_batch": micro_batch, "gradient_checkpointing": again}
    profile = profile.model_copy(update={"grpo": profile.grpo.model_copy(update=changed)})
    need = memory_need(profile, shape_of(config)).set_index(["phase", "part"])["gb"]
    return need["training", "activations"] * GB


@pytest.mark.parametrize("micro_batch", [20, 40])
def test_activations_are_those_that_autograd_keeps(micro_batch):
    planned = planned_bytes(small(4), micro_batch, False)
    assert planned == pytest.approx(kept_bytes(small(4), micro_batch, False), rel=0.2)


def test_of_layers_that_run_again_only_the_inputs_are_kept():
    counted, planned = (
        [work(small(layers), 40, True) for layers in (4, 8)] for work in (kept_bytes, planned_bytes)
    )
    assert planned[1] - planned[0] == pytest.approx(counted[1] - counted[0], rel=0.1)
    assert counted[1] < kept_bytes(small(8), 40, False) / 4
