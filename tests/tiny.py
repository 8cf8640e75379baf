"""Tiny models and a tokenizer of whole words, made on the spot."""

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

from lib.engine.models import make_policy

TEMPLATE = (
    "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<s> assistant {% endif %}"
)
WORDS = (
    "Answer the question with a short answer only . Do not explain system user assistant "
    "where is Rome Lima Bern"
)
CONFIGS = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config, "olmo2": Olmo2Config}


def word_tokenizer(words: str) -> PreTrainedTokenizerFast:
    """Whole words, a chat template that adds nothing after a turn, and a padding token that is the
    end token.
    """
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


def tiny_policy(tokenizer, **settings):
    """A random Policy over the tokenizer's words."""
    return make_policy(tiny_model(vocabulary=len(tokenizer), **settings), tokenizer)
