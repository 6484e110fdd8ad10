"""Blocks of pixels give what the whole map gives: results, gradients, and gradients of gradients."""

import literal
import pytest
import torch
from parity import assert_parity

from cfii import CIT, ECEG, FEU, CFIINeck, blockwise, create_model
from cfii.blockwise import cut

MODULES = {
    "ECEG": (lambda: ECEG(6, 5), literal.eceg, lambda: [torch.randn(3, 6, 7, 5)]),
    "CIT": (lambda: CIT(8), literal.cit, lambda: [torch.randn(3, 5, 8), torch.randn(3, 8, 7, 5)]),
    "CIT, folded heads": (
        lambda: CIT(32, num_heads=8),
        literal.cit,
        lambda: [torch.randn(3, 2, 32), torch.randn(3, 32, 7, 5)],
    ),
    "CIT, heads in order": (
        lambda: CIT(8, num_heads=4),
        literal.cit,
        lambda: [torch.randn(3, 5, 8), torch.randn(3, 8, 7, 5)],
    ),
    "FEU": (lambda: FEU(7, 4), literal.feu, lambda: [torch.randn(3, 7, 4, 3), torch.randn(3, 4, 7, 5)]),
}
# Numbers a block: several samples, a sample a thread, a few pixels, one pixel.
SIZES = [4000, 300, 64, 1]


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of so many numbers, for however small maps."""

    def set_size(size):
        monkeypatch.setattr(blockwise, "LARGE", 0)
        monkeypatch.setattr(blockwise, "BLOCK", size)

    return set_size


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MODULES)
def test_is_its_equations_block_by_block(name, size, dtype, small_blocks):
    small_blocks(size)
    module, oracle, inputs = MODULES[name]
    assert_parity(module(), oracle, inputs(), dtype)


@pytest.mark.parametrize("name", MODULES)
def test_channels_last_block_by_block(name, small_blocks):
    small_blocks(64)
    module, oracle, inputs = MODULES[name]

    def last(module, *inputs):
        return module(*(x.to(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs))

    made = module()
    made.register_forward_pre_hook(
        lambda _, xs: tuple(x.to(memory_format=torch.channels_last) if x.ndim == 4 else x for x in xs)
    )
    assert_parity(made, oracle, inputs(), torch.float64)


@pytest.mark.parametrize("name", MODULES)
def test_constant_maps_share_the_gradient_of_a_maximum(name, small_blocks):
    """All values of a map the same: each maximum is attained everywhere."""
    module, oracle, inputs = MODULES[name]
    made = module().double()
    given = [torch.ones_like(x).double().requires_grad_() for x in inputs()]
    gradients = []
    for size in (64, None):
        if size:
            small_blocks(size)
        outputs = made(*given) if size else oracle(made, *given)
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        weights = [torch.linspace(0, 1, x.numel(), dtype=x.dtype).view_as(x) for x in outputs]
        total = sum((x * w).sum() for x, w in zip(outputs, weights, strict=True))
        # A maximum over the pixels may go to any of them, so only its total is compared.
        gradients.append([g.sum((-2, -1)) for g in torch.autograd.grad(total, given)])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", MODULES)
def test_gradients_of_gradients(name, small_blocks):
    module, _, inputs = MODULES[name]
    made, given = module().double(), [x.double().requires_grad_() for x in inputs()]

    def penalty():
        outputs = made(*given)
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        first = torch.autograd.grad(sum(x.square().sum() for x in outputs), given, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), given)

    expected = penalty()
    small_blocks(64)
    for a, b in zip(penalty(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * b.abs().max().item())


@pytest.mark.parametrize("name", MODULES)
def test_autocast_is_the_same_in_the_backward(name, small_blocks):
    """What is computed again must be computed in the same precision: equal within bfloat16's rounding."""
    module, _, inputs = MODULES[name]
    made, given = module(), [x.requires_grad_() for x in inputs()]
    gradients = []
    for size in (None, 64):
        if size:
            small_blocks(size)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = made(*given)
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        gradients.append(torch.autograd.grad(sum(x.float().square().mean() for x in outputs), given))
    for a, b in zip(*gradients, strict=True):
        assert (a - b).norm() < 0.05 * b.norm()


def test_every_pixel_lies_in_one_block():
    for samples, pixels, widest in [(1, 10, 4), (5, 1000, 64), (7, 3, 2**17), (3, 2**15, 2**10)]:
        seen = torch.zeros(samples, pixels)
        for block in cut(torch.empty(samples, 1, pixels), widest):
            seen[block.samples, block.pixels] += 1
        assert (seen == 1).all()


def saved_bytes(function, *inputs):
    """Of distinct storages that autograd keeps, inputs included."""
    saved = {}

    def pack(x):
        saved[x.untyped_storage().data_ptr()] = x  # held, so that no storage is freed and counted twice
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        output = function(*inputs)
    del output
    return sum(x.untyped_storage().nbytes() for x in saved.values())


def test_keeps_little_more_than_its_inputs(small_blocks):
    module, e, f = CIT(16), torch.randn(1, 5, 16), torch.randn(1, 16, 64, 64, requires_grad=True)
    plain = saved_bytes(module, e, f)
    small_blocks(2**10)
    assert saved_bytes(module, e, f) < f.nbytes + 2**16 < plain / 4


def test_gradient_checkpointing():
    """The same gradients on any device, from less memory; off again on request."""
    neck = CFIINeck([16, 24], [1, 2], 5)
    features = [torch.randn(2, c, s, s, requires_grad=True) for c, s in ((16, 64), (24, 32))]

    def gradients():
        out, _, _ = neck(features)
        return torch.autograd.grad(
            sum(x.square().mean() for x in out), [*features, *neck.iterator.parameters()][:20]
        )

    expected, plain = gradients(), saved_bytes(neck, features)
    neck.set_grad_checkpointing()
    for a, b in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)
    assert saved_bytes(neck, features) < 0.7 * plain
    neck.set_grad_checkpointing(False)
    assert saved_bytes(neck, features) == plain


def test_gradient_checkpointing_of_a_network_reaches_its_encoder():
    model = create_model("timm-unet", 3, encoder_name="convnext_atto")
    model.set_grad_checkpointing()
    assert model.neck.iterator.feu[0].recompute and model.encoder.grad_checkpointing
    images = torch.randn(2, 3, 64, 64)
    model(images).square().mean().backward()
    assert all(p.grad is not None for p in model.neck.parameters() if p.requires_grad)
    model.set_grad_checkpointing(False)
    assert not model.neck.iterator.feu[0].recompute and not model.encoder.grad_checkpointing


def test_gradient_checkpointing_compiles():
    """As one graph for any size; what to keep is then the compiler's choice."""
    module = CIT(8)
    module.recompute = True
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in ((2, 8, 6, 4), (3, 8, 5, 7)):
        inputs = [torch.randn(size[0], 3, 8, requires_grad=True), torch.randn(size, requires_grad=True)]
        gradients = [
            torch.autograd.grad(sum(x.square().mean() for x in run(*inputs)), inputs)
            for run in (module, compiled)
        ]
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
