"""Log-probabilities of chosen tokens, computed in the memory of the logits themselves."""

import torch

ROWS_AT_ONCE = 64  # so that all passes over a row meet it in the processor's cache


def rounded(logits: torch.Tensor) -> bool:
    """Whether the logits have half precision, in which a softmax would be rounded."""
    return logits.dtype.itemsize < 4


def softmax_(logits: torch.Tensor):
    """Overwrite logits (S, V) with their softmax; four figures of each row, (S,) each.

    They are the log of the softmax's denominator, the entropy in nats, the likeliest token, and the
    mean logit. `rounded` logits stay as they are.
    """
    figures = []
    for part in logits.split(ROWS_AT_ONCE):
        wide = part.float()  # (rows, V)
        p = wide.softmax(-1)  # (rows, V)
        top, best = wide.max(-1)  # (rows,) each
        log_z = top - p.gather(-1, best[:, None])[:, 0].log()  # (rows,)
        mean = wide.mean(-1)  # (rows,)

        # log_z - sum(p * logit), as a product of matrices: no further (rows, V) tensor is made
        entropy = log_z - torch.bmm(p[:, None], wide[:, :, None])[:, 0, 0]  # (rows,)

        figures.append((log_z, entropy, best, mean))
        if not rounded(logits):
            part.copy_(p)
    return tuple(torch.cat(column) for column in zip(*figures, strict=True))


class ChosenLogprobs(torch.autograd.Function):
    """log softmax(logits)[back, target] (M,), and three figures of the same rows without gradient.

    logits (S, V) are overwritten with their softmax, which is all that the gradient needs, unless
    they are `rounded`; back, target (M,): the row and the token. The figures, (M,) each: the row's
    entropy, whether the target is its likeliest token, and its mean logit.
    """

    @staticmethod
    def forward(ctx, logits, back, target):
        picked = logits[back, target].float()  # (M,), before the logits are overwritten
        log_z, *figures = softmax_(logits.detach())
        entropy, best, mean = (figure[back] for figure in figures)
        top1 = best == target

        ctx.save_for_backward(logits.detach(), log_z, back, target)
        ctx.mark_non_differentiable(entropy, top1, mean)
        return picked - log_z[back], entropy, top1, mean

    @staticmethod
    def backward(ctx, grad, *_):
        kept, log_z, back, target = ctx.saved_tensors

        # of a row with targets t and their gradients g: sum of g * (one-hot(t) - p)
        total = torch.zeros(len(kept), dtype=grad.dtype, device=grad.device)
        total = total.index_add_(0, back, grad)  # (S,)
        if not rounded(kept):
            slope = kept * -total[:, None].to(kept.dtype)  # (S, V)
            slope = slope.index_put_((back, target), grad.to(kept.dtype), accumulate=True)
            return slope, None, None

        # in half precision g - p g of a likely token cancels to nothing: each entry is rounded once
        slope = torch.empty_like(kept)
        parts = (x.split(ROWS_AT_ONCE) for x in (kept, log_z, total, slope))
        for logits, denominator, weight, out in zip(*parts, strict=True):
            out.copy_((logits.float() - denominator[:, None]).exp_().mul_(-weight[:, None]))
        width = kept.shape[1]
        entries, which = torch.unique(back * width + target, return_inverse=True)
        row, token = entries // width, entries % width
        own = grad.new_zeros(len(entries)).index_add_(0, which, grad)
        own -= total[row] * (kept[row, token].float() - log_z[row]).exp()
        return slope.index_put_((row, token), own.to(slope.dtype)), None, None
