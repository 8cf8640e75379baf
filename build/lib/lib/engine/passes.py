"""Two passes of the model: prompts into the cache, then one token of every prefix in flight."""

import numpy as np
import torch
import torch.nn.functional as F

from lib.engine.families import Family, KeyValueCache
from lib.engine.trie import Trie, packed_hidden

PREFILL = 64  # prompts of one prefill


class PrefillAttention:
    """A trie's attention that also stores each prompt's entries in its family's slot."""

    def __init__(self, trie: Trie, cache: KeyValueCache, families: list[Family]):
        self.trie = trie
        self.cache = cache

        # an entry for every token of every prompt: a node that prompts share is stored for each
        slots, columns, nodes = [], [], []
        for family, path in zip(families, trie.nodes, strict=True):
            slots += [family.slot] * len(path)
            columns += range(len(path))
            nodes += path
        self.nodes = torch.tensor(nodes, device=trie.tokens.device)  # (M,)
        self.places = cache.places(slots, columns)  # (M * heads,)

    def attend(self, layer, query, key, value, scaling):
        """Attention of every node to its ancestors and itself: query (H, N, D) -> (H, N, D)."""
        self.cache.write(layer, self.places, key[:, self.nodes], value[:, self.nodes])
        return self.trie.attend(layer, query, key, value, scaling)


class StepAttention:
    """The attention of one decoding step: the next token of every prefix, family by family.

    The model runs the N tokens packed, (H, N, D). Attention runs them slot by slot, `rows` a slot,
    so that one call serves families of different sizes; the rows that are too many are padding.
    """

    def __init__(self, cache: KeyValueCache):
        sizes = [len(family.tokens) for family in cache.families]
        self.cache = cache
        self.slots = len(sizes)
        self.rows = max(sizes)
        self.used = cache.used(slice(0, self.slots))  # columns

        # token i of the N is row rows[i] of slot slots[i], and its entry goes to columns[i]
        slots = np.repeat(np.arange(self.slots), sizes)
        rows = np.concatenate([np.arange(size) for size in sizes])
        columns = np.concatenate([family.columns for family in cache.families])
        self.places = cache.places(slots, columns)  # (N * key heads,)

        self.bias = self.make_bias()
        self.into, self.back = self.make_order(slots, rows)

    def make_bias(self) -> torch.Tensor:
        """0 where a row attends to a column and -inf elsewhere: (slots, 1, groups * rows, used)."""
        cache = self.cache
        sees = cache.sees[: self.slots, : self.rows, : self.used]  # (slots, rows, used)

        # padding sees nothing, and the softmax of nothing is NaN: let it see the first column
        first = np.arange(self.used) == 0
        sees = np.where(sees.any(-1, keepdims=True), sees, first)

        sees = np.tile(sees, (1, cache.groups, 1))  # once for each query head of a key head
        bias = np.where(sees, np.float32(0), np.float32(-np.inf))
        return torch.from_numpy(bias)[:, None].to(cache.keys.device, cache.keys.dtype)

    def make_order(self, slots, rows) -> tuple[torch.Tensor, torch.Tensor]:
        """From the packed order of rows to attention's, (slots * H * rows,), and back, (N * H,).

        Packed rows are ordered by (token, head), attention's by (slot, head, row).
        """
        cache = self.cache
        heads = np.arange(cache.query_heads)  # (H,)

        token = np.zeros((self.slots, self.rows), int)  # of each slot's row; padding copies token 0
        token[slots, rows] = np.arange(len(rows))
        into = token[:, None] * cache.query_heads + heads[:, None]  # (slots, H, rows)

        back = (slots[:, None] * cache.query_heads + heads) * self.rows + rows[:, None]  # (N, H)

        device = cache.keys.device
        return tuple(torch.from_numpy(x.reshape(-1)).to(device) for x in (into, back))

    def attend(self, layer, query, key, value, scaling):
        """Attention of each prefix to its ancestors and itself: query (H, N, D) -> (H, N, D).

        The query heads of a key head are stacked as rows, so keys are never copied.
        """
        cache = self.cache
        heads, count, width = query.shape
        cache.write(layer, self.places, key, value)
        keys = cache.keys[layer, : self.slots, :, : self.used]  # (slots, K, used, D)
        values = cache.values[layer, : self.slots, :, : self.used]

        stacked = query.transpose(0, 1).reshape(-1, width).index_select(0, self.into)
        stacked = stacked.view(self.slots, cache.heads, cache.groups * self.rows, width)
        out = F.scaled_dot_product_attention(
            stacked, keys, values, attn_mask=self.bias, scale=scaling
        )  # (slots, K, groups * rows, D)

        packed = out.reshape(-1, width).index_select(0, self.back)  # (N * H, D)
        return packed.view(count, heads, width).transpose(0, 1)


def run_prompts(model, cache: KeyValueCache, owners: list) -> tuple[list[Family], torch.Tensor]:
    """Run the owners' prompts: a family for each, and its last hidden state, (owners, hidden).

    An owner has its token ids as `prompt`. What the prompts share is run once.
    """
    prompts = [owner.prompt for owner in owners]
    trie = Trie(prompts, model.device)

    # room for all at once: growing copies the whole cache
    cache.reserve(len(cache.families) + len(prompts), max(map(len, prompts)))
    families = [cache.add(owner) for owner in owners]
    for family, prompt in zip(families, prompts, strict=True):
        cache.sees[family.slot, 0, : len(prompt)] = True

    layout = PrefillAttention(trie, cache, families)
    hidden = packed_hidden(model.base_model, trie.tokens, trie.depths, layout)  # (N, hidden)
    return families, hidden[[path[-1] for path in trie.nodes]]


def run_step(model, cache: KeyValueCache, depths: list[int]) -> torch.Tensor:
    """Run the next token of every prefix, at positions `depths`; hidden states (N, hidden)."""
    tokens = [token for family in cache.families for token in family.tokens]
    tokens = torch.tensor(tokens, device=model.device)  # (N,)
    depths = torch.tensor(depths, device=model.device)  # (N,)
    return packed_hidden(model.base_model, tokens, depths, StepAttention(cache))
