"""The engine: token rows that share prefixes run as one packed trie, every distinct prefix once.

Rows such as `[system prompt | question | answer]` agree on most of their tokens. They are folded
into a trie whose nodes, in depth-first order, are one packed input of shape (1, N). Each node
attends to its ancestors only, so every hidden state equals the one that the row alone would give.
`share_prefixes` puts this under TRL's fused forward, so that GRPO, SFT and DPO trainers use it
without a change to their losses.
"""

from dataclasses import dataclass
from types import MethodType

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lib.engine.blocks import cut_blocks, grouped_attention
from lib.engine.linear import use_fast_products
from lib.engine.logprobs import ChosenLogprobs

INTERFACE = "shared_prefix"  # the name of our attention in transformers
EXACT_FOR = ("llama", "qwen2", "qwen3", "olmo2")  # checked in the tests against plain transformers
FUSED_INPUTS = ("input_ids", "attention_mask", "labels", "num_items_in_batch")


class Trie:
    """Token rows folded into a packed trie.

    `tokens` (N,), `depths` (N,): the nodes in depth-first order. `nodes[r]`: the node of each token
    of row r, in the order the rows came in.
    """

    def __init__(self, rows: list[list[int]], device="cpu"):
        tokens, depths, parents = [], [], []  # of each node
        children = {}  # (node, token) -> the child
        self.nodes = [None] * len(rows)

        for r in sorted(range(len(rows)), key=rows.__getitem__):  # sorted: nodes are depth first
            node, path = -1, []
            for depth, token in enumerate(rows[r]):
                child = children.get((node, token))
                if child is None:
                    child = children[node, token] = len(tokens)
                    tokens.append(token)
                    depths.append(depth)
                    parents.append(node)
                node = child
                path.append(node)
            self.nodes[r] = path

        self.tokens = torch.tensor(tokens, device=device)  # (N,)
        self.depths = torch.tensor(depths, device=device)  # (N,)
        self.blocks = cut_blocks(parents, device)

    def attend(self, layer, query, key, value, scaling):
        """Attention of every node to its ancestors and itself: query (H, N, D) -> (H, N, D)."""
        parts = []
        for block in self.blocks:
            own = slice(block.start, block.stop)
            k, v = key[:, own], value[:, own]  # (K, block, D) each
            if len(block.path):  # the ancestors' keys are copied once a block, not once a node
                k = torch.cat([key[:, block.path], k], 1)  # (K, P + block, D)
                v = torch.cat([value[:, block.path], v], 1)
            parts.append(grouped_attention(query[:, own], k, v, block.mask, scaling))
        return torch.cat(parts, 1)


def layout_attention(module, query, key, value, attention_mask, layout=None, scaling=None, **other):
    """transformers' attention interface: plain SDPA without a layout, else the layout's own.

    A layout has `attend(layer, query, key, value, scaling)` on (heads, N, D): a Trie, or a pass of
    lib.engine.passes.
    """
    if layout is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **other
        )
    out = layout.attend(module.layer_idx, query[0], key[0], value[0], scaling)  # (H, N, D)
    return out.transpose(0, 1)[None], None  # (1, N, H, D), and no attention weights


AttentionInterface.register(INTERFACE, layout_attention)
AttentionMaskInterface.register(INTERFACE, sdpa_mask)


def use_layouts(model) -> None:
    """Let `model` take packed layouts; raises ValueError where that would not be exact."""
    reason = why_not_exact(model.config)
    if reason:
        raise ValueError(f"shared prefixes are not exact for this model: {reason}")
    model.set_attn_implementation(INTERFACE)
    use_fast_products(model)


def why_not_exact(config) -> str | None:
    """Why packed layouts would change what a model of this config computes, or None."""
    if config.model_type not in EXACT_FOR:
        known = ", ".join(EXACT_FOR)
        return f"model type {config.model_type!r} is not among those checked: {known}"

    # a node attends to all its ancestors, which a layer with a window would not
    sliding = getattr(config, "use_sliding_window", bool(getattr(config, "sliding_window", None)))
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if sliding or kinds != {"full_attention"}:
        layers = f"{', '.join(sorted(kinds))}, sliding window {sliding}"
        return f"it has layers other than full attention ({layers})"
    return None


def packed_hidden(backbone, tokens, depths, layout) -> torch.Tensor:
    """Last hidden states (N, hidden) of packed tokens (N,) at positions `depths` (N,)."""
    # transformers passes a four-dimensional mask through as it is, so this empty one keeps it from
    # building one of N x N; the layout knows who attends to whom
    unused = torch.empty(1, 1, 0, 0, device=tokens.device)

    out = backbone(
        input_ids=tokens[None],
        position_ids=depths[None],
        attention_mask=unused,
        layout=layout,
        use_cache=False,
    )
    return out.last_hidden_state[0]


@dataclass
class Scores:
    """What TRL reads from its fused forward; fields (B, T - 1) are zero where nothing is scored."""

    loss: torch.Tensor  # ()
    log_probs: torch.Tensor  # (B, T - 1)
    entropy: torch.Tensor  # (B, T - 1), without gradient
    is_top1: torch.Tensor  # (B, T - 1), whether the label is the likeliest token
    label_mask: torch.Tensor  # (B, T - 1), True where a label is scored
    mean_logits: torch.Tensor  # (B, T - 1)
    aux_loss: None = None


def shared_scores(
    model, input_ids, attention_mask, labels, temperature=1.0, num_items_in_batch=None
) -> Scores:
    """Log-probabilities of the labelled tokens, each shared prefix run once.

    input_ids, attention_mask, labels (B, T), padding on either side. Labels equal input_ids where
    they are scored and are -100 elsewhere. Position ids count each row's own tokens from 0.
    """
    # 1) every distinct prefix once
    keep = attention_mask.bool()  # (B, T)
    rows = [ids[mask].tolist() for ids, mask in zip(input_ids, keep, strict=True)]
    trie = Trie(rows, input_ids.device)
    hidden = packed_hidden(model.base_model, trie.tokens, trie.depths, trie)  # (N, hidden)

    # 2) the node of each token; a label is predicted by the node before it
    nodes = [node for path in trie.nodes for node in path]
    node = torch.zeros_like(input_ids)  # (B, T)
    node[keep] = torch.tensor(nodes, device=input_ids.device)
    scored = labels[:, 1:] != -100  # (B, T - 1)
    sources, back = node[:, :-1][scored].unique(return_inverse=True)  # (S,), (M,)

    # 3) the LM head on the S nodes that predict a label; hidden is smaller than logits, so dividing
    # it by the temperature is cheaper
    logits = model.get_output_embeddings()(hidden[sources] / temperature)  # (S, V)
    chosen, entropy, top1, mean = ChosenLogprobs.apply(logits, back, labels[:, 1:][scored])  # (M,)

    def spread(values):
        """Values (M,) at their labels' places, (B, T - 1)."""
        empty = torch.zeros(scored.shape, dtype=values.dtype, device=values.device)
        return empty.masked_scatter(scored, values)

    count = scored.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
    log_probs = spread(chosen)
    return Scores(
        -log_probs.sum() / count, log_probs, spread(entropy), spread(top1), scored, spread(mean)
    )


def share_prefixes(model, temperature: float = 1.0):
    """Let `model(input_ids, attention_mask, labels, fused_lm_head=True)` run shared prefixes once.

    TRL's trainers call that fused forward; call this after a trainer is built. Other calls are
    unchanged. Returns the model; a second call changes nothing. Raises ValueError for a model for
    which this would not be exact.
    """
    if getattr(model.forward, "shares_prefixes", False):
        return model
    use_layouts(model)
    plain = model.forward

    def forward(self, *args, fused_lm_head=False, **inputs):
        if not fused_lm_head:
            return plain(*args, **inputs)

        extra = [name for name, value in inputs.items() if value is not None]
        extra = sorted(set(extra) - {*FUSED_INPUTS, "use_cache"})
        if args or extra:
            known = ", ".join(FUSED_INPUTS)
            raise TypeError(
                f"the shared-prefix forward takes {known}; got also {extra or 'positional'}"
            )

        ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        mask = torch.ones_like(ids) if mask is None else mask
        items = inputs.get("num_items_in_batch")
        return shared_scores(self, ids, mask, inputs["labels"], temperature, items)

    forward.shares_prefixes = True
    model.forward = MethodType(forward, model)
    return model
