"""The sampler against plain transformers: greedy tokens, log-probabilities, the distribution of
samples, resuming.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from lib.engine import decoding, models
from lib.engine.decoding import choose, decode, uniform_draws
from lib.engine.families import KeyValueCache
from lib.engine.models import load_policy, make_policy
from lib.engine.sampling import greedy, sample, score
from lib.prompts import direct, render
from tests.tiny import CONFIGS, WORDS, tiny_model, tiny_policy, word_tokenizer

QUESTIONS = pd.DataFrame(
    {
        "question_id": [f"q{i}" for i in range(6)],
        "question": [
            "where is Rome",
            "where is Lima with a user",
            "Bern",
            "is Rome a short answer",
            "where",
            "Lima is",
        ],
        "answers": [
            ["Rome"],
            ["Lima", "is Lima"],
            ["Bern"],
            ["only ."],
            ["the question"],
            ["Rome", "Bern", "Lima"],
        ],
    }
)


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer(WORDS)


@pytest.fixture(scope="module", params=CONFIGS)
def policy(request, tokenizer):
    return tiny_policy(tokenizer, kind=request.param, spread=0.3)


@pytest.fixture(scope="module")
def llama(tokenizer):
    return tiny_policy(tokenizer, spread=0.3)


def plain_logprob(policy, prompt, answer):
    """log P(answer | prompt) by one plain forward of the row alone."""
    logits = policy.model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None]).sum())


def test_greedy_tokens_are_those_of_generate(policy):
    prompts = [render(policy.tokenizer, direct(q)) for q in QUESTIONS["question"]]
    ours = {d["index"]: d for d in decode(policy, prompts, lambda i: None, 12, rows=8)}
    for i, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        plain = policy.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12
        )
        assert ours[i]["ids"][0] == plain[0, len(prompt) :].tolist()
        assert ours[i]["finish"] == ["stop" if int(plain[0, -1]) in policy.stops else "length"]


def test_logprobs_of_samples_are_those_of_the_rows_alone(policy):
    prompts = [render(policy.tokenizer, direct(q)) for q in QUESTIONS["question"]]
    drawn = decode(policy, prompts, lambda i: uniform_draws(0, str(i), 9, 7), 7, rows=16)
    for done in drawn:
        for ids, logprob in zip(done["ids"], done["logprob"], strict=True):
            assert logprob == pytest.approx(
                plain_logprob(policy, prompts[done["index"]], ids), abs=1e-4
            )
            assert len(ids) == 7 or ids[-1] in policy.stops


@pytest.mark.parametrize(
    ("size", "slots", "columns"), [(1, 1, 1), (3, 1, 1), (3, 9, 99), (16, 1, 1), (64, 2, 40)]
)
def test_a_cache_of_any_size_that_grows_gives_the_same_answers(
    llama, monkeypatch, size, slots, columns
):
    """Families split, end, change slots and reuse columns; only memory and speed may change."""
    prompts = [render(llama.tokenizer, direct(q)) for q in QUESTIONS["question"]]

    def answers():
        drawn = decode(
            llama, prompts, lambda i: uniform_draws(1, str(i), 40, 8), 8, rows=60, entropies=True
        )
        return sorted(drawn, key=lambda done: done["index"])

    usual = answers()
    monkeypatch.setattr(
        decoding, "KeyValueCache", lambda policy, *_: KeyValueCache(policy, slots, columns, size)
    )
    for ours, theirs in zip(answers(), usual, strict=True):
        assert ours["ids"] == theirs["ids"]
        for key in ("logprob", "entropy"):
            np.testing.assert_allclose(ours[key], theirs[key], atol=1e-4)
    for done in usual:
        for ids, logprob in list(zip(done["ids"], done["logprob"], strict=True))[::8]:
            assert logprob == pytest.approx(
                plain_logprob(llama, prompts[done["index"]], ids), abs=1e-4
            )


def test_entropies_are_those_of_the_rows_alone(llama):
    prompts = [render(llama.tokenizer, direct(q)) for q in QUESTIONS["question"]]
    for done in decode(llama, prompts, lambda i: uniform_draws(2, str(i), 3, 5), 5, entropies=True):
        prompt = prompts[done["index"]]
        for ids, entropy in zip(done["ids"], done["entropy"], strict=True):
            logits = llama.model(input_ids=torch.tensor([prompt + ids])).logits[
                0, len(prompt) - 1 : -1
            ]
            expected = torch.distributions.Categorical(logits=logits).entropy().sum().item()
            assert entropy == pytest.approx(expected, abs=1e-4)


def test_scores_are_those_of_the_rows_alone(policy):
    found = score(policy, QUESTIONS, batch=4)
    end = policy.tokenizer.eos_token_id
    assert len(found) == QUESTIONS["answers"].map(len).sum()
    for row, (question, answer) in zip(
        found.itertuples(),
        QUESTIONS.explode("answers")[["question", "answers"]].values,
        strict=True,
    ):
        ids = policy.tokenizer(answer, add_special_tokens=False)["input_ids"] + [end]
        prompt = render(policy.tokenizer, direct(question))
        assert row.answer == answer and row.tokens == len(ids)
        assert row.logprob == pytest.approx(plain_logprob(policy, prompt, ids), abs=1e-4)


def test_a_sample_does_not_depend_on_the_batch_the_order_or_how_many_are_drawn(llama):
    settings = dict(seed=3, max_new_tokens=6)
    all_at_once = sample(llama, QUESTIONS, 12, **settings)
    few_rows = sample(llama, QUESTIONS.iloc[::-1], 12, rows=4, **settings)
    columns = ["question_id", "sample", "text"]
    pd.testing.assert_frame_equal(
        all_at_once[columns].sort_values(columns, ignore_index=True),
        few_rows[columns].sort_values(columns, ignore_index=True),
    )
    fewer = sample(llama, QUESTIONS.iloc[2:4], 5, **settings)
    later = sample(llama, QUESTIONS.iloc[2:4], 7, first=5, **settings)
    joined = pd.concat([fewer, later]).sort_values(["question_id", "sample"], ignore_index=True)
    here = all_at_once[all_at_once["question_id"].isin(["q2", "q3"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(joined[columns], here[columns])
    other_seed = sample(llama, QUESTIONS, 12, seed=4, max_new_tokens=6)
    assert (other_seed["text"] != all_at_once["text"]).any()


def distribution(policy, prompt, length):
    """Probability of every answer of at most `length` tokens, by plain forwards."""
    found, open_prefixes = {}, {(): 0.0}
    for step in range(length):
        grown = {}
        for prefix, logprob in open_prefixes.items():
            logits = policy.model(input_ids=torch.tensor([prompt + list(prefix)])).logits[0, -1]
            for token, more in enumerate(logits.log_softmax(-1).tolist()):
                done = token in policy.stops or step == length - 1
                (found if done else grown)[(*prefix, token)] = logprob + more
        open_prefixes = grown
    return {answer: np.exp(logprob) for answer, logprob in found.items()}


def p_value(counts: dict, probabilities: dict, n: int) -> float:
    """Chi-squared p of the counted answers; those expected fewer than five times are one class."""
    common = [a for a, p in probabilities.items() if p * n >= 5]
    observed = [counts.get(a, 0) for a in common]
    expected = [probabilities[a] * n for a in common]
    return stats.chisquare([*observed, n - sum(observed)], [*expected, n - sum(expected)]).pvalue


def test_merged_samples_are_distributed_as_independent_ones():
    """The test has power: the same counts are refused under another temperature and without one
    branch.
    """
    torch.manual_seed(0)
    policy = make_policy(tiny_model(vocabulary=7, spread=0.6, hidden_size=16), word_tokenizer(""))
    prompt, n = [3, 4, 5], 20_000
    right = distribution(policy, prompt, 3)
    assert sum(right.values()) == pytest.approx(1, abs=1e-5)
    numbers = np.random.default_rng(11).random((n, 3))
    [done] = decode(policy, [prompt], lambda i: numbers, 3)
    counts = pd.Series([tuple(ids) for ids in done["ids"]]).value_counts().to_dict()
    assert p_value(counts, right, n) > 0.01
    warm = {a: p**0.9 for a, p in right.items()}
    assert p_value(counts, {a: p / sum(warm.values()) for a, p in warm.items()}, n) < 1e-6
    branch = max(right, key=right.get)
    dropped = {a: 0 if a == branch else c for a, c in counts.items()}
    assert p_value(dropped, right, sum(dropped.values())) < 1e-6
    # successive samples are independent of each other: pairs are distributed as products
    first = pd.Series([ids[0] for ids in done["ids"]])
    pairs = pd.crosstab(first[::2].to_numpy(), first[1::2].to_numpy())
    assert stats.chi2_contingency(pairs).pvalue > 0.01


def test_choose_by_hand():
    probs = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.5, 1e-30]])
    numbers = np.array([0.05, 0.15, 0.31, 0.999999, np.nan, 0.0, 0.5, 1 - 1e-16])
    node = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1])
    tokens, logprobs = choose(probs, node, numbers)
    assert tokens == [0, 1, 2, 2, 2, 0, 1, 1]
    assert logprobs == pytest.approx(np.log([0.1, 0.2, 0.7, 0.7, 0.7, 0.5, 0.5, 0.5]), abs=1e-6)


def test_an_interrupted_call_goes_on(llama, tmp_path, monkeypatch):
    settings = dict(seed=0, max_new_tokens=5, rows=4)
    path, whole = tmp_path / "samples.parquet", sample(llama, QUESTIONS, 4, **settings)
    real, asked = models.decode, []

    def broken(policy, prompts, *rest):
        for i, done in enumerate(real(policy, prompts, *rest)):
            if i == 3:
                raise KeyboardInterrupt
            yield done

    monkeypatch.setattr(models, "decode", broken)
    with pytest.raises(KeyboardInterrupt):
        sample(llama, QUESTIONS, 4, path=path, **settings)
    log = path.with_suffix(".jsonl")
    assert not path.exists() and len(log.read_text().splitlines()) == 3
    log.write_text(log.read_text() + '{"question_id": "q5", "te')  # a torn last line

    def counted(policy, prompts, *rest):
        asked.append(len(prompts))
        return real(policy, prompts, *rest)

    monkeypatch.setattr(models, "decode", counted)
    resumed = sample(llama, QUESTIONS, 4, path=path, **settings)
    pd.testing.assert_frame_equal(resumed, whole, atol=1e-5)
    assert asked == [3] and not log.exists()
    pd.testing.assert_frame_equal(
        sample(llama, QUESTIONS, 4, path=path, **settings), pd.read_parquet(path)
    )
    assert asked == [3]  # finished: nothing is drawn


def test_greedy_is_one_answer_a_question(llama):
    frame = greedy(llama, QUESTIONS, max_new_tokens=4)
    assert (
        frame["question_id"].tolist() == QUESTIONS["question_id"].tolist()
        and (frame["sample"] == 0).all()
    )
    assert frame["tokens"].between(1, 4).all() and set(frame["finish"]) <= {"stop", "length"}


@pytest.mark.weights
def test_the_small_model_answers_as_generate_does():
    from lib.config import load_profile

    try:
        policy = load_policy(load_profile("laptop"))
    except FileNotFoundError:
        pytest.skip("needs the small model: make weights")
    texts = [
        "In which country is the city of Lima?",
        "What is the capital of France?",
        "Where is Kyoto?",
    ]
    prompts = [render(policy.tokenizer, direct(t)) for t in texts]
    ours = {d["index"]: d["ids"][0] for d in decode(policy, prompts, lambda i: None, 16)}
    for i, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        plain = policy.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=16
        )
        assert ours[i] == plain[0, len(prompt) :].tolist()
