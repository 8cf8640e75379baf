"""The faster linear layer gives torch's own values and gradients; what is saved stays the same."""

import copy
import math

import pytest
import torch

from lib.engine import linear as products
from lib.engine.logprobs import ChosenLogprobs
from tests.tiny import tiny_model

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this build of torch has no oneDNN"
)


@pytest.fixture(autouse=True)
def everywhere(monkeypatch):
    """The faster products on every processor."""
    monkeypatch.setattr(products, "FASTER", True)


@pytest.mark.parametrize("shape", [(7, 48), (2, 5, 48), (1, 48)])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_are_those_of_torch(shape, bias):
    torch.manual_seed(0)
    plain = torch.nn.Linear(48, 80, bias=bias)
    fast = copy.deepcopy(plain)
    products.use_fast_products(torch.nn.Sequential(fast))
    assert type(fast) is products.Linear

    x = torch.randn(shape, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    slope = torch.randn(*shape[:-1], 80)
    (plain(x) * slope).sum().backward()
    (fast(other) * slope).sum().backward()

    torch.testing.assert_close(fast(other), plain(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(other.grad, x.grad, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)


def test_frozen_weights_other_types_and_empty_input_take_torchs_own_path():
    fast = torch.nn.Linear(8, 4)
    products.use_fast_products(torch.nn.Sequential(fast))
    fast.requires_grad_(False)
    x = torch.randn(3, 8, requires_grad=True)
    fast(x).sum().backward()
    torch.testing.assert_close(x.grad, fast.weight.sum(0).expand(3, 8))

    assert fast(torch.zeros(0, 8)).shape == (0, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert fast(x).dtype == torch.bfloat16
    assert fast.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "olmo2"])
def test_a_model_keeps_its_names_and_weights(kind):
    model = tiny_model(kind)
    changed = copy.deepcopy(model)
    products.use_fast_products(changed)
    ids = torch.arange(12)[None]
    torch.testing.assert_close(changed(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-4)
    assert list(changed.state_dict()) == list(model.state_dict())

    again = copy.deepcopy(changed)
    ours = sum(type(m) is products.Linear for m in again.modules())
    assert ours == sum(type(m) is torch.nn.Linear for m in model.modules())


def test_packed_weights_serve_inference_only_and_are_given_back():
    model = tiny_model("qwen2")  # it has biases
    products.use_fast_products(model)
    ids = torch.arange(12)[None]
    layers = [module for module in model.modules() if type(module) is products.Linear]

    with products.packed_weights(model):
        assert all(layer.packed is not None for layer in layers)
        model(ids).logits.sum().backward()  # the ordinary path: packed weights have no gradient
        assert all(layer.weight.grad is not None for layer in layers)
        with torch.inference_mode():
            packed = model(ids).logits

    assert all(layer.packed is None for layer in layers)
    torch.testing.assert_close(packed, model(ids).logits, atol=1e-5, rtol=1e-4)
    with pytest.raises(KeyError), products.packed_weights(model):
        raise KeyError
    assert all(layer.packed is None for layer in layers)


BF16 = [name for name in ("avx512_bf16", "amx_bf16") if torch.cpu.get_capabilities().get(name)]


@pytest.mark.skipif(not BF16, reason="the processor has no bf16 products")
def test_bf16_products_are_those_of_decoding_alone():
    model = tiny_model("qwen2")  # it has biases
    products.use_fast_products(model)
    ids = torch.arange(12)[None]
    with torch.inference_mode():
        exact = model(ids)
    products.use_bf16_products(model)

    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, exact.logits, atol=0, rtol=0)
        with products.packed_weights(model):
            rounded = model(ids)
    assert rounded.logits.dtype == torch.float32
    off = (rounded.logits - exact.logits).abs().max()
    assert 0 < off < 2**-5 * exact.logits.abs().max()
    model(ids).logits.sum().backward()
    gradient = model.model.layers[0].mlp.up_proj.weight.grad.clone()
    model.zero_grad()
    with products.packed_weights(model):  # what learns is exact
        model(ids).logits.sum().backward()
    torch.testing.assert_close(model.model.layers[0].mlp.up_proj.weight.grad, gradient)
    assert model.lm_head.packed_dtype == torch.float32

    # one layer by hand: inputs, weight and product rounded to 8 bits, the bias not
    layer, x = model.model.layers[0].self_attn.q_proj, torch.randn(3, model.config.hidden_size)
    by_hand = (x.bfloat16().float() @ layer.weight.bfloat16().float().T).bfloat16().float()
    with products.packed_weights(model), torch.inference_mode():
        torch.testing.assert_close(layer(x), by_hand + layer.bias, atol=1e-6, rtol=2**-7)


def test_bf16_products_are_refused_where_they_would_be_imitated(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True})
    with pytest.raises(ValueError, match="bf16_products: this processor has none"):
        products.use_bf16_products(tiny_model("qwen2"))


@pytest.mark.skipif(not BF16, reason="the processor has no bf16 products")
def test_bf16_products_are_refused_where_no_weights_are_packed(monkeypatch):
    monkeypatch.setattr(products, "PACKED_MOST", 1000)
    with pytest.raises(ValueError, match="bf16_products: its copy of the weights"):
        products.use_bf16_products(tiny_model("qwen2"))


def test_a_large_model_is_not_packed_twice(monkeypatch):
    model = tiny_model("qwen2")
    products.use_fast_products(model)
    layers = [module for module in model.modules() if type(module) is products.Linear]
    size = 4 * sum(layer.weight.numel() for layer in layers)
    for most, packed in ((size, True), (size - 1, False)):
        monkeypatch.setattr(products, "PACKED_MOST", most)
        with products.packed_weights(model):
            assert all((layer.packed is not None) is packed for layer in layers)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_the_gradient_of_a_likely_token_survives_half_precision(share):
    """In bf16 g - p g of a token with p = .999 is 0; the exact gradient is (1 - p) g."""
    torch.manual_seed(0)
    logits, target = torch.randn(130, 500), torch.randint(0, 500, (130,))
    others = logits.scatter(1, target[:, None], -torch.inf).logsumexp(-1)
    logits[torch.arange(130), target] = others + math.log(share / (1 - share))
    half = logits.bfloat16()
    # the first row has one target twice, and another one
    back = torch.cat([torch.arange(130), torch.tensor([0, 0])])
    target = torch.cat([target, target[:1], (target[:1] + 1) % 500])
    weight = torch.randn(132)

    exact = half.double().requires_grad_()
    (exact.log_softmax(-1)[back, target] * weight).sum().backward()
    given = half.clone().requires_grad_()
    (ChosenLogprobs.apply(given * 1, back, target)[0] * weight).sum().backward()
    assert given.grad.dtype == torch.bfloat16
    error = (given.grad.double() - exact.grad).norm() / exact.grad.norm()
    assert error < 0.003  # rounded once: 2^-9


def test_chosen_logprobs_by_hand():
    """Two rows of (1/2, 1/4, 1/4) and (1/8, 7/8, 0): three targets, the first row twice."""
    p = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.875, 1e-30]], dtype=torch.float64)
    logits = (p.log() + torch.tensor([[3.0], [-2.0]])).requires_grad_()
    back, target = torch.tensor([0, 0, 1]), torch.tensor([1, 0, 1])

    logprobs, entropy, top1, mean = ChosenLogprobs.apply(logits.clone(), back, target)
    assert logprobs.tolist() == pytest.approx([-1.386294, -0.693147, -0.133531], abs=1e-5)
    assert entropy.tolist() == pytest.approx([1.039721, 1.039721, 0.376770], abs=1e-5)
    assert top1.tolist() == [False, True, True]
    assert mean[:2].tolist() == pytest.approx([3 + (-0.693147 - 2 * 1.386294) / 3] * 2, abs=1e-5)

    # sum over a row's targets of weight * (one-hot - p): [2, 1, 0] - 3 p, then -([0, 1, 0] - p)
    (logprobs * torch.tensor([1.0, 2.0, -1.0])).sum().backward()
    assert logits.grad[0].tolist() == pytest.approx([0.5, 0.25, -0.75], abs=1e-5)
    assert logits.grad[1].tolist() == pytest.approx([0.125, -0.125, 0.0], abs=1e-5)
