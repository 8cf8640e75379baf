"""Training baselines: rows made by hand, labels, loss, resume to the bit, finished weights left
alone.
"""

import json
from copy import deepcopy
from functools import partial

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from lib.config import Tuning, load_profile
from lib.engine.models import load_policy, make_policy
from lib.engine.trie import share_prefixes
from lib.training import baselines as tuning
from lib.training.apart import finished, train_apart
from lib.training.examples import (
    completion_dataset,
    dpo_pairs,
    encode,
    pair_dataset,
    rft_rows,
    sft_rows,
    token_counts,
)
from tests.tiny import tiny_policy, word_tokenizer

QUESTIONS = pd.DataFrame({
    "question_id": ["q1", "q2", "q3", "t1"],
    "question": ["where is Rome", "where is Lima", "where is Bern", "where is Bari"],
    "split": ["train", "train", "train", "test"],
    "answers": [["Italy", "IT"], ["Peru"], ["Switzerland"], ["Italy"]],
})  # fmt: skip
# question, text, correct, finish
DRAWN = [
    ("q1", "Italy", True, "stop"),
    ("q1", " Italy\n", True, "stop"),
    ("q1", "in Italy", True, "stop"),
    ("q1", "Italy is the", True, "length"),
    ("q1", "Spain", False, "stop"),
    ("q1", "France", False, "stop"),
    ("q2", "Peru", True, "stop"),
    ("q2", "Chile", pd.NA, "stop"),
    ("q2", "", False, "stop"),
    ("q3", "Austria", False, "stop"),
    ("q3", "Germany", False, "stop"),
    ("t1", "Italy", True, "stop"),
    ("t1", "Spain", False, "stop"),
]
SAMPLES = pd.DataFrame(
    [{"question_id": q, "policy": "base", "text": text, "finish": end} for q, text, _, end in DRAWN]
)
SAMPLES["sample"] = SAMPLES.groupby("question_id").cumcount()
GRADES = SAMPLES[["question_id", "policy", "sample"]].assign(
    judge="alias", correct=pd.array([right for _, _, right, _ in DRAWN], dtype="boolean")
)


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer(" ".join(SAMPLES["text"]) + " Switzerland")


@pytest.fixture
def policy(tokenizer):
    return tiny_policy(tokenizer)


@pytest.fixture
def profile():
    settings = Tuning(
        learning_rate=0.01, epochs=4, questions_per_step=2, micro_batch=1, samples_per_question=2
    )
    sections = {name: settings for name in ("sft", "rft")} | {
        "dpo": settings.model_copy(update={"beta": 0.1})
    }
    return load_profile("laptop").model_copy(update=sections | {"dtype": "float32"})


def test_sft_rows_are_the_training_questions_with_their_display_answers():
    rows = sft_rows(QUESTIONS)
    assert rows["question_id"].tolist() == ["q1", "q2", "q3"]
    assert rows["completion"].tolist() == ["Italy", "Peru", "Switzerland"]


def test_rft_rows_are_distinct_finished_correct_samples_of_training_questions():
    rows = rft_rows(QUESTIONS, SAMPLES, GRADES, per_question=5, seed=0)
    found = rows.groupby("question_id")["completion"].apply(sorted).to_dict()
    assert found == {"q1": ["Italy", "in Italy"], "q2": ["Peru"]}
    assert rft_rows(QUESTIONS, SAMPLES, GRADES, 1, seed=0)["question_id"].tolist() == ["q1", "q2"]


def test_rft_rows_depend_on_the_seed_and_not_on_the_order_of_the_tables():
    pick = partial(rft_rows, QUESTIONS, per_question=1)
    shuffled = SAMPLES.sample(frac=1, random_state=3), GRADES.sample(frac=1, random_state=4)
    pd.testing.assert_frame_equal(pick(SAMPLES, GRADES, seed=1), pick(*shuffled, seed=1))
    assert {pick(SAMPLES, GRADES, seed=s)["completion"][0] for s in range(20)} == {
        "Italy",
        "in Italy",
    }


def test_dpo_pairs_use_every_sample_once_and_need_both_sides():
    pairs = dpo_pairs(QUESTIONS, SAMPLES, GRADES, per_question=5, seed=0)
    assert pairs["question_id"].tolist() == [
        "q1",
        "q1",
    ]  # q2 has no wrong answer left, q3 no right one
    assert set(pairs["chosen"]) == {"Italy", "in Italy"} and set(pairs["rejected"]) == {
        "Spain",
        "France",
    }
    assert len(dpo_pairs(QUESTIONS, SAMPLES, GRADES, 1, seed=0)) == 1


def test_labels_hide_the_prompt_and_end_with_the_end_of_text(tokenizer):
    example = completion_dataset(sft_rows(QUESTIONS), tokenizer)[0]
    prompt, answer = encode(tokenizer, "where is Rome", "Italy")
    assert tokenizer.decode(prompt).endswith("where is Rome </s> <s> assistant")
    assert example["labels"] == [-100] * len(prompt) + tokenizer.convert_tokens_to_ids(
        ["Italy", "</s>"]
    )
    assert example["input_ids"] == prompt + answer


def test_padding_is_hidden_and_the_end_of_text_is_not_although_they_are_one_token(tokenizer):
    rows = pd.DataFrame(
        {"question": ["where is Rome", "where is Lima"], "completion": ["Italy", "in Italy"]}
    )
    batch = DataCollatorForLanguageModeling(tokenizer.pad_token_id)(
        list(completion_dataset(rows, tokenizer))
    )
    assert (batch["labels"] == tokenizer.eos_token_id).sum(1).tolist() == [1, 1]
    assert batch["labels"][0, -1] == -100 and batch["attention_mask"][0, -1] == 0


def test_markers_in_an_answer_are_text(tokenizer):
    _, answer = encode(tokenizer, "where is Rome", "Italy </s> <s> Peru")
    assert answer.count(tokenizer.eos_token_id) == 1 and answer[-1] == tokenizer.eos_token_id
    assert tokenizer.convert_tokens_to_ids("<s>") not in answer


def test_token_counts_of_completions_and_pairs(tokenizer):
    rows = sft_rows(QUESTIONS)
    prompt = len(encode(tokenizer, "where is Rome", "Italy")[0])
    assert token_counts(completion_dataset(rows, tokenizer)) == (3 * (prompt + 2), 6)
    pair = pd.DataFrame(
        {"question": ["where is Rome"], "chosen": ["in Italy"], "rejected": ["Spain"]}
    )
    assert token_counts(pair_dataset(pair, tokenizer)) == (2 * prompt + 5, 5)


def test_the_loss_is_the_mean_over_answer_tokens_only(policy, tokenizer, tmp_path):
    data = completion_dataset(sft_rows(QUESTIONS), tokenizer)
    arguments = tuning.settings(
        Tuning(learning_rate=0.1, epochs=1, questions_per_step=4, micro_batch=4), tmp_path, 0, False
    )
    trainer = tuning.SFTTrainer(
        model=policy.model,
        args=tuning.SFTConfig(**arguments),
        train_dataset=data,
        processing_class=tokenizer,
    )
    share_prefixes(trainer.model)
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(list(data)))
    total, count = 0.0, 0
    for row in data:
        logits = policy.model(torch.tensor([row["input_ids"]])).logits[0]
        for at in (-2, -1):  # the answer is one word and the end of text
            total += F.cross_entropy(
                logits[at - 1][None], torch.tensor([row["input_ids"][at]])
            ).item()
            count += 1
    assert loss.item() == pytest.approx(total / count, rel=1e-5)


def test_sft_learns_the_answers_and_reports_its_budget(profile, policy, tmp_path):
    folder = tuning.train_sft(profile, QUESTIONS, tmp_path / "sft", seed=0, policy=policy)
    budget = json.loads((folder / "budget.json").read_text())
    assert (budget["examples"], budget["steps"], budget["tokens_trained"]) == (3, 8, 24)
    assert budget["seconds"] > 0
    tuned = AutoModelForCausalLM.from_pretrained(folder)
    prompt, answer = encode(policy.tokenizer, "where is Rome", "Italy")
    assert (
        tuned(torch.tensor([prompt])).logits[0, -1].argmax()
        in encode(policy.tokenizer, "", "Italy Peru Switzerland")[1]
    )
    assert sorted(p.suffix for p in folder.iterdir()) and not list(folder.glob("*.bin"))
    assert not (tmp_path / "sft.work").exists()


@pytest.mark.parametrize("method", ["rft", "dpo"])
def test_rft_and_dpo_raise_right_answers_over_wrong_ones(method, profile, policy, tmp_path):
    def margin(model):
        lines = [encode(policy.tokenizer, "where is Rome", text) for text in ("Italy", "Spain")]
        scores = [
            F.log_softmax(model(torch.tensor([p])).logits[0, -1], -1)[a[0]].item() for p, a in lines
        ]
        return scores[0] - scores[1]

    before = margin(policy.model)
    train = getattr(tuning, f"train_{method}")
    folder = train(profile, QUESTIONS, SAMPLES, GRADES, tmp_path / method, seed=0, policy=policy)
    assert margin(AutoModelForCausalLM.from_pretrained(folder)) > before + 0.5
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
    tables = () if method == "sft" else (SAMPLES, GRADES)
    config, start = deepcopy(policy.model.config), deepcopy(policy.model.state_dict())

    def train(name):
        fresh = LlamaForCausalLM(deepcopy(config))  # TRL writes into a model's config
        fresh.load_state_dict(start)
        call = getattr(tuning, f"train_{method}")
        return call(
            profile,
            QUESTIONS,
            *tables,
            tmp_path / name,
            seed=0,
            policy=make_policy(fresh, policy.tokenizer),
        )

    whole = train("whole")
    monkeypatch.setattr(tuning, "SAVE_STEPS", 2)
    monkeypatch.setattr(tuning.Watch, "on_step_end", interrupt_at(3))
    with pytest.raises(KeyboardInterrupt):
        train("broken")
    assert not finished(tmp_path / "broken")
    monkeypatch.undo()
    assert tuning.last_checkpoint(tmp_path / "broken.work").endswith("checkpoint-2")
    resumed = train("broken")
    assert (resumed / "model.safetensors").read_bytes() == (
        whole / "model.safetensors"
    ).read_bytes()


def test_finished_weights_are_left_as_they_are(profile, tmp_path):
    folder = tmp_path / "sft"
    folder.mkdir()
    (folder / "budget.json").write_text("{}")
    nowhere = profile.model_copy(update={"models": {profile.model: "./nowhere"}})
    assert (
        tuning.train_sft(nowhere, QUESTIONS, folder, seed=0) == folder
    )  # loading a policy would raise
    (folder / "budget.json").unlink()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tuning.train_sft(nowhere, QUESTIONS, folder, seed=0)


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
        tuning.train_sft(profile, QUESTIONS, tmp_path / "sft", seed=0, policy=policy)
    assert not (tmp_path / "sft").exists()


def test_impossible_settings_and_empty_tables_are_refused(profile, policy, tmp_path):
    none_right = GRADES.assign(correct=pd.array([False] * len(GRADES), dtype="boolean"))
    with pytest.raises(ValueError, match="rft: the pre-RL samples give nothing"):
        tuning.train_rft(
            profile, QUESTIONS, SAMPLES, none_right, tmp_path / "rft", seed=0, policy=policy
        )
    with pytest.raises(ValueError, match="not a multiple of 2"):
        tuning.settings(
            Tuning(learning_rate=0.1, epochs=1, questions_per_step=3, micro_batch=2),
            tmp_path,
            0,
            False,
        )


def test_the_launcher_is_honoured_and_failure_is_told(tmp_path, capsys):
    sft, rft = {"sft": tmp_path / "sft"}, {"rft": tmp_path / "rft"}
    told = (
        r"code 0, \['sft'\] not whole: launched -m lib.training.baselines sft --run tiny --seed 3"
    )
    with pytest.raises(RuntimeError, match=told):
        train_apart("lib.training.baselines", sft, "tiny", seed=3, launch="echo launched")
    assert "launched" in capsys.readouterr().out
    (tmp_path / "rft").mkdir()
    (tmp_path / "rft" / "budget.json").write_text('{"steps": 2}')
    assert train_apart("lib.training.baselines", rft, "tiny", launch="false") == [
        {"steps": 2}
    ]  # nothing is started
    with pytest.raises(RuntimeError, match="code 1"):
        train_apart("lib.training.baselines", rft | sft, "tiny", launch="false")


@pytest.mark.weights
def test_the_small_model_s_turn_ends_where_training_ends():
    try:
        policy = load_policy(load_profile("laptop"))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    prompt, answer = encode(policy.tokenizer, "In which country is the city of Rome?", "Italy")
    assert policy.tokenizer.decode(prompt).endswith("Rome?<|im_end|>\n<|im_start|>assistant\n")
    assert policy.tokenizer.decode(answer) == "Italy<|im_end|>" and answer[-1] in policy.stops
