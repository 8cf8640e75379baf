"""Tiny models, a tokenizer of whole words and questions for it, made on the spot."""

import pandas as pd
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    Olmo2Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from lib.config import Profile
from lib.engine.models import Policy, make_policy

TEMPLATE = (
    "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<s> assistant {% endif %}"
)
WORDS = (
    "Answer the question with a short answer only . Do not explain "
    "system user assistant where is Rome Lima Bern"
)
ANSWERS = "Italy Peru Switzerland Chile Spain"
QUESTIONS = pd.DataFrame({
    "question_id": ["q0", "q1", "q2", "q3", "q4", "q5"],
    "question": ["where is Rome", "where is Lima", "where is Bern",
                 "is Rome short", "is Lima a user", "where"],
    "answers": [["Italy"], ["Peru"], ["Switzerland"], ["is Italy"], ["Peru", "Chile"], ["Spain"]],
})  # fmt: skip
GROUP = 4  # answers of a question in a tiny GRPO training
CONFIGS = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config, "olmo2": Olmo2Config}


def word_tokenizer(words: str) -> PreTrainedTokenizerFast:
    """Whole words; the chat template adds nothing after a turn, padding is the end token."""
    known = ["[UNK]", "<s>", "</s>", *dict.fromkeys([*WORDS.split(), *words.split()])]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="</s>",
        pad_token="</s>",
        unk_token="[UNK]",
        additional_special_tokens=["<s>"],
        chat_template=TEMPLATE,
    )


def tiny_model(
    kind: str = "llama",
    vocabulary: int = 97,
    spread: float | None = None,
    seed: int = 0,
    **settings,
):
    """A random model of one architecture; `spread` is the standard deviation of every weight."""
    torch.manual_seed(seed)
    shape = dict(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
    )
    model = AutoModelForCausalLM.from_config(CONFIGS[kind](**shape | settings)).float().eval()
    for weight in model.parameters() if spread else ():
        torch.nn.init.normal_(weight, std=spread)
    return model


def tiny_policy(tokenizer, **settings) -> Policy:
    """A random Policy over the tokenizer's words."""
    return make_policy(tiny_model(vocabulary=len(tokenizer), **settings), tokenizer)


def with_grpo(profile: Profile, **settings) -> Profile:
    """The profile with other settings of its section `grpo`."""
    return profile.model_copy(update={"grpo": profile.grpo.model_copy(update=settings)})


def tiny_profile(profile: Profile, **settings) -> Profile:
    """The profile at the size of a tiny policy, with other settings of its section `grpo`."""
    sizes = dict(
        questions_per_step=4,
        num_generations=GROUP,
        micro_batch=8,
        learning_rate=0.01,
        steps=4,
        evaluate_every=2,
        save_every=2,
    )
    sampling = profile.sampling.model_copy(update={"max_new_tokens": 3, "rollout_tokens": 3})
    return with_grpo(profile.model_copy(update={"sampling": sampling}), **sizes | settings)
