"""What the engine is timed against: stock models, stock trainers, and a clock of their steps."""

import copy
import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback
from trl import GRPOTrainer

from lib.engine.models import locate
from lib.training.trainer import SharedPrefixGRPO


class Given:
    """Completions that were drawn before, so that only the update is timed."""

    completions: list[list[int]]

    def _generate_single_turn(
        self, prompt_ids, images, multimodal_fields, num_generations=1, **kwargs
    ):
        return self.completions, None


class OursGiven(Given, SharedPrefixGRPO):
    pass


class StockGiven(Given, GRPOTrainer):
    pass


class Clock(TrainerCallback):
    """Seconds of every step, from its first forward to after the optimizer."""

    def __init__(self):
        self.seconds = []

    def on_step_begin(self, *args, **kwargs):
        self.began = time.perf_counter()

    def on_step_end(self, *args, **kwargs):
        self.seconds.append(time.perf_counter() - self.began)


def stock(model):
    """A copy of the model as transformers makes it: its own attention and linear layers."""
    plain = AutoModelForCausalLM.from_config(
        copy.deepcopy(model.config), dtype=model.dtype, attn_implementation="sdpa"
    )
    plain.load_state_dict(model.state_dict())
    plain.generation_config = copy.deepcopy(model.generation_config)
    return plain.to(model.device).eval()


def random_model(shape: str, policy):
    """A model of random weights: a model folder, a hub id, or `7b` for Qwen2.5-7B's shape.

    Speed needs no trained weights. Ends with the small model's end-of-text token, so that its
    prompts do.
    """
    if shape == "7b":
        config = AutoConfig.for_model(
            "qwen2",
            hidden_size=3584,
            intermediate_size=18944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
            vocab_size=152064,
            tie_word_embeddings=False,
            rope_theta=1e6,
        )
    else:
        name, revision = locate(shape)
        config = AutoConfig.from_pretrained(name, revision=revision)
    with torch.device(policy.device):
        model = AutoModelForCausalLM.from_config(config, dtype=policy.model.dtype).eval()
    model.generation_config = copy.deepcopy(policy.model.generation_config)
    return model
