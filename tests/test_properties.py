"""Properties that hold for any widths, classes and sizes (hypothesis; the same examples every time)."""

import copy
import pickle
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from cfii import CEU, CIT, CSA, ECEG, FEU, SIT, CFIILoss, CFIINeck, InteractiveIterator, create_model

settings.register_profile("cfii", derandomize=True, deadline=None, max_examples=25)
settings.load_profile("cfii")

WIDTHS, CLASSES, SIDES, BATCHES = st.integers(3, 17), st.integers(2, 7), st.integers(1, 13), st.integers(1, 4)
SEEDS = st.integers(0, 2**16)
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def double(module, seed):
    """In float64, with all parameters drawn anew, so that nothing hides behind a zero."""
    torch.manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


@given(st.sampled_from([SIT, CIT]), WIDTHS, CLASSES, SIDES, SIDES, BATCHES, SEEDS)
def test_interaction_follows_the_order_of_classes_and_of_the_batch(kind, c, n, h, w, b, seed):
    module = double(kind(c), seed)
    e, f = randn(b, n, c), randn(b, c, h, w)
    classes, batch = torch.randperm(n), torch.randperm(b)
    new_e, new_f = module(e, f)
    assert new_e.shape == e.shape and new_f.shape == f.shape and new_e.dtype == new_f.dtype == torch.float64
    other_e, other_f = module(e[:, classes], f)
    close(other_e, new_e[:, classes])
    close(other_f, new_f)
    other_e, other_f = module(e[batch], f[batch])
    close(other_e, new_e[batch])
    close(other_f, new_f[batch])
    # SIT and CIT see no positions: permuting the pixels permutes the result
    flipped_e, flipped_f = module(e, f.flip(2, 3))
    close(flipped_e, new_e)
    close(flipped_f, new_f.flip(2, 3))


@given(WIDTHS, CLASSES, SIDES, SIDES, BATCHES, SEEDS)
def test_eceg_follows_the_order_of_classes(c, n, h, w, b, seed):
    module = double(ECEG(c, n), seed)
    f, classes = randn(b, c, h, w), torch.randperm(n)
    embeddings, logits = module(f)
    assert embeddings.shape == (b, n, c) and logits.shape == (b, n, h, w)
    with torch.no_grad():
        module.phi2.weight.copy_(module.phi2.weight[classes])
        module.phi2.bias.copy_(module.phi2.bias[classes])
    other, other_logits = module(f)
    close(other, embeddings[:, classes])
    close(other_logits, logits[:, classes])


@given(WIDTHS, WIDTHS, CLASSES, BATCHES, SEEDS)
def test_ceu_follows_the_order_of_classes(deep, c, n, b, seed):
    module = double(CEU(deep, c), seed)
    a, e, classes = randn(b, n, deep), randn(b, n, c), torch.randperm(n)
    result = module(a, e)
    assert result.shape == e.shape
    close(module(a[:, classes], e[:, classes]), result[:, classes])


@given(WIDTHS, WIDTHS, SIDES, SIDES, SIDES, SIDES, BATCHES, SEEDS)
def test_feu_takes_any_two_sizes(deep, c, h, w, deep_h, deep_w, b, seed):
    module = double(FEU(deep, c), seed)
    a, f = randn(b, deep, deep_h, deep_w), randn(b, c, h, w)
    result = module(a, f)
    assert result.shape == f.shape and result.isfinite().all()
    batch = torch.randperm(b)
    close(module(a[batch], f[batch]), result[batch])


@given(st.integers(1, 40), st.integers(1, 40), BATCHES, st.integers(1, 5), st.booleans(), SEEDS)
def test_a_network_keeps_sizes_and_looks_at_each_image_alone(h, w, b, n, with_cfii, seed):
    model = double(create_model("resunet", n, in_channels=1, widths=(4, 6, 8), cfii=with_cfii), seed)
    images = randn(b, 1, h, w)
    with torch.no_grad():
        logits = model(images)
        assert logits.shape == (b, n, h, w) and logits.isfinite().all()
        close(model(images[:1]), logits[:1])
        batch = torch.randperm(b)
        close(model(images[batch]), logits[batch])


@given(st.sampled_from(["cpu", "meta"]), st.sampled_from(DTYPES), WIDTHS, WIDTHS, CLASSES, SIDES, SIDES, BATCHES)
def test_modules_keep_device_and_dtype(device, dtype, deep, c, n, h, w, b):
    """And shapes: those of the inputs, or as the class says."""
    like = {"device": device, "dtype": dtype}
    e, f = torch.zeros(b, n, c, **like), torch.zeros(b, c, h, w, **like)
    deep_e, deep_f = torch.zeros(b, n, deep, **like), torch.zeros(b, deep, (h + 1) // 2, (w + 1) // 2, **like)
    for module, inputs, shapes in (
        (ECEG(c, n), (f,), [(b, n, c), (b, n, h, w)]),
        (SIT(c), (e, f), [e.shape, f.shape]),
        (CIT(c), (e, f), [e.shape, f.shape]),
        (CEU(deep, c), (deep_e, e), [e.shape]),
        (FEU(deep, c), (deep_f, f), [f.shape]),
    ):
        with torch.no_grad():
            outputs = module.to(**like)(*inputs)
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        assert [x.shape for x in outputs] == shapes
        assert all(x.dtype == dtype and x.device.type == device for x in outputs)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 40), st.integers(0, 40))
def test_outputs_grow_with_images(h, w, more_h, more_w):
    """No stage's map of a larger image is smaller."""
    with torch.device("meta"):
        model = create_model("resunet", 2, in_channels=1, widths=(4, 6, 8)).eval()
        small, large = (
            model(torch.empty(1, 1, *size), return_aux=True) for size in ((h, w), (h + more_h, w + more_w))
        )
    assert small.logits.shape[2:] == (h, w) and large.logits.shape[2:] == (h + more_h, w + more_w)
    for a, b in zip(small.class_logits, large.class_logits, strict=True):
        assert a.shape[2] <= b.shape[2] and a.shape[3] <= b.shape[3]
    assert [e.shape for e in small.embeddings] == [e.shape for e in large.embeddings]


@given(st.lists(WIDTHS, min_size=1, max_size=3), CLASSES, st.sampled_from(["explicit", "learned"]), SEEDS)
def test_copies_are_the_same(widths, n, embeddings, seed):
    strides = [2**i for i in range(len(widths))]
    neck = double(CFIINeck(widths, strides, n, embeddings=embeddings), seed)
    features = [randn(2, width, 8 // stride, 8 // stride) for width, stride in zip(widths, strides, strict=True)]
    again = double(CFIINeck(widths, strides, n, embeddings=embeddings), seed + 1)
    again.load_state_dict(neck.state_dict())
    for other in (copy.deepcopy(neck), pickle.loads(pickle.dumps(neck)), again):
        for a, b in zip(chain(*neck(features)), chain(*other(features)), strict=True):
            assert torch.equal(a, b)


@given(st.sampled_from(["multiclass", "multilabel"]), CLASSES, SIDES, SIDES, BATCHES, SEEDS)
def test_the_loss_follows_the_order_of_classes(mode, n, h, w, b, seed):
    torch.manual_seed(seed)
    criterion, logits, classes = CFIILoss(n, mode), randn(b, n, h, w), torch.randperm(n)
    if mode == "multiclass":
        target = torch.randint(0, n, (b, h, w))
        permuted = classes.argsort()[target]  # class classes[i] is called i
    else:
        target = torch.randint(0, 2, (b, n, h, w))
        permuted = target[:, classes]
    loss = criterion(logits, target)
    close(criterion(logits[:, classes], permuted), loss)
    assert loss.isfinite() and loss >= 0


GRADIENTS = {
    "CSA": lambda: (CSA(6), [randn(2, 6, 3, 4)]),
    "ECEG": lambda: (ECEG(5, 3), [randn(2, 5, 3, 4)]),
    "SIT": lambda: (SIT(4, num_heads=2), [randn(2, 3, 4), randn(2, 4, 2, 3)]),
    "CIT": lambda: (CIT(4), [randn(2, 3, 4), randn(2, 4, 2, 3)]),
    "CIT, heads": lambda: (CIT(4, num_heads=2), [randn(2, 3, 4), randn(2, 4, 2, 3)]),
    "CEU": lambda: (CEU(5, 4), [randn(2, 3, 5), randn(2, 3, 4)]),
    "FEU": lambda: (FEU(5, 4), [randn(2, 5, 2, 2), randn(2, 4, 4, 3)]),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name):
    """Against finite differences, in float64, of inputs and parameters."""
    module, inputs = GRADIENTS[name]()
    module = double(module, 0)
    inputs = [x.requires_grad_() for x in inputs]
    parameters = list(module.parameters())

    def run(*tensors):
        values = dict(zip(dict(module.named_parameters()), tensors[len(inputs) :], strict=True))
        return torch.func.functional_call(module, values, tensors[: len(inputs)])

    assert gradcheck(run, (*inputs, *parameters), eps=1e-6, atol=1e-6, rtol=1e-4)


def test_gradients_of_the_iterator_and_the_loss():
    iterator = double(InteractiveIterator([3, 4], [2, 4]), 0)
    features, embeddings = [randn(1, 3, 4, 4), randn(1, 4, 2, 2)], [randn(1, 2, 3), randn(1, 2, 4)]
    inputs = [x.requires_grad_() for x in (*features, *embeddings)]

    def run(a, b, c, d):
        maps, classes = iterator([a, b], [c, d])
        return (*maps, *classes)

    assert gradcheck(run, inputs, eps=1e-6, atol=1e-6, rtol=1e-4)
    labels = torch.randint(0, 3, (2, 3, 3))
    assert gradcheck(lambda x: CFIILoss(3)(x, labels), [randn(2, 3, 3, 3).requires_grad_()])
