"""Decoding: the distinct prefixes of all answers in flight run together, a token a step, each
prefix once.

Samples of one question share prefixes. At each node of the question's trie every sample draws its
own next token, samples that drew the same one go on together, and each distinct prefix is run once.
Sample i of a question uses random numbers of its own, so it does not depend on the batch, on the
order, nor on how many other samples are drawn.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F

from lib.engine.linear import packed_weights
from lib.engine.models import Policy
from lib.engine.trie import Trie, packed_hidden, softmax_

PREFILL = 64  # prompts of one prefill
FAMILY = (
    10  # prefixes that attend together: larger wastes masked products, smaller copies more entries
)
VOCABULARY_BLOCK = 256  # tokens summed together before a draw looks inside


@dataclass(eq=False)
class Family:
    """Neighbouring prefixes of one question, which share a slot of the cache."""

    owner: object
    slot: int
    tokens: list[int] = field(default_factory=list)  # the next token of each prefix
    columns: list[int] = field(default_factory=list)  # where that token's entry goes
    prefixes: list[list[int]] = field(default_factory=list)  # samples that share each prefix


class KeyValueCache:
    """Keys and values of all families, the first at slot 0 and so on, so that one call attends for
    all of them.

    `sees[s, r]` says which columns of slot s its prefix r attends to; a column that none sees is
    free again.
    """

    def __init__(self, policy: Policy, slots: int, columns: int, size: int = FAMILY):
        config, model = policy.model.config, policy.model
        self.query_heads = config.num_attention_heads
        self.heads = getattr(config, "num_key_value_heads", None) or self.query_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.query_heads
        self.groups = self.query_heads // self.heads
        self.families: list[Family] = []
        shape = (config.num_hidden_layers, slots, self.heads, columns, self.width)
        self.keys, self.values = (zeros(shape, model.dtype, model.device) for _ in range(2))
        self.sees = np.zeros((slots, size, columns), bool)

    def reserve(self, slots: int, columns: int) -> None:
        """Make room for so many slots and columns, half as much again as there was when it is too
        little.
        """
        old = (self.keys.shape[1], self.keys.shape[3])
        slots, columns = (
            max(want, have * 3 // 2) if want > have else have
            for want, have in zip((slots, columns), old, strict=True)
        )
        if (slots, columns) == old:
            return
        for name in ("keys", "values"):
            entries = getattr(self, name)
            grown = zeros(
                (entries.shape[0], slots, self.heads, columns, self.width),
                entries.dtype,
                entries.device,
            )
            grown[:, : old[0], :, : old[1]] = entries
            setattr(self, name, grown)
        self.sees = np.pad(self.sees, ((0, slots - old[0]), (0, 0), (0, columns - old[1])))

    def add(self, owner) -> Family:
        """A new family at the next slot."""
        family = Family(owner, len(self.families))
        self.reserve(family.slot + 1, 0)
        self.sees[family.slot] = False
        self.families.append(family)
        return family

    def remove(self, family: Family) -> None:
        """Drop a family; the last one takes its slot."""
        last = self.families.pop()
        if last is not family:
            self.copy(last.slot, family.slot)
            last.slot = family.slot
            self.families[last.slot] = last

    def copy(self, source: int, target: int) -> None:
        self.sees[target] = self.sees[source]
        used = self.used(slice(source, source + 1))
        for entries in (self.keys, self.values):
            entries[:, target, :, :used] = entries[:, source, :, :used]

    def used(self, slots: slice) -> int:
        """Columns up to the last one that a prefix of these slots sees."""
        return int(np.flatnonzero(self.sees[slots].any((0, 1)))[-1]) + 1

    def extend(
        self, family: Family, parents: list[int], prefixes: list[list[int]], tokens: list[int]
    ) -> None:
        """Let a family go on with the children of its prefixes; where they are too many, new
        families take some.
        """
        parts = -(-len(tokens) // self.sees.shape[1])
        cuts = [len(tokens) * i // parts for i in range(parts + 1)]
        for start, stop in list(zip(cuts, cuts[1:], strict=False))[
            ::-1
        ]:  # the family itself last: others copy it
            one = family
            if start:
                one = self.add(family.owner)
                self.copy(family.slot, one.slot)
            one.tokens, one.prefixes = tokens[start:stop], prefixes[start:stop]
            seen = self.sees[one.slot, parents[start:stop]]
            free = np.flatnonzero(~seen.any(0))[: len(seen)]
            self.place(
                one,
                seen,
                list(free) + list(range(seen.shape[1], seen.shape[1] + len(seen) - len(free))),
            )

    def place(self, family: Family, seen: np.ndarray, columns: list[int]) -> None:
        """Give each prefix (row) the columns that it sees, and one of `columns` for its next token."""
        self.reserve(0, max(columns) + 1)
        rows = self.sees[family.slot]
        rows[:] = False
        rows[: len(seen), : seen.shape[1]] = seen
        rows[np.arange(len(columns)), columns] = True
        family.columns = columns

    def write(self, layer: int, places, key, value) -> None:
        """Store key, value (heads, M, width) at flat places (M * heads,)."""
        for entries, new in ((self.keys, key), (self.values, value)):
            entries[layer].view(-1, self.width).index_copy_(
                0, places, new.transpose(0, 1).reshape(-1, self.width)
            )

    def places(self, slots, columns) -> torch.Tensor:
        """Flat places of each head's entry at slots (M,) and columns (M,): (M * heads,)."""
        at = (np.asarray(slots)[:, None] * self.heads + np.arange(self.heads)) * self.keys.shape[3]
        return torch.from_numpy((at + np.asarray(columns)[:, None]).reshape(-1)).to(
            self.keys.device
        )


def zeros(shape, dtype, device) -> torch.Tensor:
    """torch.zeros whose memory on a CPU is not touched before it is used."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return (
        torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, np.uint8))
        .view(dtype)
        .view(shape)
    )


class StepAttention:
    """The layout of one decoding step: the next tokens of all families' prefixes, packed family by
    family.
    """

    def __init__(self, cache: KeyValueCache):
        self.cache, sizes = cache, [len(family.tokens) for family in cache.families]
        self.slots, self.rows, self.used = len(sizes), max(sizes), cache.used(slice(0, len(sizes)))
        slots = np.repeat(np.arange(self.slots), sizes)
        rows = np.concatenate([np.arange(size) for size in sizes])
        self.places = cache.places(
            slots, np.concatenate([family.columns for family in cache.families])
        )

        sees = cache.sees[: self.slots, : self.rows, : self.used]
        sees = np.where(
            sees.any(-1, keepdims=True), sees, np.arange(self.used) == 0
        )  # a row of padding sees something
        bias = np.where(np.tile(sees, (1, cache.groups, 1)), np.float32(0), np.float32(-np.inf))
        self.bias = torch.from_numpy(bias)[:, None].to(cache.keys.device, cache.keys.dtype)

        packed = np.zeros(
            (self.slots, self.rows), int
        )  # where each slot's row stands among the packed ones
        packed[slots, rows] = np.arange(len(rows))
        heads = np.arange(cache.query_heads)
        into = (
            packed[:, None] * cache.query_heads + heads[None, :, None]
        )  # (slots, query heads, rows)
        back = (slots[:, None] * cache.query_heads + heads) * self.rows + rows[
            :, None
        ]  # (N, query heads)
        self.into, self.back = (
            torch.from_numpy(x.reshape(-1)).to(cache.keys.device) for x in (into, back)
        )

    def attend(self, layer, query, key, value, scaling):
        """Attention of each prefix to its ancestors and itself: query (H, N, D) -> (H, N, D).

        The query heads of a key head are stacked as rows, so keys are never copied.
        """
        heads, count, width = query.shape
        self.cache.write(layer, self.places, key, value)
        keys, values = (
            x[layer, : self.slots, :, : self.used] for x in (self.cache.keys, self.cache.values)
        )
        stacked = query.transpose(0, 1).reshape(-1, width).index_select(0, self.into)
        stacked = stacked.view(self.slots, self.cache.heads, self.cache.groups * self.rows, width)
        out = F.scaled_dot_product_attention(
            stacked, keys, values, attn_mask=self.bias, scale=scaling
        )
        return (
            out.reshape(-1, width)
            .index_select(0, self.back)
            .view(count, heads, width)
            .transpose(0, 1)
        )


class PrefillAttention:
    """A trie's attention that also stores each prompt's entries in its family's slot."""

    def __init__(self, trie: Trie, cache: KeyValueCache, families: list[Family]):
        self.trie, self.cache = trie, cache
        self.nodes = torch.tensor(
            [node for path in trie.nodes for node in path], device=trie.tokens.device
        )
        slots = [
            family.slot for family, path in zip(families, trie.nodes, strict=True) for _ in path
        ]
        self.places = cache.places(
            slots, [column for path in trie.nodes for column in range(len(path))]
        )

    def attend(self, layer, query, key, value, scaling):
        self.cache.write(layer, self.places, key[:, self.nodes], value[:, self.nodes])
        return self.trie.attend(layer, query, key, value, scaling)


def run_prompts(
    policy: Policy, cache: KeyValueCache, prompts: list[list[int]], owners: list
) -> tuple[list[Family], torch.Tensor]:
    """Run the prompts' shared prefixes once: a family for each, and its last hidden state,
    (prompts, hidden).
    """
    trie = Trie(prompts, policy.device)
    cache.reserve(len(cache.families) + len(prompts), max(map(len, prompts)))
    families = [cache.add(owner) for owner in owners]
    for family, prompt in zip(families, prompts, strict=True):
        cache.sees[family.slot, 0, : len(prompt)] = True
    hidden = packed_hidden(
        policy.model.base_model, trie.tokens, trie.depths, PrefillAttention(trie, cache, families)
    )
    return families, hidden[[path[-1] for path in trie.nodes]]


def run_step(policy: Policy, cache: KeyValueCache, depths: list[int]) -> torch.Tensor:
    """Run the next token of every prefix, at positions `depths`; hidden states (prefixes, hidden)."""
    tokens = [token for family in cache.families for token in family.tokens]
    tokens, depths = (torch.tensor(x, device=policy.device) for x in (tokens, depths))
    return packed_hidden(policy.model.base_model, tokens, depths, StepAttention(cache))


class Answers:
    """The samples of one prompt, as they grow."""

    def __init__(self, index: int, prompt: list[int], draws: np.ndarray):
        self.index, self.prompt, self.draws = index, prompt, draws
        self.ids = [[] for _ in draws]
        self.logprobs, self.entropies = np.zeros(len(draws)), np.zeros(len(draws))
        self.open = 1  # families that go on
        self.depth = len(prompt)  # of the next token


@torch.inference_mode()
def decode(
    policy: Policy,
    prompts: list[list[int]],
    draws,
    max_new_tokens: int,
    rows: int = 256,
    entropies: bool = False,
) -> Iterator[dict]:
    """Completions of each prompt, one dict a prompt as it finishes.

    prompts: token ids; draws(i) gives the (n, max_new_tokens) uniform numbers of prompt i, or None
    for one greedy completion. About `rows` distinct prefixes are run together; a prompt is admitted
    when others finish, so memory does not grow with their number. Yields index, ids (n lists,
    end-of-text included), logprob (n,), finish (n of `stop` or `length`), and, if asked for,
    entropy (n,): the sum over the tokens, in nats. Raises ValueError for a prompt too long for the
    model. The model must not change before the last one is yielded.
    """
    longest, limit = max(map(len, prompts), default=0), policy.model.config.max_position_embeddings
    if longest + max_new_tokens > limit:
        raise ValueError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones do not fit the model's {limit} positions; "
            "shorten the question or lower max_new_tokens"
        )
    waiting, n = list(range(len(prompts)))[::-1], 1
    if prompts and (numbers := draws(0)) is not None:
        n = len(numbers)
    # a guess of how many families are in flight (of about 4 prefixes, or all of them full); else
    # the cache grows
    slots = max(1, min(rows * 5 // (4 * min(n, 4)), len(prompts) * -(-2 * n // FAMILY)))
    columns = longest + max(max_new_tokens, min(n, FAMILY) * min(max_new_tokens, 32))
    cache = KeyValueCache(policy, slots, columns)
    with packed_weights(policy.model):
        while waiting or cache.families:
            room = rows - sum(len(family.tokens) for family in cache.families)
            if waiting and room > rows // 4:
                numbers = draws(waiting[-1])
                width = (
                    1 if numbers is None else len(numbers)
                )  # as many prefixes as samples, at most
                batch = [
                    waiting.pop() for _ in range(min(len(waiting), max(1, room // width), PREFILL))
                ]
                drawn = [draws(i) for i in batch]
                owners = [
                    Answers(i, prompts[i], np.full((1, 1), np.nan) if numbers is None else numbers)
                    for i, numbers in zip(batch, drawn, strict=True)
                ]
                families, hidden = run_prompts(
                    policy, cache, [owner.prompt for owner in owners], owners
                )
                for family in families:
                    family.prefixes = [list(range(len(family.owner.draws)))]
            else:
                families = list(cache.families)
                hidden = run_step(
                    policy, cache, [f.owner.depth for f in families for _ in f.tokens]
                )
                for owner in {f.owner for f in families}:
                    owner.depth += 1
            for owner in _draw(policy, cache, hidden, families, max_new_tokens, entropies):
                done = {"index": owner.index, "ids": owner.ids, "logprob": owner.logprobs}
                done["finish"] = [
                    "stop" if ids[-1] in policy.stops else "length" for ids in owner.ids
                ]
                yield done | ({"entropy": owner.entropies} if entropies else {})


def _draw(policy, cache, hidden, families, max_new_tokens, entropies) -> list[Answers]:
    """Draw every sample's next token and regroup the samples by the prefixes they now share; the
    finished answers.
    """
    logits = policy.model.get_output_embeddings()(hidden).float()  # (N, V)
    if entropies:
        entropy, probs = softmax_(logits)[1].tolist(), logits
    else:
        entropy, probs = None, torch.softmax(logits, -1, out=logits)
    node, numbers = [], []
    for family in families:
        for prefix in family.prefixes:
            owner, row = family.owner, node[-1] + 1 if node else 0
            node += [row] * len(prefix)
            at = min(len(owner.ids[prefix[0]]), owner.draws.shape[1] - 1)
            numbers.append(owner.draws[prefix, at])
    tokens, logprobs = choose(
        probs, torch.tensor(node, device=hidden.device), np.concatenate(numbers)
    )
    at, finished = 0, []
    for family in families:
        owner, parents, prefixes, next_tokens = family.owner, [], [], []
        for parent, prefix in enumerate(family.prefixes):
            children = {}
            for s in prefix:
                token = tokens[at]
                owner.ids[s].append(token)
                owner.logprobs[s] += logprobs[at]
                if entropies:
                    owner.entropies[s] += entropy[node[at]]
                if token not in policy.stops and len(owner.ids[s]) < max_new_tokens:
                    children.setdefault(token, []).append(s)
                at += 1
            parents += [parent] * len(children)
            prefixes += children.values()
            next_tokens += children
        if next_tokens:
            before = len(cache.families)
            cache.extend(family, parents, prefixes, next_tokens)
            owner.open += len(cache.families) - before
        else:
            cache.remove(family)
            owner.open -= 1
            finished += [] if owner.open else [owner]
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
