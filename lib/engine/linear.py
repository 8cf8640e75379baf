"""Matrix products in fp32 on a CPU: oneDNN's kernels where the default library's are slow.

PyTorch multiplies fp32 matrices with MKL, which runs AMD's processors at about half of what their
AVX units give; oneDNN, which PyTorch ships too, does not look at the maker. Same precision, another
order of the sums.
"""

from contextlib import contextmanager
from pathlib import Path

import torch
from torch.nn import Parameter


def _mkl_is_slow() -> bool:
    """Whether MKL would serve a processor that is not Intel's; the choice is by maker, so that runs
    repeat.
    """
    cpuinfo = Path("/proc/cpuinfo")
    amd = cpuinfo.exists() and "AuthenticAMD" in cpuinfo.read_text()
    return (
        amd and torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


FASTER = _mkl_is_slow()


def product(x, weight, bias=None):
    """x @ weight.T + bias for fp32 tensors on a CPU, by oneDNN; the transposes may be views."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """The linear layer with both of its gradients by `product`; x has any number of leading
    dimensions.
    """

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        for_x = product(rows, weight.t()).reshape(x.shape) if ctx.needs_input_grad[0] else None
        for_weight = (
            product(rows.t(), x.reshape(-1, x.shape[-1]).t()) if ctx.needs_input_grad[1] else None
        )
        return for_x, for_weight, rows.sum(0) if ctx.biased else None


class Linear(torch.nn.Linear):
    """A torch.nn.Linear whose fp32 products on the CPU are oneDNN's."""

    packed = None

    def forward(self, x):
        if x.dtype == self.weight.dtype == torch.float32 and x.numel() and self.plain():
            if self.packed is not None and torch.is_inference_mode_enabled():
                return product(x, self.packed, self.bias)
            return _Linear.apply(x, self.weight, self.bias)
        return super().forward(x)

    def plain(self) -> bool:
        """Whether the weight is an ordinary one on the CPU, and no other precision is asked for."""
        on_cpu = type(self.weight) is Parameter and self.weight.device.type == "cpu"
        return on_cpu and not torch.is_autocast_enabled("cpu")

    def pack(self, rows: int = 256) -> None:
        """Keep a copy of the weight in the layout that oneDNN likes best for products with about so
        many rows.
        """
        if self.plain() and self.weight.dtype == torch.float32:
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), rows)


def use_fast_products(model) -> None:
    """Let the model's linear layers take the faster products, where there are any; parameters stay
    as they are.
    """
    for module in model.modules() if FASTER else ():
        if type(module) is torch.nn.Linear:
            module.__class__ = Linear


@contextmanager
def packed_weights(model):
    """While it is open, products without gradient take the weights in oneDNN's own layout; they
    must not change.
    """
    layers = [module for module in model.modules() if type(module) is Linear]
    try:
        for layer in layers:
            layer.pack()
        yield
    finally:
        for layer in layers:
            layer.packed = None
