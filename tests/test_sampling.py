"""The sampler against plain transformers: tokens, log-probabilities, distribution, resuming."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from lib.config import load_profile
from lib.engine import decoding, models
from lib.engine.decoding import choose, decode, uniform_draws
from lib.engine.families import KeyValueCache
from lib.engine.models import load_policy, make_policy
from lib.engine.sampling import Progress, greedy, sample, score
from lib.prompts import direct, render
from tests.test_likely import every_answer
from tests.tiny import CONFIGS, WORDS, tiny_model, tiny_policy, word_tokenizer

QUESTIONS = pd.DataFrame({
    "question_id": [f"q{i}" for i in range(6)],
    "question": ["where is Rome", "where is Lima with a user", "Bern", "is Rome a short answer",
                 "where", "Lima is"],
    "answers": [["Rome"], ["Lima", "is Lima"], ["Bern"], ["only ."],
                ["the question"], ["Rome", "Bern", "Lima"]],
})  # fmt: skip


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
    logprobs = plain_logits(policy, prompt, answer).log_softmax(-1)
    return float(logprobs.gather(-1, torch.tensor(answer)[:, None]).sum())


@torch.inference_mode()
def plain_logits(policy, prompt, answer):
    """Logits (T, V) of an answer's T tokens by one plain forward of the row alone."""
    logits = policy.model(input_ids=torch.tensor([prompt + answer])).logits
    return logits[0, len(prompt) - 1 : -1]


def plain_greedy(policy, prompt, length):
    """The greedy answer by transformers' own generate."""
    ids = torch.tensor([prompt])
    whole = policy.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=length
    )
    return whole[0, len(prompt) :].tolist()


def rendered(policy):
    """The prompts of QUESTIONS as token ids."""
    return [render(policy.tokenizer, direct(q)) for q in QUESTIONS["question"]]


def uniform(seed, n, length):
    """`draws` for decode: the (n, length) uniform numbers of prompt i."""
    return lambda i: uniform_draws(seed, str(i), n, length)


def test_greedy_tokens_are_those_of_generate(policy):
    prompts = rendered(policy)
    answers = {d["index"]: d for d in decode(policy, prompts, lambda i: None, 12, rows=8)}
    for i, prompt in enumerate(prompts):
        plain = plain_greedy(policy, prompt, 12)
        assert answers[i]["ids"][0] == plain
        assert answers[i]["finish"] == ["stop" if plain[-1] in policy.stops else "length"]


def test_logprobs_of_samples_are_those_of_the_rows_alone(policy):
    prompts = rendered(policy)
    for answers in decode(policy, prompts, uniform(0, 9, 7), 7, rows=16):
        prompt = prompts[answers["index"]]
        for ids, logprob in zip(answers["ids"], answers["logprob"], strict=True):
            assert logprob == pytest.approx(plain_logprob(policy, prompt, ids), abs=1e-4)
            assert len(ids) == 7 or ids[-1] in policy.stops


@pytest.mark.parametrize(
    ("size", "slots", "columns"), [(1, 1, 1), (3, 1, 1), (3, 9, 99), (16, 1, 1), (64, 2, 40)]
)
def test_a_cache_of_any_size_that_grows_gives_the_same_answers(
    llama, monkeypatch, size, slots, columns
):
    """Families split, end, change slots and reuse columns; only memory and speed may change."""
    prompts = rendered(llama)

    def decoded():
        answers = decode(llama, prompts, uniform(1, 40, 8), 8, rows=60, entropies=True)
        return sorted(answers, key=lambda one: one["index"])

    usual = decoded()
    monkeypatch.setattr(
        decoding, "KeyValueCache", lambda model, *_: KeyValueCache(model, slots, columns, size)
    )
    for ours, theirs in zip(decoded(), usual, strict=True):
        assert ours["ids"] == theirs["ids"]
        for key in ("logprob", "entropy"):
            np.testing.assert_allclose(ours[key], theirs[key], atol=1e-4)

    for prompt, answers in zip(prompts, usual, strict=True):
        for ids, logprob in list(zip(answers["ids"], answers["logprob"], strict=True))[::8]:
            assert logprob == pytest.approx(plain_logprob(llama, prompt, ids), abs=1e-4)


def test_entropies_are_those_of_the_rows_alone(llama):
    prompts = rendered(llama)
    for answers in decode(llama, prompts, uniform(2, 3, 5), 5, entropies=True):
        prompt = prompts[answers["index"]]
        for ids, entropy in zip(answers["ids"], answers["entropy"], strict=True):
            plain = torch.distributions.Categorical(logits=plain_logits(llama, prompt, ids))
            assert entropy == pytest.approx(plain.entropy().sum().item(), abs=1e-4)


def test_scores_are_those_of_the_rows_alone(policy):
    scores = score(policy, QUESTIONS, batch=4)
    end = policy.tokenizer.eos_token_id
    pairs = QUESTIONS.explode("answers")[["question", "answers"]].values
    assert len(scores) == len(pairs)

    for row, (question, answer) in zip(scores.itertuples(), pairs, strict=True):
        ids = policy.tokenizer(answer, add_special_tokens=False)["input_ids"] + [end]
        prompt = render(policy.tokenizer, direct(question))
        assert row.answer == answer
        assert row.tokens == len(ids)
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


def p_value(counts: dict, probabilities: dict, n: int) -> float:
    """Chi-squared p of the counted answers; those expected fewer than five times are one class."""
    common = [a for a, p in probabilities.items() if p * n >= 5]
    observed = [counts.get(a, 0) for a in common]
    expected = [probabilities[a] * n for a in common]
    return stats.chisquare([*observed, n - sum(observed)], [*expected, n - sum(expected)]).pvalue


def test_merged_samples_are_distributed_as_independent_ones():
    """The test has power: it refuses these counts at another temperature or without a branch."""
    torch.manual_seed(0)
    policy = make_policy(tiny_model(vocabulary=7, spread=0.6, hidden_size=16), word_tokenizer(""))
    prompt, n = [3, 4, 5], 20_000
    right = every_answer(policy, prompt, 3)
    assert sum(right.values()) == pytest.approx(1, abs=1e-5)

    numbers = np.random.default_rng(11).random((n, 3))
    [answers] = decode(policy, [prompt], lambda i: numbers, 3)
    counts = pd.Series([tuple(ids) for ids in answers["ids"]]).value_counts().to_dict()
    assert p_value(counts, right, n) > 0.01

    warm = {a: p**0.9 for a, p in right.items()}
    assert p_value(counts, {a: p / sum(warm.values()) for a, p in warm.items()}, n) < 1e-6
    branch = max(right, key=right.get)
    dropped = {a: 0 if a == branch else c for a, c in counts.items()}
    assert p_value(dropped, right, sum(dropped.values())) < 1e-6

    # successive samples are independent of each other: pairs are distributed as products
    first = pd.Series([ids[0] for ids in answers["ids"]])
    pairs = pd.crosstab(first[::2].to_numpy(), first[1::2].to_numpy())
    assert stats.chi2_contingency(pairs).pvalue > 0.01


def test_a_temperature_divides_the_logits():
    torch.manual_seed(0)
    policy = make_policy(tiny_model(vocabulary=7, spread=0.6, hidden_size=16), word_tokenizer(""))
    prompt, n = [3, 4, 5], 20_000
    numbers = np.random.default_rng(11).random((n, 1))
    [answers] = decode(policy, [prompt], lambda i: numbers, 1, temperature=0.5)
    counts = pd.Series([tuple(ids) for ids in answers["ids"]]).value_counts().to_dict()

    logits = policy.model(input_ids=torch.tensor([prompt])).logits[0, -1]
    probs = (logits / 0.5).softmax(-1).tolist()
    assert p_value(counts, {(i,): p for i, p in enumerate(probs)}, n) > 0.01
    [token] = answers["ids"][0]
    assert answers["logprob"][0] == pytest.approx(np.log(probs[token]), abs=1e-5)


def test_every_sample_is_reported_when_it_ends(llama):
    prompts, ended = [[3, 4, 5], [3, 6], [7]], []
    draws = partial(uniform_draws, 0, n=9, length=6)
    answers = list(decode(llama, prompts, lambda i: draws(str(i)), 6, rows=8, report=ended.append))
    assert sum(ended) == 27
    assert len(ended) >= 6  # told step by step
    assert sum(len(answer["ids"]) for answer in answers) == 27


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_lanes_give_the_same_answers(llama, monkeypatch, two_threads):
    prompts = [[3, 4, 5], [3, 6], [7], [8, 3], [5]]
    rest = (prompts, uniform(1, 9, 6), 6, 64)
    one = {d["index"]: d for d in decode(llama, *rest)}
    assert decoding.count_lanes(torch.device("cpu"), 5, 9, 64) == 1  # too few rows for two
    monkeypatch.setattr(decoding, "LANE_ROWS", 2)
    assert decoding.count_lanes(torch.device("cpu"), 5, 9, 64) == 2
    assert decoding.count_lanes(torch.device("cuda"), 5, 9, 64) == 1
    ended = []
    two = {d["index"]: d for d in decode(llama, *rest, report=ended.append)}
    assert {i: d["ids"] for i, d in two.items()} == {i: d["ids"] for i, d in one.items()}
    assert all(np.allclose(two[i]["logprob"], one[i]["logprob"], atol=1e-5) for i in one)
    assert sum(ended) == 5 * 9


def test_out_of_memory_means_fewer_rows_and_the_same_answers(llama, monkeypatch, capsys):
    prompts = [[3, 4, 5], [3, 6], [7], [8, 3]]
    rest = (prompts, uniform(1, 6, 6), 6, 32)
    before = {d["index"]: d["ids"] for d in decode(llama, *rest)}
    step, limit = decoding.run_step, 7

    def small(model, cache, depths):
        if len(depths) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(model, cache, depths)

    monkeypatch.setattr(decoding, "run_step", small)
    after = {d["index"]: d["ids"] for d in decode(llama, *rest)}
    assert after == before
    assert "out of memory: 16 rows from now on" in capsys.readouterr().out
    limit = 0
    with pytest.raises(torch.OutOfMemoryError):
        list(decode(llama, *rest))


def test_rows_are_as_many_as_fit_into_half_of_the_free_memory(llama, monkeypatch):
    config = llama.model.config
    heads, width = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    entry = 2 * config.num_hidden_layers * heads * width * 4
    each = (10 + 6) * entry + 8 * config.vocab_size  # 10 tokens of prompt, 6 of the answer
    memory = SimpleNamespace(available=2 * 5 * each + 10)
    monkeypatch.setattr(decoding.psutil, "virtual_memory", lambda: memory)
    assert decoding.fitting_rows(llama.model, [[3] * 10, [4]], 1, 6, 256) == 5
    assert decoding.fitting_rows(llama.model, [[3] * 10, [4]], 1, 6, 3) == 3
    memory.available = 1
    assert decoding.fitting_rows(llama.model, [[3] * 10, [4]], 1, 6, 256) == 1


def test_time_left_is_told_only_when_there_is_an_estimate(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("lib.engine.sampling.time.monotonic", lambda: now[0])
    progress = Progress("base", 200, 100)
    for seconds, count in ((10, 1), (20, 1), (30, 8), (60, 40)):
        now[0] = seconds
        progress.step(count)
    progress.end()
    assert capsys.readouterr().out.splitlines() == [
        "base: 51% in 20 s",
        "base: 75% in 60 s, 60 s to go",
        "base: done in 60 s",
    ]


def test_choose_by_hand():
    probs = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.5, 1e-30]])
    numbers = np.array([0.05, 0.15, 0.31, 0.999999, np.nan, 0.0, 0.5, 1 - 1e-16])
    node = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1])
    tokens, logprobs = choose(probs, node, numbers)
    assert tokens == [0, 1, 2, 2, 2, 0, 1, 1]
    assert logprobs == pytest.approx(np.log([0.1, 0.2, 0.7, 0.7, 0.7, 0.5, 0.5, 0.5]), abs=1e-6)


def test_an_interrupted_call_goes_on(llama, tmp_path, monkeypatch):
    settings = dict(seed=0, max_new_tokens=5, rows=4)
    path = tmp_path / "samples.parquet"
    log = path.with_suffix(".jsonl")
    whole = sample(llama, QUESTIONS, 4, **settings)
    calls = []  # the number of prompts of each

    def broken(policy, prompts, *rest, **more):
        for i, answers in enumerate(decode(policy, prompts, *rest, **more)):
            if i == 3:
                raise KeyboardInterrupt
            yield answers

    monkeypatch.setattr(models, "decode", broken)
    with pytest.raises(KeyboardInterrupt):
        sample(llama, QUESTIONS, 4, path=path, **settings)
    assert not path.exists()
    assert len(log.read_text().splitlines()) == 3
    log.write_text(log.read_text() + '{"question_id": "q5", "te')  # a torn last line

    def counted(policy, prompts, *rest, **more):
        calls.append(len(prompts))
        return decode(policy, prompts, *rest, **more)

    monkeypatch.setattr(models, "decode", counted)
    resumed = sample(llama, QUESTIONS, 4, path=path, **settings)
    pd.testing.assert_frame_equal(resumed, whole, atol=1e-5)
    assert calls == [3]
    assert not log.exists()

    again = sample(llama, QUESTIONS, 4, path=path, **settings)
    pd.testing.assert_frame_equal(again, pd.read_parquet(path))
    assert calls == [3]  # finished: nothing is drawn


def test_greedy_is_one_answer_for_each_question(llama):
    frame = greedy(llama, QUESTIONS, max_new_tokens=4)
    assert frame["question_id"].tolist() == QUESTIONS["question_id"].tolist()
    assert (frame["sample"] == 0).all()
    assert frame["tokens"].between(1, 4).all()
    assert set(frame["finish"]) <= {"stop", "length"}


@pytest.mark.weights
def test_the_small_model_answers_as_generate_does():
    try:
        policy = load_policy(load_profile("laptop"))
    except FileNotFoundError:
        pytest.skip("needs the small model: make weights")
    texts = [
        "In which country is the city of Lima?",
        "What is the capital of France?",
        "Where is Kyoto?",
    ]
    prompts = [render(policy.tokenizer, direct(text)) for text in texts]
    answers = {d["index"]: d["ids"][0] for d in decode(policy, prompts, lambda i: None, 16)}
    for i, prompt in enumerate(prompts):
        assert answers[i] == plain_greedy(policy, prompt, 16)
