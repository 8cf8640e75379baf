"""Decoding: the distinct prefixes of all answers in flight run together, one token at a time.

Samples of one question share prefixes. At each node of the question's trie every sample draws its
own next token, samples that drew the same one go on together, and each distinct prefix is run once.
Sample i of a question uses random numbers of its own, so it depends neither on the batch, nor on
the order, nor on how many other samples are drawn.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F

from lib.engine.families import FAMILY, Family, KeyValueCache, run_prompts, run_step
from lib.engine.linear import packed_weights
from lib.engine.trie import softmax_

if TYPE_CHECKING:  # lib.engine.models uses this module
    from lib.engine.models import Policy

PREFILL = 64  # prompts that are run together when they are admitted
VOCABULARY_BLOCK = 256  # tokens summed together before a draw looks inside
GREEDY = np.full((1, 1), np.nan)  # the uniform numbers of one greedy completion: none


class Answers:
    """The samples of one prompt, as they grow."""

    def __init__(self, index: int, prompt: list[int], draws: np.ndarray):
        self.index = index
        self.prompt = prompt
        self.draws = draws  # (n, max_new_tokens)
        self.ids = [[] for _ in draws]
        self.logprobs = np.zeros(len(draws))
        self.entropies = np.zeros(len(draws))
        self.open = 1  # families that go on
        self.depth = len(prompt)  # of the next token

    def numbers(self, samples: list[int]) -> np.ndarray:
        """The uniform numbers of these samples' next tokens, (samples,); they are equally long."""
        position = min(len(self.ids[samples[0]]), self.draws.shape[1] - 1)
        return self.draws[samples, position]

    def result(self, stops: frozenset[int], entropies: bool) -> dict:
        """What `decode` yields of a prompt whose samples have all ended."""
        finish = ["stop" if ids[-1] in stops else "length" for ids in self.ids]
        done = {"index": self.index, "ids": self.ids, "logprob": self.logprobs, "finish": finish}
        return done | ({"entropy": self.entropies} if entropies else {})


@dataclass
class Draw:
    """The next token of every sample in flight, in the order of families and prefixes."""

    tokens: list[int]
    logprobs: list[float]
    entropies: list[float] | None  # of the distribution that each token is drawn from, in nats


@torch.inference_mode()
def decode(
    policy: "Policy",
    prompts: list[list[int]],
    draws: Callable[[int], np.ndarray | None],
    max_new_tokens: int,
    rows: int = 256,
    entropies: bool = False,
) -> Iterator[dict]:
    """Completions of each prompt, one dict for each prompt as it finishes.

    prompts: token ids; draws(i) gives the (n, max_new_tokens) uniform numbers of prompt i, or None
    for one greedy completion. About `rows` distinct prefixes are run together; a prompt is admitted
    when others finish, so memory does not grow with their number. Yields index, ids (n lists,
    end-of-text included), logprob (n,), finish (n of `stop` or `length`), and, if wanted, entropy
    (n,): the sum over the tokens, in nats. Raises ValueError for a prompt too long for the model.
    The model must not change before the last one is yielded.
    """
    _check_lengths(policy, prompts, max_new_tokens)
    cache = _open_cache(policy, prompts, draws, max_new_tokens, rows)
    waiting = list(range(len(prompts)))[::-1]

    with packed_weights(policy.model):
        while waiting or cache.families:
            # let prompts in while there is room, else take every prefix one token further
            admitted = _admit(waiting, cache, prompts, draws, rows)
            families, hidden = (
                _start(policy, cache, admitted) if admitted else _advance(policy, cache)
            )

            # every sample draws its own next token
            draw = _draw_tokens(policy, hidden, families, entropies)

            # samples that drew the same token go on as one prefix
            for answers in _regroup(cache, families, draw, policy.stops, max_new_tokens):
                yield answers.result(policy.stops, entropies)


def _check_lengths(policy: "Policy", prompts: list[list[int]], max_new_tokens: int) -> None:
    longest = max(map(len, prompts), default=0)
    limit = policy.model.config.max_position_embeddings
    if longest + max_new_tokens > limit:
        raise ValueError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones do not fit the model's "
            f"{limit} positions; shorten the question or lower max_new_tokens"
        )


def _open_cache(policy, prompts, draws, max_new_tokens, rows) -> KeyValueCache:
    """A cache of the size that will probably be needed; it grows where the guess is too small."""
    numbers = draws(0) if prompts else None
    n = 1 if numbers is None else len(numbers)
    longest = max(map(len, prompts), default=0)

    # families in flight: of about four prefixes each, or all questions' families, full ones
    slots = max(1, min(rows * 5 // (4 * min(n, 4)), len(prompts) * -(-2 * n // FAMILY)))
    columns = longest + max(max_new_tokens, min(n, FAMILY) * min(max_new_tokens, 32))
    return KeyValueCache(policy, slots, columns)


def _admit(waiting: list[int], cache: KeyValueCache, prompts, draws, rows: int) -> list[Answers]:
    """The next prompts, taken off `waiting`, when there is room for a quarter of `rows` or more.

    A prompt may need as many prefixes as it has samples.
    """
    room = rows - sum(len(family.tokens) for family in cache.families)
    if not waiting or room <= rows // 4:
        return []

    numbers = draws(waiting[-1])
    width = 1 if numbers is None else len(numbers)
    count = min(len(waiting), max(1, room // width), PREFILL)

    admitted = []
    for index in [waiting.pop() for _ in range(count)]:
        numbers = draws(index)
        admitted.append(Answers(index, prompts[index], GREEDY if numbers is None else numbers))
    return admitted


def _start(policy, cache, admitted: list[Answers]) -> tuple[list[Family], torch.Tensor]:
    """Run the prompts of new answers: their families, and hidden states (prompts, hidden)."""
    families, hidden = run_prompts(
        policy, cache, [answers.prompt for answers in admitted], admitted
    )
    for family in families:
        family.prefixes = [list(range(len(family.owner.draws)))]  # all samples share the prompt
    return families, hidden


def _advance(policy, cache) -> tuple[list[Family], torch.Tensor]:
    """Run the drawn tokens of every prefix: all families, and hidden states (prefixes, hidden)."""
    families = list(cache.families)
    depths = [family.owner.depth for family in families for _ in family.tokens]
    hidden = run_step(policy, cache, depths)
    for answers in {family.owner for family in families}:
        answers.depth += 1
    return families, hidden


def _draw_tokens(policy, hidden: torch.Tensor, families: list[Family], entropies: bool) -> Draw:
    """Draw the next token of every sample from its prefix's distribution, hidden (N, hidden)."""
    logits = policy.model.get_output_embeddings()(hidden).float()  # (N, V)
    if entropies:
        entropy = softmax_(logits)[1].tolist()  # in place: the logits are probabilities now
        probs = logits
    else:
        entropy = None
        probs = torch.softmax(logits, -1, out=logits)

    # one row of `probs` for each prefix, one number for each of its samples
    prefixes = [(family.owner, prefix) for family in families for prefix in family.prefixes]
    node = [row for row, (_, prefix) in enumerate(prefixes) for _ in prefix]  # (M,)
    numbers = np.concatenate([answers.numbers(prefix) for answers, prefix in prefixes])  # (M,)
    tokens, logprobs = choose(probs, torch.tensor(node, device=hidden.device), numbers)
    return Draw(tokens, logprobs, [entropy[row] for row in node] if entropies else None)


def _regroup(cache, families, draw: Draw, stops, max_new_tokens: int) -> list[Answers]:
    """Append the drawn tokens and group samples by the prefix they now share; finished answers."""
    sample = 0  # place in `draw`
    finished = []
    for family in families:
        answers, parents, prefixes, next_tokens = family.owner, [], [], []

        for parent, prefix in enumerate(family.prefixes):
            children = {}  # token -> the samples that drew it and go on
            for s in prefix:
                token = draw.tokens[sample]
                answers.ids[s].append(token)
                answers.logprobs[s] += draw.logprobs[sample]
                if draw.entropies:
                    answers.entropies[s] += draw.entropies[sample]
                if token not in stops and len(answers.ids[s]) < max_new_tokens:
                    children.setdefault(token, []).append(s)
                sample += 1
            parents += [parent] * len(children)
            prefixes += children.values()
            next_tokens += children

        if next_tokens:
            before = len(cache.families)
            cache.extend(family, parents, prefixes, next_tokens)
            answers.open += len(cache.families) - before
        else:
            cache.remove(family)
            answers.open -= 1
            finished += [] if answers.open else [answers]
    return finished


def choose(probs, node, numbers) -> tuple[list[int], list[float]]:
    """Tokens and their log-probabilities by inverse transform: one uniform number a sample, NaN =
    greedy.

    probs (N, V), node (M,) the row of each sample, numbers (M,) in [0, 1). The cumulative sum runs
    over blocks of the vocabulary in double precision, then inside the drawn block.
    """
    greedy = torch.from_numpy(np.isnan(numbers)).to(node.device)
    tokens = probs.argmax(-1)[node] if bool(greedy.any()) else node.new_zeros(())
    if not bool(greedy.all()):
        u = torch.from_numpy(np.nan_to_num(numbers)).to(node.device)  # (M,) double
        spare = -probs.shape[1] % VOCABULARY_BLOCK
        padded = F.pad(probs, (0, spare)) if spare else probs
        blocks = padded.view(len(probs), -1, VOCABULARY_BLOCK)  # (N, V / B, B)
        sums = blocks.sum(-1).double().cumsum(-1)  # (N, V / B)
        target = u * sums[node, -1]
        block = (sums[node] <= target[:, None]).sum(-1).clamp(max=sums.shape[1] - 1)  # (M,)
        before = torch.where(block > 0, sums[node, (block - 1).clamp(min=0)], 0.0)
        inner = blocks[node, block].double().cumsum(-1)  # (M, B)
        # rounding may put the target past the last token with any probability: stay on the last
        # that has some
        last = (inner < inner[:, -1:]).sum(-1)
        offset = torch.minimum((inner <= (target - before)[:, None]).sum(-1), last)
        tokens = torch.where(greedy, tokens, block * VOCABULARY_BLOCK + offset)
    return tokens.tolist(), probs[node, tokens].log().tolist()


def uniform_draws(seed: int, question_id: str, n: int, length: int) -> np.ndarray:
    """The (n, length) uniform numbers of a question's samples; the first rows are the same for
    every n.
    """
    return np.random.default_rng([seed, crc32(question_id.encode())]).random((n, length))
