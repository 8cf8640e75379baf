"""The cache of decoding: prefixes of one question are a family, and all families attend in one
call.

A family shares a slot of the cache. Each of its prefixes sees the columns of its ancestors; a
column that no prefix sees any more is free again.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from lib.engine.trie import Trie, packed_hidden

if TYPE_CHECKING:  # lib.engine.models uses this module
    from lib.engine.models import Policy

FAMILY = 10  # prefixes that attend together: larger wastes masked products, smaller copies more


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

    def __init__(self, policy: "Policy", slots: int, columns: int, size: int = FAMILY):
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
        """Give each prefix (row) the columns that it sees, and one for its next token."""
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
    policy: "Policy", cache: KeyValueCache, prompts: list[list[int]], owners: list
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


def run_step(policy: "Policy", cache: KeyValueCache, depths: list[int]) -> torch.Tensor:
    """Run the next token of every prefix, at `depths`; hidden states (prefixes, hidden)."""
    tokens = [token for family in cache.families for token in family.tokens]
    tokens, depths = (torch.tensor(x, device=policy.device) for x in (tokens, depths))
    return packed_hidden(policy.model.base_model, tokens, depths, StepAttention(cache))
