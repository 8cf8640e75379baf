"""Log-probabilities of chosen tokens, computed in the memory of the logits themselves."""

import torch


def softmax_(logits: torch.Tensor, rows: int = 64):
    """Overwrite logits (S, V) with their softmax; four figures of each row, (S,) each.

    They are the log of the softmax's denominator, the entropy in nats, the likeliest token, and the
    mean logit. Some rows are done at a time, so that all passes over a row meet it in the
    processor's cache.
    """
    figures = []
    for part in logits.split(rows):
        wide = part.float()  # (rows, V)
        p = wide.softmax(-1)  # (rows, V)
        top, best = wide.max(-1)  # (rows,) each
        log_z = top - p.gather(-1, best[:, None])[:, 0].log()  # (rows,)
        mean = wide.mean(-1)  # (rows,)

        # log_z - sum(p * logit), as a product of matrices: no further (rows, V) tensor is made
        entropy = log_z - torch.bmm(p[:, None], wide[:, :, None])[:, 0, 0]  # (rows,)

        figures.append((log_z, entropy, best, mean))
        part.copy_(p)
    return tuple(torch.cat(column) for column in zip(*figures, strict=True))


class ChosenLogprobs(torch.autograd.Function):
    """log softmax(logits)[back, target] (M,), and three figures of the same rows without gradient.

    logits (S, V) are overwritten with their softmax, which is all that the gradient needs; back,
    target (M,): the row and the token. The figures, (M,) each: the row's entropy, whether the
    target is its likeliest token, and its mean logit.
    """

    @staticmethod
    def forward(ctx, logits, back, target):
        picked = logits[back, target].float()  # (M,), before the logits are overwritten
        log_z, entropy, best, mean = (figure[back] for figure in softmax_(logits.detach()))
        top1 = best == target

        ctx.save_for_backward(logits.detach(), back, target)
        ctx.mark_non_differentiable(entropy, top1, mean)
        return picked - log_z, entropy, top1, mean

    @staticmethod
    def backward(ctx, grad, *_):
        p, back, target = ctx.saved_tensors

        # of a row with targets t and their gradients g: sum of g * (one-hot(t) - p)
        total = torch.zeros(len(p), dtype=grad.dtype, device=grad.device)
        total = total.index_add_(0, back, grad)  # (S,)
        slope = p * -total[:, None].to(p.dtype)  # (S, V)
        slope = slope.index_put_((back, target), grad.to(p.dtype), accumulate=True)
        return slope, None, None
