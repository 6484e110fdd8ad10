"""Half precision, hard inputs: finite outputs and gradients, and close to float32."""

import copy

import pytest
import torch

from cfii import CFIILoss, create_model

DTYPES = {torch.bfloat16: 0.06, torch.float16: 0.01}  # relative error of the logits that is allowed


def small(**options):
    torch.manual_seed(0)
    return create_model("resunet", 4, in_channels=1, **{"widths": (8, 16, 32), **options})


def relative(actual, expected):
    return ((actual.float() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1, 100])
def test_autocast_agrees_with_float32(dtype, scale):
    model, images = small().eval(), scale * torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = model(images)
        with torch.autocast("cpu", dtype=dtype):
            assert relative(model(images), expected) < DTYPES[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_networks_in_half_precision(dtype):
    model, images = small().eval(), torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = model(images)
        logits, embeddings, class_logits = copy.deepcopy(model).to(dtype)(images.to(dtype), return_aux=True)
    assert {x.dtype for x in (logits, *embeddings, *class_logits)} == {dtype}
    assert relative(logits, expected) < DTYPES[dtype]


def test_a_megapixel_times_a_hundred_in_float16():
    """Sums over 1024² pixels and values of a hundred do not fit into float16, whose largest is 65504."""
    model = small(widths=(4, 8, 8, 8, 8), sit_min_stride=16)
    images, labels = 100 * torch.randn(1, 1, 1024, 1024) + 100, torch.randint(0, 4, (1, 1024, 1024))
    with torch.autocast("cpu", dtype=torch.float16):
        output = model(images, return_aux=True)
        loss = CFIILoss(4)(output, labels)
    loss.backward()
    tensors = (output.logits, *output.embeddings, *output.class_logits, loss)
    assert all(x.isfinite().all() for x in tensors)
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, *DTYPES])
@pytest.mark.parametrize("value", [0.0, 1.0, -1000.0, 30000.0])
def test_constant_images(dtype, value):
    """Nothing to see: no class stands out, norms divide by next to nothing."""
    model, labels = small(), torch.zeros(2, 16, 16, dtype=torch.long)  # and all classes but one are empty
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        output = model(torch.full((2, 1, 16, 16), value), return_aux=True)
        loss = CFIILoss(4)(output, labels)
    loss.backward()
    assert output.logits.isfinite().all() and loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (4, 4)])
def test_one_pixel_maps(size):
    model = small().eval()  # at stride 4, a 4 x 4 image is one pixel
    output = model(torch.randn(2, 1, *size), return_aux=True)
    output.logits.sum().backward()
    assert output.logits.shape == (2, 4, *size) and output.logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_gradient_scaler_skips_no_step():
    """After ten steps, in which it finds its scale, 200 steps of float16."""
    model, criterion = small(), CFIILoss(4)
    optimizer, scaler = (
        torch.optim.SGD(model.parameters(), lr=0.01),
        torch.amp.GradScaler("cpu", init_scale=2.0**12),
    )
    steps = []
    hook = optimizer.register_step_post_hook(lambda *_: steps.append(1))
    for i in range(210):
        images = torch.randn(2, 1, 32, 32)
        labels = (images[:, 0] * 1.2 + 1.5).clamp(0, 3).long()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = criterion(model(images, return_aux=True), labels)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if i == 9:
            steps.clear()
    hook.remove()
    assert len(steps) == 200 and loss.isfinite()


def test_deterministic_algorithms():
    model, images = small(), torch.randn(2, 1, 32, 32)
    torch.use_deterministic_algorithms(True)
    try:
        outputs = []
        for _ in range(2):
            copied = copy.deepcopy(model)
            copied(images).square().mean().backward()
            outputs.append([p.grad for p in copied.parameters() if p.grad is not None])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))


class Checkpointed(torch.nn.Module):
    """A stage's interaction, computed again in the backward instead of kept."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, embeddings, features):
        return torch.utils.checkpoint.checkpoint(self.module, embeddings, features, use_reentrant=False)


@pytest.mark.parametrize("compiled", [False, True])
def test_activation_checkpointing(compiled):
    """Checkpointing of the stages' interaction gives the same gradients, compiled as a whole graph too."""
    model = small().eval()
    other = copy.deepcopy(model)
    stages = other.neck.iterator.interaction
    for i, module in enumerate(stages):
        stages[i] = Checkpointed(module)
    run = other
    if compiled:
        torch._dynamo.reset()
        # For one size: torch 2.14 fails inside its checkpoint on sizes as symbols.
        run = torch.compile(other, fullgraph=True, dynamic=False, backend="aot_eager")
    images = torch.randn(2, 1, 32, 32)
    model(images).square().mean().backward()
    run(images).square().mean().backward()
    assert len(stages) == 3
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, *DTYPES])
def test_channels_last(dtype):
    """The same numbers from the other memory layout."""
    model = small().eval().to(dtype)
    images = torch.randn(2, 1, 64, 64).to(dtype)
    with torch.no_grad():
        expected = model(images).float()
        other = copy.deepcopy(model).to(memory_format=torch.channels_last)
        actual = other(images.contiguous(memory_format=torch.channels_last))
    assert relative(actual, expected) < DTYPES.get(dtype, 1e-5)
