"""Loading a policy, what is refused, and the exact prompts."""

import pytest
import torch

from lib.config import load_profile
from lib.engine import models
from lib.engine.models import load_policy, locate, make_policy, wheel_weights
from lib.prompts import (
    CHAIN_OF_THOUGHT_RULE,
    DIRECT_RULE,
    chain_of_thought,
    cot_answer,
    direct,
    few_shot,
    render,
)
from tests.tiny import WORDS, tiny_model, tiny_policy, word_tokenizer


@pytest.fixture
def tokenizer():
    return word_tokenizer(WORDS)


def test_a_local_folder_is_a_model(tokenizer, tmp_path):
    saved = tiny_policy(tokenizer)
    saved.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    own = {"model": "mine", "models": {"mine": str(tmp_path)}}

    loaded = load_policy(load_profile("laptop").model_copy(update=own))
    assert loaded.stops == {tokenizer.eos_token_id}
    assert loaded.model.dtype == torch.float32
    ids = torch.tensor([[1, 5, 7]])
    assert torch.equal(loaded.model(ids).logits, saved.model(ids).logits)


def test_where_a_model_is_and_what_is_refused(tmp_path):
    assert locate("owner/name@abc") == ("owner/name", "abc")
    for source in ("owner/name", "name@abc", "owner/name@", ""):
        with pytest.raises(ValueError, match="owner/name@revision"):
            locate(source)

    with pytest.raises(FileNotFoundError, match="needs config.json and"):
        locate(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_text("a pickle")
    with pytest.raises(FileNotFoundError, match="safetensors"):
        locate(str(tmp_path))


def test_weights_that_are_missing_or_not_the_known_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="run `make weights`"):
        wheel_weights()

    class Spec:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr(models, "find_spec", lambda name: Spec)
    (tmp_path / models.WEIGHTS).write_bytes(b"something else")
    with pytest.raises(ValueError, match="sha256 is .*reinstall"):
        wheel_weights()
    assert not list((tmp_path / "cache").rglob("done"))


def test_end_of_turn_comes_from_model_and_tokenizer(tokenizer):
    model = tiny_model(vocabulary=len(tokenizer))
    model.generation_config.eos_token_id = [2, 9]
    assert make_policy(model, tokenizer).stops == {2, 9}

    model.generation_config.eos_token_id = tokenizer.eos_token = None
    assert make_policy(model, tokenizer).stops == {2}  # the template closes a turn with it
    model.generation_config.eos_token_id = None
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    with pytest.raises(ValueError, match="no end-of-text token"):
        make_policy(model, tokenizer)


def test_a_missing_pad_token_is_the_end_token(tokenizer):
    tokenizer.pad_token = None
    policy = make_policy(tiny_model(vocabulary=len(tokenizer)), tokenizer)
    assert policy.tokenizer.pad_token == "</s>"


def test_prompts_are_rendered_as_written(tokenizer):
    assert direct("where is Rome")[1] == {"role": "user", "content": "where is Rome"}
    text = tokenizer.decode(render(tokenizer, direct("where is Rome")))
    rule = DIRECT_RULE.replace(".", " .").strip()
    assert text == f"<s> system {rule} </s> <s> user where is Rome </s> <s> assistant"
    assert chain_of_thought("x")[0]["content"] == CHAIN_OF_THOUGHT_RULE


def test_templates_that_would_spoil_the_prompt_are_refused(tokenizer):
    tokenizer.bos_token = "<s>"
    tokenizer.chat_template = "<s> " + tokenizer.chat_template
    with pytest.raises(ValueError, match="begins with two '<s>'"):
        render(tokenizer, direct("where"))

    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        render(tokenizer, direct("where"))


@pytest.mark.parametrize(
    "text, answer",
    [
        ("Paris is in France.\nAnswer: France", "France"),
        ("Answer: no\nwait, Answer: Peru. ", "Peru."),
        ("the ANSWER is: 7", "7"),
        ("Answer:", None),
        ("no such line", None),
        ("", None),
    ],
)
def test_the_answer_of_a_chain_of_thought(text, answer):
    assert cot_answer(text) == answer


@pytest.mark.weights
def test_the_small_model_s_prompt():
    try:
        tokenizer = load_policy(load_profile("laptop")).tokenizer
    except FileNotFoundError:
        pytest.skip("needs the small model: make weights")
    assert tokenizer.decode(render(tokenizer, direct("Where is Lima?"))) == (
        f"<|im_start|>system\n{DIRECT_RULE}<|im_end|>\n"
        "<|im_start|>user\nWhere is Lima?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_few_shot_examples_come_before_the_question():
    prompt = few_shot({"where is Rome": [("where is Lima", "Peru")]})
    turns = [(turn["role"], turn["content"]) for turn in prompt("where is Rome")]
    assert turns == [
        ("system", DIRECT_RULE), ("user", "where is Lima"), ("assistant", "Peru"),
        ("user", "where is Rome"),
    ]  # fmt: skip


def test_attention_that_plans_for_every_shape_is_off():
    torch.backends.cuda.enable_cudnn_sdp(True)
    tiny_policy(word_tokenizer("a b"))
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
