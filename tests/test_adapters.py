"""LoRA: gradients are TRL's with peft, the reference is the frozen policy, adapters come back."""

from copy import deepcopy

import pytest
import torch
from peft import LoraConfig

from lib.config import Lora, load_profile
from lib.engine.adapters import adapted, adapters_off, lora_config, plain_model
from lib.engine.models import load_policy, make_policy, merged_folder
from lib.engine.sampling import answer_logprobs
from lib.engine.trie import share_prefixes
from lib.prompts import direct, render
from lib.training import baselines, grpo
from lib.training.apart import read_log
from tests import test_examples, test_grpo, test_trainer
from tests.tiny import ANSWERS, QUESTIONS, tiny_policy, tiny_profile, with_grpo, word_tokenizer

LORA = Lora(rank=4, alpha=8)


@pytest.fixture
def policy(tmp_path):
    """A tiny policy that also lies in a folder."""
    tokenizer = word_tokenizer(ANSWERS)
    policy = tiny_policy(tokenizer, spread=0.1)
    policy.model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return load_policy(profile_of(tmp_path / "model"))


def profile_of(folder, **settings):
    profile = tiny_profile(load_profile("laptop"), **settings)
    return profile.model_copy(
        update={"lora": LORA, "model": "tiny", "models": {"tiny": str(folder)}}
    )


def adapter_gradients(kind, policy, profile, folder):
    """The gradients of the adapters in two steps, over the same answers."""
    torch.manual_seed(0)
    watch = test_trainer.Gradients(folder)
    watch.on_pre_optimizer_step = lambda args, state, control, model=None, **kwargs: (
        watch.steps.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    )
    # both matrices random: with peft's zeros half of the gradients would be zero
    random = LoraConfig(
        r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False,
        task_type="CAUSAL_LM",
    )  # fmt: skip

    def with_adapters(**options):
        return kind(**options, peft_config=random)

    trainer = test_trainer.make(with_adapters, policy, profile, folder, callbacks=[watch])
    if kind is test_trainer.Ours:
        share_prefixes(plain_model(trainer.model))
    assert trainer.ref_model is None
    trainer.train()
    return watch.steps


@pytest.mark.parametrize("kind", ["llama", "qwen2", "olmo2"])
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_gradients_are_those_of_trl_with_peft(tmp_path, kind, beta):
    policy = tiny_policy(word_tokenizer(ANSWERS), kind=kind, spread=0.1)
    profile = with_grpo(profile_of(tmp_path / "model"), beta=beta, skip_zero_variance=False)
    plain = adapter_gradients(test_trainer.Plain, policy, profile, tmp_path / "a")
    ours = adapter_gradients(test_trainer.Ours, policy, profile, tmp_path / "b")
    assert len(ours[0]) == len(plain[0]) == 2 * 7 * 2  # A and B of seven layers in two blocks
    assert all(gradient.norm() > 0 for gradient in plain[0])
    test_trainer.assert_close(ours[0], plain[0], 1e-4)
    test_trainer.assert_close(ours[1], plain[1], 1e-2)


def train(policy, folder, profile, steps=6):
    fresh = make_policy(deepcopy(policy.model), policy.tokenizer)
    sets = (QUESTIONS, QUESTIONS)
    return grpo.train_grpo(profile, *sets, folder, 0, steps, (2,), fresh), fresh


def logprobs(policy):
    prompts = [render(policy.tokenizer, direct(q)) for q in QUESTIONS["question"]]
    return answer_logprobs(policy, [(prompt, [5, 6]) for prompt in prompts])


def test_trained_adapters_come_back_merged(policy, tmp_path, monkeypatch):
    for module in ("grpo", "evaluation"):
        monkeypatch.setattr(f"lib.training.{module}.make_reward", test_grpo.holds_a_gold_answer)
    profile = profile_of(tmp_path / "model", evaluate_every=3)
    before = logprobs(policy)
    folder, trained = train(policy, tmp_path / "run", profile)
    for name in ("best", "last", "step2"):
        assert (folder / name / "adapter_model.safetensors").exists()
        assert not (folder / name / "model.safetensors").exists()
        assert adapted(folder / name)
    log = read_log(folder)
    assert log["kl"].iloc[0] == pytest.approx(0, abs=1e-5)
    assert abs(log["kl"].iloc[-1]) > 1e-4

    last = load_policy(profile, folder / "last")
    assert logprobs(trained) == pytest.approx(logprobs(last), abs=1e-4)  # the adapters are inside
    assert logprobs(last) != pytest.approx(before, abs=1e-3)
    weights = dict(policy.model.named_parameters())
    frozen = {k.replace(".base_layer", ""): v for k, v in trained.model.named_parameters()}
    assert all(torch.equal(weights[k], frozen[k]) for k in weights)

    whole = merged_folder(profile, folder / "last")
    assert logprobs(load_policy(profile, whole)) == pytest.approx(logprobs(last), abs=1e-6)
    assert merged_folder(profile, folder / "last") == whole

    # adapters upon adapters belong to the folder that they were trained on
    again, _ = train(last, tmp_path / "again", profile)
    assert adapted(again / "last") == str((folder / "last").resolve())
    chained = load_policy(profile, again / "last")
    assert logprobs(chained) != pytest.approx(logprobs(last), abs=1e-3)
    (folder / "last").rename(folder / "gone")
    with pytest.raises(FileNotFoundError, match="its adapters belong to .*last, which is not"):
        load_policy(profile, again / "last")


def test_an_interrupted_training_of_adapters_ends_the_same_to_the_bit(
    policy, tmp_path, monkeypatch
):
    profile = profile_of(tmp_path / "model")
    whole, _ = train(policy, tmp_path / "whole", profile, 4)
    with monkeypatch.context() as patch:
        patch.setattr(grpo.Evaluation, "on_pre_optimizer_step", test_grpo.interrupt_at(3))
        with pytest.raises(KeyboardInterrupt):
            train(policy, tmp_path / "broken", profile, 4)
    resumed, _ = train(policy, tmp_path / "broken", profile, 4)
    for name in ("last", "best", "step2"):
        one, two = (f / name / "adapter_model.safetensors" for f in (whole, resumed))
        assert one.read_bytes() == two.read_bytes(), name


@pytest.mark.parametrize("method", ["sft", "rft", "dpo"])
def test_the_baselines_train_adapters(tmp_path, method):
    tuning = load_profile("laptop").dpo.model_copy(
        update={"learning_rate": 0.01, "questions_per_step": 2, "micro_batch": 1}
    )
    tokenizer = word_tokenizer(" ".join(test_examples.SAMPLES["text"]) + " Switzerland")
    small = tiny_policy(tokenizer)
    small.model.save_pretrained(tmp_path / "small")
    tokenizer.save_pretrained(tmp_path / "small")
    profile = profile_of(tmp_path / "small").model_copy(update=dict.fromkeys((method,), tuning))
    small = load_policy(profile)
    before = logprobs(small)
    tables = (test_examples.SAMPLES, test_examples.GRADES) if method != "sft" else ()
    folder = baselines.tune(
        method, profile, test_examples.QUESTIONS, tmp_path / method, 0, 4, *tables
    )
    assert logprobs(load_policy(profile, folder / "last")) != pytest.approx(before, abs=1e-3)
    assert logprobs(load_policy(profile)) == before


def test_without_the_setting_nothing_changes():
    profile = load_profile("laptop")
    assert lora_config(profile) is None
    assert "lora" not in profile.model_dump()
    model = object()
    assert plain_model(model) is model
    with adapters_off(model):
        assert adapted(None) is None
