"""The training baselines: loss, budgets, resuming to the bit, finished weights left alone."""

import json
from copy import deepcopy

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from lib.config import Tuning, load_profile
from lib.engine.models import make_policy
from lib.engine.trie import share_prefixes
from lib.training import baselines as tuning
from lib.training.apart import finished, read_log
from lib.training.examples import completion_dataset, encode, sft_rows
from tests.test_examples import GRADES, QUESTIONS, SAMPLES
from tests.tiny import tiny_policy, word_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer(" ".join(SAMPLES["text"]) + " Switzerland")


@pytest.fixture
def policy(tokenizer):
    return tiny_policy(tokenizer)


@pytest.fixture
def profile():
    settings = Tuning(
        learning_rate=0.01, questions_per_step=2, micro_batch=1, samples_per_question=2
    )
    pairs = settings.model_copy(update={"beta": 0.1})
    sections = {"sft": settings, "rft": settings, "dpo": pairs}
    return load_profile("laptop").model_copy(update=sections | {"dtype": "float32"})


def test_the_loss_is_the_mean_over_answer_tokens_only(profile, policy, tokenizer, tmp_path):
    data = completion_dataset(sft_rows(QUESTIONS), tokenizer)
    sizes = Tuning(learning_rate=0.1, questions_per_step=4, micro_batch=4)
    trainer = tuning.SFTTrainer(
        model=policy.model,
        args=tuning.SFTConfig(**tuning.settings(profile, sizes, tmp_path, 0, 1)),
        train_dataset=data,
        processing_class=tokenizer,
    )
    share_prefixes(trainer.model)
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(list(data)))

    losses = []
    for row in data:
        logits = policy.model(torch.tensor([row["input_ids"]])).logits[0]  # (tokens, vocabulary)
        for at in (-2, -1):  # the answer is one word and the end of text
            target = torch.tensor([row["input_ids"][at]])
            losses.append(F.cross_entropy(logits[at - 1][None], target).item())
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_sft_learns_the_answers_and_reports_its_budget(profile, policy, tmp_path):
    folder = tuning.tune(
        "sft", profile, QUESTIONS, tmp_path / "sft", seed=0, steps=8, policy=policy
    )
    budget = json.loads((folder / "budget.json").read_text())
    assert (budget["examples"], budget["steps"], budget["tokens_trained"]) == (3, 8, 24)
    assert budget["seconds"] > 0

    tuned = AutoModelForCausalLM.from_pretrained(folder / "last")
    prompt, _ = encode(policy.tokenizer, "where is Rome", "Italy")
    _, answers = encode(policy.tokenizer, "", "Italy Peru Switzerland")
    assert tuned(torch.tensor([prompt])).logits[0, -1].argmax() in answers
    assert not list(folder.rglob("*.bin"))
    assert not (folder / "work").exists()
    log = read_log(folder)
    assert log["step"].tolist() == list(range(1, 9))
    assert not (folder / "best").exists()  # without validation there is nothing to choose by


def test_the_best_weights_on_validation_are_kept(profile, policy, tmp_path):
    asked = QUESTIONS[QUESTIONS["split"] == "test"].assign(split="validation")
    questions = pd.concat([QUESTIONS, asked], ignore_index=True)
    profile = profile.model_copy(
        update={"grpo": profile.grpo.model_copy(update={"evaluate_every": 3})}
    )
    folder = tuning.tune("sft", profile, questions, tmp_path / "sft", 0, steps=8, policy=policy)
    evaluated = read_log(folder).dropna(subset="accuracy")
    assert evaluated["step"].tolist() == [3, 6, 8]
    best = json.loads((folder / "best" / "facts.json").read_text())
    assert best["accuracy"] == evaluated["accuracy"].max()


@pytest.mark.parametrize("method", ["rft", "dpo"])
def test_rft_and_dpo_raise_right_answers_over_wrong_ones(method, profile, policy, tmp_path):
    def margin(model):
        """How much likelier the right answer is than the wrong one, in nats."""
        scores = []
        for text in ("Italy", "Spain"):
            prompt, answer = encode(policy.tokenizer, "where is Rome", text)
            logits = model(torch.tensor([prompt])).logits[0, -1]  # (vocabulary,)
            scores.append(logits.log_softmax(-1)[answer[0]].item())
        return scores[0] - scores[1]

    before = margin(policy.model)
    tables = (SAMPLES, GRADES)
    folder = tuning.tune(method, profile, QUESTIONS, tmp_path / method, 0, 8, *tables, policy)
    assert margin(AutoModelForCausalLM.from_pretrained(folder / "last")) > before + 0.5
    budget = json.loads((folder / "budget.json").read_text())
    assert budget["examples"] == {"rft": 3, "dpo": 2}[method]


def interrupt_at(step):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == step:
            raise KeyboardInterrupt

    return on_step_end


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_an_interrupted_training_ends_with_the_same_weights_to_the_bit(
    method, profile, policy, tmp_path, monkeypatch
):
    tables = (None, None) if method == "sft" else (SAMPLES, GRADES)
    config = deepcopy(policy.model.config)
    start = deepcopy(policy.model.state_dict())

    def train(name):
        model = LlamaForCausalLM(deepcopy(config))  # TRL writes into a model's config
        model.load_state_dict(start)
        fresh = make_policy(model, policy.tokenizer)
        return tuning.tune(method, profile, QUESTIONS, tmp_path / name, 0, 8, *tables, fresh)

    whole = train("whole")
    monkeypatch.setattr(tuning, "SAVE_STEPS", 2)
    monkeypatch.setattr(tuning.Evaluation, "on_step_end", interrupt_at(3))
    with pytest.raises(KeyboardInterrupt):
        train("broken")
    assert not finished(tmp_path / "broken")

    monkeypatch.undo()
    assert tuning.last_checkpoint(tmp_path / "broken" / "work").endswith("checkpoint-2")
    resumed = train("broken")
    one, two = (folder / "last" / "model.safetensors" for folder in (whole, resumed))
    assert one.read_bytes() == two.read_bytes()


def test_finished_weights_are_left_as_they_are(profile, tmp_path):
    folder = tmp_path / "sft"
    folder.mkdir()
    (folder / "budget.json").write_text("{}")
    nowhere = profile.model_copy(update={"models": {profile.model: "./nowhere"}})
    # loading a policy would raise
    assert tuning.tune("sft", nowhere, QUESTIONS, folder, seed=0, steps=8) == folder

    (folder / "budget.json").unlink()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tuning.tune("sft", nowhere, QUESTIONS, folder, seed=0, steps=8)


def test_a_checkpoint_cut_short_is_passed_over(tmp_path):
    for step in (2, 4, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-2" / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-4" / "trainer_state.json").write_text('{"global_st')
    assert tuning.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-2"]


def test_a_gradient_that_is_not_finite_stops_before_the_update(profile, policy, tmp_path):
    policy.model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(FloatingPointError, match="sft: step 1"):
        tuning.tune("sft", profile, QUESTIONS, tmp_path / "sft", seed=0, steps=8, policy=policy)
    assert not finished(tmp_path / "sft")


def test_nothing_to_learn_from_is_said_and_impossible_settings_are_refused(
    profile, policy, tmp_path
):
    none_right = GRADES.assign(correct=pd.array([False] * len(GRADES), dtype="boolean"))
    tables = (QUESTIONS, SAMPLES, none_right)
    questions, *known = tables
    folder = tuning.tune("rft", profile, questions, tmp_path / "rft", 0, 8, *known, policy)
    assert json.loads((folder / "budget.json").read_text())["steps"] == 0
    assert not (folder / "last").exists()
