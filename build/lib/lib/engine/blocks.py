"""A packed trie cut into blocks of nodes that share their ancestors, and one block's attention."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

BLOCK_NODES = 128  # of one attention call: more wastes masked products, fewer costs calls


@dataclass(frozen=True)
class Block:
    """Nodes `start:stop` of the packed input, their common ancestors, and who attends to whom."""

    start: int
    stop: int
    path: torch.Tensor  # (P,) ancestors of every node of the block
    mask: torch.Tensor  # (stop - start, P + stop - start) True = attends


def cut_blocks(parents: list[int], device) -> list[Block]:
    """Blocks of at most BLOCK_NODES nodes, in the order of the nodes; each node is in one of them.

    parents[i]: the parent of node i, -1 for a root. The nodes are in depth-first order.
    """
    sizes, children = subtrees(parents)
    blocks = []
    stack = [(children[-1], [])]  # siblings whose subtrees are not cut yet, and their ancestors

    while stack:
        siblings, path = stack.pop()
        for start, stop in spans(siblings, sizes):
            if stop - start > BLOCK_NODES:
                # one subtree, too large for a block: its first nodes without a branch are a block,
                # and what grows from the last of them is cut later
                subtree, stop = start, start + 1
                while len(children[stop - 1]) == 1 and stop - subtree < BLOCK_NODES:
                    stop += 1
                stack.append((children[stop - 1], path + list(range(start, stop))))
            blocks.append(make_block(start, stop, path, parents, device))

    return sorted(blocks, key=lambda block: block.start)


def subtrees(parents: list[int]) -> tuple[list[int], list[list[int]]]:
    """Number of nodes in each node's subtree, and each node's children; children[-1]: the roots."""
    children = [[] for _ in range(len(parents) + 1)]
    for node, parent in enumerate(parents):
        children[parent].append(node)

    sizes = [1] * len(parents)
    for node in reversed(range(len(parents))):  # depth first: children come after their parent
        if parents[node] >= 0:
            sizes[parents[node]] += sizes[node]
    return sizes, children


def spans(siblings: list[int], sizes: list[int]) -> Iterator[tuple[int, int]]:
    """(start, stop) of the subtrees of neighbouring siblings that fit into one block together.

    A subtree that is too large for a block is a span of its own.
    """
    start = stop = siblings[0]
    for node in siblings:
        if stop > start and stop + sizes[node] - start > BLOCK_NODES:
            yield start, stop
            start = node
        stop = node + sizes[node]
    yield start, stop


def make_block(start: int, stop: int, path: list[int], parents: list[int], device) -> Block:
    """The block of nodes `start:stop`: each attends to `path`, its ancestors in it, and itself."""
    own = np.eye(stop - start, dtype=bool)
    for i, parent in enumerate(parents[start:stop]):
        if parent >= start:
            own[i] |= own[parent - start]  # a parent's row is whole before its children's

    mask = np.concatenate([np.ones((stop - start, len(path)), bool), own], 1)
    ancestors = torch.tensor(path, dtype=torch.long, device=device)
    return Block(start, stop, ancestors, torch.from_numpy(mask).to(device))


def grouped_attention(query, key, value, mask, scaling):
    """Scaled dot-product attention with fewer key heads than query heads: (H, Q, D).

    query (H, Q, D), key and value (K, T, D), mask (Q, T) True = attends. The H / K query heads of a
    key head are stacked as rows, so keys are never copied.
    """
    heads, rows, width = query.shape
    groups = heads // key.shape[0]
    stacked = query.reshape(1, key.shape[0], groups * rows, width)

    out = F.scaled_dot_product_attention(
        stacked, key[None], value[None], attn_mask=mask.repeat(groups, 1), scale=scaling
    )  # (1, K, H / K * Q, D)
    return out.reshape(heads, rows, width)
