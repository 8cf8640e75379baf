"""Matrix products on a CPU: oneDNN's fp32 kernels where the default library's are slow, and bf16.

PyTorch multiplies fp32 matrices with MKL, which runs AMD's processors at about half of what their
AVX units give. oneDNN, which PyTorch ships too, does not look at the maker. It has the same
precision and another order of the sums. On request decoding multiplies in bf16.
"""

from contextlib import contextmanager
from pathlib import Path

import torch
from torch.nn import Parameter


def _mkl_is_slow() -> bool:
    """Whether MKL would serve a processor of AMD's; by its maker, not by timing, so runs repeat."""
    cpuinfo = Path("/proc/cpuinfo")
    amd = cpuinfo.exists() and "AuthenticAMD" in cpuinfo.read_text()
    mkl = torch.backends.mkl.is_available()
    return amd and mkl and hasattr(torch.ops.mkldnn, "_linear_pointwise")


FASTER = _mkl_is_slow()
# bytes of weights that are packed at most: a copy of a small model speeds its short products up, a
# copy of a large one takes more memory than its training
PACKED_MOST = 2 * 2**30


def product(x, weight, bias=None):
    """x (…, K) @ weight (M, K).T + bias (M,) by oneDNN, fp32 on a CPU; transposes may be views."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class Products(torch.autograd.Function):
    """The linear layer with both of its gradients by `product`: x (…, K) -> (…, M)."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors  # (…, K), (M, K)
        slopes = grad.reshape(-1, grad.shape[-1])  # (N, M)

        for_x = for_weight = None
        if ctx.needs_input_grad[0]:
            for_x = product(slopes, weight.t()).reshape(x.shape)  # (…, K)
        if ctx.needs_input_grad[1]:
            inputs = x.reshape(-1, x.shape[-1])  # (N, K)
            for_weight = product(slopes.t(), inputs.t())  # (M, K)
        return for_x, for_weight, slopes.sum(0) if ctx.biased else None


class Linear(torch.nn.Linear):
    """A torch.nn.Linear whose fp32 products on the CPU are oneDNN's."""

    packed = None  # the weight in oneDNN's own layout, while packed_weights is open
    packed_dtype = torch.float32

    def forward(self, x):
        if x.dtype == self.weight.dtype == torch.float32 and x.numel() and self.plain():
            # the packed copy has no gradient, so it serves inference only
            if self.packed is None or not torch.is_inference_mode_enabled():
                learn = Products.apply if FASTER else torch.nn.functional.linear
                return learn(x, self.weight, self.bias)
            if self.packed_dtype == torch.float32:
                return product(x, self.packed, self.bias)
            out = product(x.to(self.packed_dtype), self.packed).float()
            return out if self.bias is None else out + self.bias
        return super().forward(x)

    def plain(self) -> bool:
        """Whether the weight is an ordinary one on the CPU, and no other precision is asked for."""
        on_cpu = type(self.weight) is Parameter and self.weight.device.type == "cpu"
        return on_cpu and not torch.is_autocast_enabled("cpu")

    def pack(self, rows: int = 256) -> None:
        """Keep a copy of the weight in oneDNN's layout for products with about so many rows."""
        if self.plain() and self.weight.dtype == torch.float32:
            weight = self.weight.detach().to(self.packed_dtype)
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)


def use_fast_products(model) -> None:
    """Let the model's linear layers take the faster products; its parameters stay as they are."""
    for module in model.modules() if FASTER else ():
        # another class on the same object: names, hooks and saved weights do not change
        if type(module) is torch.nn.Linear:
            module.__class__ = Linear


def use_bf16_products(model) -> None:
    """Let decoding multiply in bf16, which takes half the time; what learns stays in fp32.

    The inputs, weights and outputs of every layer but the one that gives the logits are rounded to
    bf16's 8 bits. Raises ValueError where the processor would only imitate such products, and for
    a model that is too large to be packed.
    """
    features = torch.cpu.get_capabilities()
    if not (features.get("avx512_bf16") or features.get("amx_bf16")):
        raise ValueError(
            "sampling.bf16_products: this processor has none (AVX512-BF16 or AMX); use false"
        )
    output = model.get_output_embeddings()
    for module in model.modules():
        if type(module) in (Linear, torch.nn.Linear) and module is not output:
            module.__class__ = Linear
            module.packed_dtype = torch.bfloat16
    if _packed_bytes(model) > PACKED_MOST:
        raise ValueError(
            f"sampling.bf16_products: its copy of the weights would take more than "
            f"{PACKED_MOST / 2**30:.0f} GB; use false"
        )


def _packed_bytes(model) -> int:
    layers = (module for module in model.modules() if type(module) is Linear)
    return sum(layer.weight.numel() * layer.packed_dtype.itemsize for layer in layers)


@contextmanager
def packed_weights(model):
    """While it is open, products without gradient take packed weights, which must not change.

    A model with more than PACKED_MOST bytes of them stays as it is; by its size and not by the
    memory that is free, so that a run repeats.
    """
    layers = [module for module in model.modules() if type(module) is Linear]
    if _packed_bytes(model) > PACKED_MOST:
        layers = []
    try:
        for layer in layers:
            layer.pack()
        yield
    finally:
        for layer in layers:
            layer.packed = None
