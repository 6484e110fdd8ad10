"""torch.func: gradients as functions and of each image, vmap over images and over networks, products with
Jacobians and Hessians."""

import pytest
import torch
from torch.func import functional_call, grad, jvp, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from cfii import CFIILoss, blockwise, create_model

# Without sdpa_kernel(MATH), vmap takes the attention one sample after the other.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")


def small(seed=0):
    torch.manual_seed(seed)
    model = create_model("resunet", 3, in_channels=1, widths=(4, 6, 8)).double().eval()
    with torch.no_grad():
        for (
            parameter
        ) in model.parameters():  # with biases of 0, channels tie for the largest where nothing is seen
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(params=["whole maps", "checkpointed", "blocks"])
def model(request, monkeypatch):
    """A network, also as it runs where it keeps little: asked to, or on large maps on a CPU."""
    model = small()
    if request.param == "checkpointed":
        model.set_grad_checkpointing()
    elif request.param == "blocks":
        monkeypatch.setattr(blockwise, "LARGE", 0)
        monkeypatch.setattr(blockwise, "BLOCK", 200)
    return model


@pytest.fixture
def batch():
    return torch.randn(4, 1, 20, 16, dtype=torch.float64), torch.randint(0, 3, (4, 20, 16))


def loss_of(model):
    """The loss as a function of the parameters and a batch."""
    criterion, buffers = CFIILoss(3), dict(model.named_buffers())

    def loss(parameters, images, labels):
        return criterion(functional_call(model, (parameters, buffers), (images, True)), labels)

    return loss


def gradients(model, images, labels):
    """By autograd."""
    loss = CFIILoss(3)(model(images, return_aux=True), labels)
    return dict(zip(dict(model.named_parameters()), torch.autograd.grad(loss, model.parameters()), strict=True))


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-10)


def test_gradients_as_a_function(model, batch):
    assert_close(grad(loss_of(model))(dict(model.named_parameters()), *batch), gradients(model, *batch))


def test_gradients_of_each_image(model, batch):
    loss = loss_of(model)

    def of_one(parameters, image, label):
        return grad(loss)(parameters, image[None], label[None])

    found = vmap(of_one, in_dims=(None, 0, 0))(dict(model.named_parameters()), *batch)
    for i, (image, label) in enumerate(zip(*batch, strict=True)):
        expected = gradients(model, image[None], label[None])
        assert_close({name: x[i] for name, x in found.items()}, expected)


def test_vmap_over_images(model, batch):
    images, _ = batch
    assert_close(vmap(lambda image: model(image[None])[0])(images), model(images))


def test_vmap_over_an_ensemble(model, batch):
    images, _ = batch
    models = [small(seed) for seed in (1, 2, 3)]
    parameters, buffers = stack_module_state(models)

    def run(parameters, buffers):
        return functional_call(model, (parameters, buffers), (images,))

    assert_close(vmap(run)(parameters, buffers), torch.stack([m(images) for m in models]))


def test_training_mode_needs_batch_norm_without_running_statistics(batch):
    images, _ = batch
    model = torch.func.replace_all_batch_norm_modules_(small().train())
    expected = torch.stack([model(image[None])[0] for image in images])
    assert_close(vmap(lambda image: model(image[None])[0])(images), expected)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # PyTorch's own use of it
def test_directional_derivatives(batch):
    """Forward mode and Hessians need attention by its formula, the only one that PyTorch differentiates so."""
    model, (images, _) = small(), batch
    direction, weights = torch.randn_like(images), torch.randn(4, 3, 20, 16, dtype=torch.float64)

    def energy(x):
        return model(x).square().mean()

    with sdpa_kernel(SDPBackend.MATH):
        _, slope = jvp(model, (images,), (direction,))
        gradient = grad(lambda x: (model(x) * weights).sum())(images)
        _, curvature = jvp(grad(energy), (images,), (direction,))
        twice = grad(lambda x: (grad(energy)(x) * direction).sum())(images)
    assert_close((slope * weights).sum(), (gradient * direction).sum())
    assert_close(curvature, twice)
