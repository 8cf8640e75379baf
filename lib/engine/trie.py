"""The engine: token rows that share prefixes run as one packed trie, every distinct prefix once,
exactly.

Rows such as `[system prompt | question | answer]` agree on most of their tokens. They are folded
into a trie whose nodes, in depth-first order, are one packed input of shape (1, N); each node
attends to its ancestors only, so every hidden state equals the one the row alone would give.
`share_prefixes` puts this under TRL's fused forward, so that GRPO, SFT and DPO trainers use it
without a change to their losses.
"""

from dataclasses import dataclass
from types import MethodType

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lib.engine.linear import use_fast_products

ATTENTION = "shared_prefix"
EXACT_FOR = ("llama", "qwen2", "qwen3", "olmo2")  # checked in the tests against plain transformers
BLOCK = 128  # nodes of one attention call: larger wastes masked products, smaller costs calls


@dataclass(frozen=True)
class Block:
    """Nodes `start:stop` of the packed input, the ancestors they all share, and who sees whom among
    them.
    """

    start: int
    stop: int
    path: torch.Tensor  # (P,) ancestors of every node of the block
    mask: torch.Tensor  # (stop - start, P + stop - start) True = attends


class Trie:
    """Token rows folded into a packed trie.

    `tokens` (N,), `depths` (N,): the nodes in depth-first order. `nodes[r]`: the node of each token
    of row r, in the order the rows came in.
    """

    def __init__(self, rows: list[list[int]], device="cpu"):
        order = sorted(
            range(len(rows)), key=rows.__getitem__
        )  # sorted rows are inserted depth first
        tokens, depths, parents, children = [], [], [], {}
        self.nodes = [None] * len(rows)
        for r in order:
            node, path = -1, []
            for depth, token in enumerate(rows[r]):
                child = children.get((node, token))
                if child is None:
                    child = children[node, token] = len(tokens)
                    tokens.append(token)
                    depths.append(depth)
                    parents.append(node)
                path.append(node := child)
            self.nodes[r] = path
        self.tokens = torch.tensor(tokens, device=device)
        self.depths = torch.tensor(depths, device=device)
        self.blocks = _blocks(parents, device)

    def attend(self, layer, query, key, value, scaling):
        """Attention of every node to itself and its ancestors: query (H, N, D) -> (H, N, D)."""
        parts = []
        for block in self.blocks:
            own = slice(block.start, block.stop)
            k, v = key[:, own], value[:, own]
            if len(block.path):
                k, v = (torch.cat([x[:, block.path], y], 1) for x, y in ((key, k), (value, v)))
            parts.append(grouped_attention(query[:, own], k, v, block.mask, scaling))
        return torch.cat(parts, 1)


def _blocks(parents: list[int], device) -> list[Block]:
    """The trie cut into blocks of at most BLOCK nodes that share one path of ancestors."""
    count = len(parents)
    size, kids = [1] * count, [[] for _ in range(count + 1)]  # kids[-1] are the roots
    for node in range(count - 1, -1, -1):
        kids[parents[node]].append(node)
        if parents[node] >= 0:
            size[parents[node]] += size[node]
    blocks, stack = [], [(kids[-1][::-1], [])]
    while stack:
        siblings, path = stack.pop()
        start = stop = siblings[0]
        for node in siblings:
            if stop - start + size[node] > BLOCK:
                blocks += [_block(start, stop, path, parents, device)] if stop > start else []
                start = node
            if size[node] <= BLOCK:
                stop = node + size[node]
                continue
            end = node  # too large for one block: its unary chain, then its branches
            while len(kids[end]) == 1 and end + 1 - node < BLOCK:
                end += 1
            blocks.append(_block(node, end + 1, path, parents, device))
            stack.append((kids[end][::-1], path + list(range(node, end + 1))))
            start = stop = node + size[node]
        blocks += [_block(start, stop, path, parents, device)] if stop > start else []
    return sorted(blocks, key=lambda block: block.start)


def _block(start, stop, path, parents, device) -> Block:
    own = np.eye(stop - start, dtype=bool)
    for i in range(stop - start):
        if parents[start + i] >= start:
            own[i] |= own[parents[start + i] - start]
    mask = np.concatenate([np.ones((stop - start, len(path)), bool), own], 1)
    return Block(
        start,
        stop,
        torch.tensor(path, dtype=torch.long, device=device),
        torch.from_numpy(mask).to(device),
    )


def grouped_attention(query, key, value, mask, scaling, grouped=False):
    """Scaled dot-product attention with fewer key heads than query heads.

    query (H, Q, D), key and value (K, T, D), mask (Q, T) True = attends; returns (H, Q, D). The H /
    K query heads of a key head are stacked as rows, so keys are never copied; `grouped` says the
    mask has them already.
    """
    heads, rows, width = query.shape
    groups = heads // key.shape[0]
    stacked = query.reshape(1, key.shape[0], groups * rows, width)
    mask = mask if grouped else mask.repeat(groups, 1)
    out = F.scaled_dot_product_attention(
        stacked, key[None], value[None], attn_mask=mask, scale=scaling
    )
    return out.reshape(heads, rows, width)


def _attention(module, query, key, value, attention_mask, layout=None, scaling=None, **kwargs):
    """transformers' attention interface: plain SDPA, or a layout's own attention when one is
    passed.
    """
    if layout is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    out = layout.attend(module.layer_idx, query[0], key[0], value[0], scaling)  # (H, N, D)
    return out.transpose(0, 1)[None], None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def use_layouts(model) -> None:
    """Let `model` take packed layouts; raises ValueError with the reason where that would not be
    exact.
    """
    config = model.config
    sliding = getattr(config, "use_sliding_window", bool(getattr(config, "sliding_window", None)))
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if config.model_type not in EXACT_FOR:
        reason = (
            f"model type {config.model_type!r} is not among those checked: {', '.join(EXACT_FOR)}"
        )
    elif sliding or kinds != {"full_attention"}:
        others = ", ".join(sorted(kinds))
        reason = f"it has layers other than full attention ({others}, sliding window {sliding})"
    else:
        model.set_attn_implementation(ATTENTION)
        use_fast_products(model)
        return
    raise ValueError(f"shared prefixes are not exact for this model: {reason}")


def packed_hidden(backbone, tokens, depths, layout) -> torch.Tensor:
    """Last hidden states (N, hidden) of packed tokens (N,) at positions `depths` (N,) under a
    layout.
    """
    # a four-dimensional mask is passed through as it is, and no N x N one is built; the layout
    # knows who sees whom
    unused = torch.empty(1, 1, 0, 0, device=tokens.device)
    out = backbone(
        input_ids=tokens[None],
        position_ids=depths[None],
        attention_mask=unused,
        layout=layout,
        use_cache=False,
    )
    return out.last_hidden_state[0]


def softmax_(logits: torch.Tensor, rows: int = 64):
    """Overwrite logits (S, V) with their softmax; log of its denominator, entropy (nats), likeliest
    token, mean logit.

    Each of the four is (S,). Some rows at a time, so that all passes over a row meet it in the
    processor's cache.
    """
    found = []
    for part in logits.split(rows):
        wide = part.float()
        p = wide.softmax(-1)
        top, best = wide.max(-1)
        log_z = top - p.gather(-1, best[:, None])[:, 0].log()
        entropy = log_z - torch.bmm(p[:, None], wide[:, :, None])[:, 0, 0]
        found.append((log_z, entropy, best, wide.mean(-1)))
        part.copy_(p)
    return tuple(torch.cat(column) for column in zip(*found, strict=True))


class ChosenLogprobs(torch.autograd.Function):
    """log softmax(logits)[back, target], and of its row each one's entropy, whether the target is
    its likeliest token, and its mean logit; only the first carries a gradient.

    logits (S, V) are overwritten with their softmax, which is all that the gradient needs; back,
    target (M,).
    """

    @staticmethod
    def forward(ctx, logits, back, target):
        picked = logits[back, target].float()  # (M,)
        log_z, entropy, best, mean = (column[back] for column in softmax_(logits.detach()))
        top1 = best == target
        ctx.save_for_backward(logits.detach(), back, target)
        ctx.mark_non_differentiable(entropy, top1, mean)
        return picked - log_z, entropy, top1, mean

    @staticmethod
    def backward(ctx, grad, *_):
        p, back, target = ctx.saved_tensors
        total = torch.zeros(len(p), dtype=grad.dtype, device=grad.device).index_add_(0, back, grad)
        slope = p * -total[:, None].to(p.dtype)
        return slope.index_put_((back, target), grad.to(p.dtype), accumulate=True), None, None


@dataclass
class Scores:
    """What TRL reads from its fused forward; per-token fields have shape (B, T - 1), zero off the
    labels.
    """

    loss: torch.Tensor
    log_probs: torch.Tensor
    entropy: torch.Tensor  # without gradient
    is_top1: torch.Tensor
    label_mask: torch.Tensor
    mean_logits: torch.Tensor
    aux_loss: None = None


def shared_scores(
    model, input_ids, attention_mask, labels, temperature=1.0, num_items_in_batch=None
) -> Scores:
    """Log-probabilities of the labelled tokens, each shared prefix run once.

    input_ids, attention_mask, labels (B, T), padding on either side; labels equal input_ids where
    scored, and are -100 elsewhere. Position ids count each row's own tokens from 0.
    """
    keep = attention_mask.bool()
    rows = [ids[m].tolist() for ids, m in zip(input_ids, keep, strict=True)]
    trie = Trie(rows, input_ids.device)
    hidden = packed_hidden(model.base_model, trie.tokens, trie.depths, trie)  # (N, hidden)
    node = torch.zeros_like(input_ids)
    node[keep] = torch.tensor([n for path in trie.nodes for n in path], device=input_ids.device)

    scored = labels[:, 1:] != -100  # (B, T - 1)
    sources, back = node[:, :-1][scored].unique(
        return_inverse=True
    )  # a node that predicts many tokens is run once
    logits = model.get_output_embeddings()(
        hidden[sources] / temperature
    )  # (S, V); dividing before is cheaper
    chosen, entropy, top1, mean = ChosenLogprobs.apply(logits, back, labels[:, 1:][scored])

    def spread(values):
        return torch.zeros(scored.shape, dtype=values.dtype, device=values.device).masked_scatter(
            scored, values
        )

    count = scored.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
    log_probs = spread(chosen)
    return Scores(
        -log_probs.sum() / count, log_probs, spread(entropy), spread(top1), scored, spread(mean)
    )


def share_prefixes(model, temperature: float = 1.0):
    """Make `model(input_ids, attention_mask, labels, fused_lm_head=True)` run each shared prefix
    once.

    TRL's trainers call that fused forward; call this after a trainer is built. Other calls are
    unchanged. Returns the model; a second call changes nothing. Raises ValueError for models this
    would not be exact for.
    """
    if getattr(model.forward, "shares_prefixes", False):
        return model
    use_layouts(model)
    plain = model.forward

    def forward(self, *args, fused_lm_head=False, **kwargs):
        if not fused_lm_head:
            return plain(*args, **kwargs)
        known = ("input_ids", "attention_mask", "labels", "num_items_in_batch")
        extra = sorted(
            k for k, v in kwargs.items() if k not in (*known, "use_cache") and v is not None
        )
        if args or extra:
            raise TypeError(
                f"the shared-prefix forward takes {', '.join(known)}; got also "
                f"{extra or 'positional'}"
            )
        ids = kwargs["input_ids"]
        mask = kwargs.get("attention_mask")
        return shared_scores(
            self,
            ids,
            torch.ones_like(ids) if mask is None else mask,
            kwargs["labels"],
            temperature,
            kwargs.get("num_items_in_batch"),
        )

    forward.shares_prefixes = True
    model.forward = MethodType(forward, model)
    return model
