"""Keys and values of all prefixes in flight, one slot for each family of neighbouring prefixes."""

import math
import mmap
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch

FAMILY_SIZE = 10  # prefixes of a family: more wastes masked products, fewer copies more entries


@dataclass(eq=False)
class Family:
    """Neighbouring prefixes of one prompt, which share a slot of the cache."""

    owner: object  # whose prefixes they are: what decoding or a walk keeps for the prompt
    slot: int
    tokens: list[int] = field(default_factory=list)  # the next token of each prefix
    columns: list[int] = field(default_factory=list)  # where that token's entry goes
    prefixes: list[list[int]] = field(default_factory=list)  # samples that share each prefix


def key_heads(config) -> tuple[int, int]:
    """How many key heads a model of this configuration has, and the width of a head."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return getattr(config, "num_key_value_heads", None) or heads, width


class KeyValueCache:
    """Keys and values of all families, in slots 0, 1, …, so that one call attends for all of them.

    keys, values: (layers, slots, heads, columns, head width). sees (slots, size, columns): whether
    a slot's prefix attends to a column. A column that no prefix of its slot sees is free again.
    """

    def __init__(self, model, slots: int, columns: int, size: int = FAMILY_SIZE):
        config = model.config
        self.query_heads = config.num_attention_heads
        self.heads, self.width = key_heads(config)
        self.groups = self.query_heads // self.heads  # query heads of a key head

        shape = (config.num_hidden_layers, slots, self.heads, columns, self.width)
        self.keys = lazy_zeros(shape, model.dtype, model.device)
        self.values = lazy_zeros(shape, model.dtype, model.device)
        self.sees = np.zeros((slots, size, columns), bool)
        self.families: list[Family] = []

    def reserve(self, slots: int, columns: int) -> None:
        """Make room for so many slots and columns; what is too small grows by half at least."""
        _, old_slots, _, old_columns, _ = self.keys.shape
        if slots <= old_slots and columns <= old_columns:
            return

        # by half, so that a cache that grows column by column is seldom copied
        slots = max(slots, old_slots * 3 // 2) if slots > old_slots else old_slots
        columns = max(columns, old_columns * 3 // 2) if columns > old_columns else old_columns

        self.keys = self.enlarged(self.keys, slots, columns)
        self.values = self.enlarged(self.values, slots, columns)
        more = ((0, slots - old_slots), (0, 0), (0, columns - old_columns))
        self.sees = np.pad(self.sees, more)

    def enlarged(self, entries: torch.Tensor, slots: int, columns: int) -> torch.Tensor:
        """The keys or values with room for so many slots and columns."""
        shape = (len(entries), slots, self.heads, columns, self.width)
        larger = lazy_zeros(shape, entries.dtype, entries.device)
        # what nobody sees is not copied: it would only be touched
        slots = len(self.families)
        seen = np.flatnonzero(self.sees[:slots].any((0, 1)))
        used = int(seen[-1]) + 1 if len(seen) else 0
        larger[:, :slots, :, :used] = entries[:, :slots, :, :used]
        return larger

    def add(self, owner) -> Family:
        """A new family at the next slot."""
        family = Family(owner, len(self.families))
        self.reserve(family.slot + 1, 0)
        self.sees[family.slot] = False
        self.families.append(family)
        return family

    def remove(self, family: Family) -> None:
        """Drop a family; the last one takes its slot, so that the slots in use stay together."""
        last = self.families.pop()
        if last is not family:
            self.copy(last.slot, family.slot)
            last.slot = family.slot
            self.families[last.slot] = last

    def copy(self, source: int, target: int) -> None:
        """Copy one slot's entries to another, up to the last column that is seen."""
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
        """Let a family go on with the children of its prefixes; new families take what is too many.

        parents: the prefix that each child extends; prefixes: its samples; tokens: its next token.
        """
        parts = -(-len(tokens) // self.sees.shape[1])
        cuts = [len(tokens) * i // parts for i in range(parts + 1)]

        # the family itself comes last: the others copy its slot as it was
        for start, stop in reversed(list(pairwise(cuts))):
            part = family
            if start:
                part = self.add(family.owner)
                self.copy(family.slot, part.slot)

            part.tokens = tokens[start:stop]
            part.prefixes = prefixes[start:stop]
            seen = self.sees[part.slot, parents[start:stop]]  # (children, columns), a copy
            self.place(part, seen, free_columns(seen))

    def place(self, family: Family, seen: np.ndarray, columns: list[int]) -> None:
        """Give each prefix the columns that it sees, a row of `seen`, and one for its token."""
        self.reserve(0, max(columns) + 1)
        sees = self.sees[family.slot]  # (size, columns)
        sees[:] = False
        sees[: len(seen), : seen.shape[1]] = seen
        sees[np.arange(len(columns)), columns] = True
        family.columns = columns

    def write(self, layer: int, places: torch.Tensor, key, value) -> None:
        """Store key, value (heads, M, width) at flat places (M * heads,)."""
        for entries, new in ((self.keys, key), (self.values, value)):
            flat = entries[layer].view(-1, self.width)  # (slots * heads * columns, width)
            flat.index_copy_(0, places, new.transpose(0, 1).reshape(-1, self.width))

    def places(self, slots, columns) -> torch.Tensor:
        """Flat places of each head's entry at slots (M,) and columns (M,): (M * heads,)."""
        head = np.asarray(slots)[:, None] * self.heads + np.arange(self.heads)  # (M, heads)
        places = head * self.keys.shape[3] + np.asarray(columns)[:, None]
        return torch.from_numpy(places.reshape(-1)).to(self.keys.device)


def free_columns(seen: np.ndarray) -> list[int]:
    """One column for each prefix (row of `seen`) that none of them sees; new ones where too few."""
    prefixes, columns = seen.shape
    free = np.flatnonzero(~seen.any(0))[:prefixes].tolist()
    return free + list(range(columns, columns + prefixes - len(free)))


def lazy_zeros(shape: tuple[int, ...], dtype, device) -> torch.Tensor:
    """torch.zeros whose memory on a CPU is not touched before it is used."""
    count = math.prod(shape)
    if device.type != "cpu" or not count:
        return torch.zeros(shape, dtype=dtype, device=device)

    # pages of the system's, zero on first use and given back with the tensor; an allocator would
    # hand out used memory again, which has to be filled
    memory = mmap.mmap(-1, count * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype, count=count).view(shape)
