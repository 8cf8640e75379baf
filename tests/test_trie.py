"""The packed trie against plain transformers: log-probabilities, entropies, gradients, refusals."""

import random
from copy import deepcopy

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, MistralConfig

from lib.engine.blocks import BLOCK_NODES
from lib.engine.trie import EXACT_FOR, Trie, share_prefixes, use_layouts
from tests.tiny import CONFIGS, tiny_model


def ragged(groups: int, n: int, seed: int = 0, vocabulary: int = 97):
    """Ids, mask and labels (B, T) as trainers batch them; some answers repeat.

    Prompts are padded on the left and answers on the right.
    """
    draw = random.Random(seed)
    system = [draw.randrange(vocabulary) for _ in range(9)]
    rows = []
    for _ in range(groups):
        prompt = system + [draw.randrange(vocabulary) for _ in range(draw.randint(1, 12))]
        rows += [(prompt, [draw.randrange(4) for _ in range(draw.randint(1, 6))]) for _ in range(n)]

    left = max(len(prompt) for prompt, _ in rows)
    right = max(len(answer) for _, answer in rows)
    ids = torch.full((len(rows), left + right), 5)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for i, (prompt, answer) in enumerate(rows):
        ids[i, left - len(prompt) : left + len(answer)] = torch.tensor(prompt + answer)
        mask[i, left - len(prompt) : left + len(answer)] = 1
        labels[i, left : left + len(answer)] = torch.tensor(answer)
    return ids, mask, labels


def plain_scores(model, ids, mask, labels, temperature=1.0):
    """log-probabilities and entropies (B, T - 1) of the rows alone, zero where nothing counts."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, :-1]
    logprobs = (logits / temperature).log_softmax(-1)  # (B, T - 1, V)
    scored = labels[:, 1:] != -100
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return logprobs.gather(-1, ids[:, 1:, None])[..., 0] * scored, entropy * scored


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("groups, n", [(30, 5), (1, 1), (40, 1)])
def test_scores_and_gradients_are_those_of_the_rows_alone(kind, groups, n):
    plain = tiny_model(kind, spread=0.1)
    shared = share_prefixes(deepcopy(plain))
    ids, mask, labels = ragged(groups, n)

    expected, entropy = plain_scores(plain, ids, mask, labels)
    scores = shared(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
    assert (scores.log_probs - expected).abs().max() < 1e-4
    assert (scores.entropy - entropy).abs().max() < 1e-4
    assert torch.equal(scores.label_mask, labels[:, 1:] != -100)

    weight = torch.randn_like(expected)
    for logprobs in (expected, scores.log_probs):
        (logprobs * weight).sum().backward()
    for a, b in zip(shared.parameters(), plain.parameters(), strict=True):
        assert (a.grad - b.grad).norm() <= 1e-4 * b.grad.norm()


def test_temperature_and_loss():
    plain = tiny_model(spread=0.1)
    ids, mask, labels = ragged(4, 3)
    expected, _ = plain_scores(plain, ids, mask, labels, temperature=0.7)

    shared = share_prefixes(deepcopy(plain), temperature=0.7)
    inputs = dict(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
    scores = shared(**inputs)
    assert (scores.log_probs - expected).abs().max() < 1e-4
    assert torch.allclose(scores.loss, -expected.sum() / (labels[:, 1:] != -100).sum(), atol=1e-5)

    by_tokens = shared(**inputs, num_items_in_batch=7)
    assert torch.allclose(by_tokens.loss, -expected.sum() / 7, atol=1e-5)


def test_each_distinct_prefix_is_one_node():
    trie = Trie([[1, 2, 3], [1, 2, 4], [1, 2, 3], [5]])
    assert trie.tokens.tolist() == [1, 2, 3, 4, 5]
    assert trie.depths.tolist() == [0, 1, 2, 2, 0]
    assert trie.nodes == [[0, 1, 2], [0, 1, 3], [0, 1, 2], [4]]


def test_blocks_cover_every_node_once_and_see_ancestors_only():
    draw = random.Random(3)
    rows = [[draw.randrange(3) for _ in range(draw.randint(1, 40))] for _ in range(300)]
    trie = Trie(rows + [[7] * (3 * BLOCK_NODES)])
    ancestors = {path[i]: set(path[: i + 1]) for path in trie.nodes for i in range(len(path))}

    stop = 0
    for block in trie.blocks:
        assert block.start == stop
        assert block.stop - block.start <= BLOCK_NODES
        stop = block.stop

        columns = block.path.tolist() + list(range(block.start, block.stop))
        for node, seen in zip(range(block.start, block.stop), block.mask.tolist(), strict=True):
            assert {c for c, s in zip(columns, seen, strict=True) if s} == ancestors[node]
    assert stop == len(trie.tokens)
    assert stop == len(ancestors)


def test_other_calls_are_left_as_they_were():
    plain = tiny_model()
    shared = share_prefixes(deepcopy(plain))
    ids = torch.randint(97, (2, 9))
    assert torch.allclose(shared(input_ids=ids).logits, plain(input_ids=ids).logits, atol=1e-6)

    forward = shared.forward
    assert share_prefixes(shared).forward == forward
    with pytest.raises(TypeError, match="position_ids"):
        shared(input_ids=ids, labels=ids, position_ids=ids, fused_lm_head=True)


def test_models_that_would_not_be_exact_are_refused():
    small = dict(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    gemma = AutoModelForCausalLM.from_config(Gemma2Config(**small, head_dim=8))
    with pytest.raises(
        ValueError, match=f"'gemma2' is not among those checked: {', '.join(EXACT_FOR)}"
    ):
        use_layouts(gemma)
    with pytest.raises(ValueError, match="'mistral'"):
        use_layouts(AutoModelForCausalLM.from_config(MistralConfig(**small)))

    sliding = dict(use_sliding_window=True, sliding_window=8, max_window_layers=1)
    with pytest.raises(ValueError, match="sliding window True"):
        use_layouts(tiny_model("qwen2", **sliding))
