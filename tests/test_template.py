"""Chat templates in the style of known families: what is rendered, and what ends a turn."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from lib.prompts import direct, render
from lib.template import DATE, TemplateError, describe, fit, stop_ids, turn_end

PLAIN = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<|stop|>{% endfor %}"
OPEN = "{% if add_generation_prompt %}[assistant]{% endif %}"
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    + PLAIN
    + OPEN
)
DROPS_SYSTEM = PLAIN.replace("messages", "messages if m['role'] != 'system'") + OPEN
ALTERNATES = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{{ m['content'] }}<|stop|>{% endfor %}"
)
THINKS = (
    PLAIN + "{% if add_generation_prompt %}[assistant]"
    "{% if enable_thinking is defined and not enable_thinking %}"
    "<think></think>{% endif %}{% endif %}"
)
ALWAYS_THINKS = PLAIN + "{% if add_generation_prompt %}[assistant]<think>{% endif %}"
TODAY = "Today is {{ strftime_now('%d %b %Y') }}." + PLAIN + OPEN
DATED = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "Today: {{ date_string }}." + PLAIN + OPEN
)
TEXT_END = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def byte_tokenizer(template: str | None, eos: str | None = "</s>") -> PreTrainedTokenizerFast:
    """Bytes and a few special tokens: every text comes back as it went in."""
    specials = ["</s>", "<|stop|>", "<s>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*specials, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    others = [token for token in specials if token != eos]
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=eos,
        chat_template=template,
        additional_special_tokens=others,
    )


def shown(template: str) -> str:
    tokenizer = byte_tokenizer(template)
    return tokenizer.decode(render(tokenizer, direct("Where is Rome?")))


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM, ALTERNATES])
def test_a_rule_without_a_role_stands_in_the_users_turn(template):
    text = shown(template)
    assert text.index("Do not explain.") < text.index("Where is Rome?")
    assert text.count("<|stop|>") == 1
    assert "user's turn" in describe(byte_tokenizer(template))


def test_a_template_with_a_system_role_stays_as_it_is():
    assert fit(byte_tokenizer(PLAIN + OPEN)).template == PLAIN + OPEN
    assert shown(PLAIN + OPEN).endswith("[user]Where is Rome?<|stop|>[assistant]")


def test_a_model_that_can_be_told_not_to_think_is_told():
    assert shown(THINKS).endswith("[assistant]<think></think>")


def test_a_model_that_always_thinks_is_refused_in_one_line():
    with pytest.raises(TemplateError, match="block of reasoning"):
        shown(ALWAYS_THINKS)


@pytest.mark.parametrize("template", [TODAY, DATED])
def test_the_date_is_pinned(template, monkeypatch):
    class Later(chat_template_utils.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 5, 6)

    first = shown(template)
    monkeypatch.setattr(chat_template_utils, "datetime", Later)
    assert shown(template) == first
    assert DATE in first


def test_the_turn_ends_as_the_template_says():
    tokenizer = byte_tokenizer(PLAIN + OPEN)
    assert turn_end(tokenizer) == tokenizer.convert_tokens_to_ids("<|stop|>")
    assert stop_ids(tokenizer) == {turn_end(tokenizer), tokenizer.eos_token_id}


def test_a_template_that_closes_no_turn_ends_with_the_end_of_text():
    tokenizer = byte_tokenizer(TEXT_END)
    assert turn_end(tokenizer) == tokenizer.eos_token_id


def test_nothing_that_ends_an_answer_is_refused():
    with pytest.raises(TemplateError, match="never end"):
        turn_end(byte_tokenizer(TEXT_END, eos=None))


def test_no_template_is_refused_by_name():
    with pytest.raises(TemplateError, match="no chat template"):
        fit(byte_tokenizer(None))


def test_the_fitted_template_renders_the_same_when_it_is_fitted_again():
    tokenizer = byte_tokenizer(DATED.replace("messages", "messages"))
    before = render(tokenizer, direct("Where is Rome?"))
    tokenizer.chat_template = fit(tokenizer).template
    assert render(tokenizer, direct("Where is Rome?")) == before
    assert fit(tokenizer).template == tokenizer.chat_template
