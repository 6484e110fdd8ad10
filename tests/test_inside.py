"""What is seen inside a network is what it computes, and the numbers are those of their formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import cfii
from cfii import CIT, SIT, create_model
from cfii.inside import classes_alike, cosine_similarity, embedding_distances, gate_overlap, look_inside

SMALL = {"widths": (8, 12, 16)}


def small(num_classes=4, in_channels=3, **options):
    return create_model("resunet", num_classes, in_channels, **SMALL | options).eval()


@pytest.mark.parametrize(("channels", "heads", "classes"), [(12, 1, 5), (12, 3, 2), (12, 4, 9)])
def test_attention_of_cit_gives_its_output(channels, heads, classes):
    """A from `attention`, put into equation 14 as printed, gives what forward gives (folded or in order)."""
    cit = CIT(channels, heads).double()
    nn.init.normal_(cit.norm.weight), nn.init.normal_(cit.norm_embeddings.bias)
    e, f = torch.randn(2, classes, channels).double(), torch.randn(2, channels, 6, 7).double()
    a = cit.attention(e, f)
    assert a.shape == (2, heads, classes, 6, 7)
    torch.testing.assert_close(a.sum(2), torch.ones_like(a[:, :, 0]))
    a = a.flatten(3)
    x = f.flatten(2).mT
    v = cit.split_heads(cit.v(cit.norm_embeddings(e)))
    y = x + cit.out((a.mT @ v).transpose(1, 2).flatten(2))
    y = y + cit.ffn(y)
    q = cit.split_heads(cit.q(cit.norm(x)))
    pooled = (a / a.sum(3, keepdim=True)) @ q
    after, features = cit(e, f)
    torch.testing.assert_close(features, y.mT.unflatten(2, (6, 7)))
    torch.testing.assert_close(after, e + pooled.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("heads", [1, 3])
def test_attention_of_sit_is_the_rows_of_the_classes(heads):
    sit = SIT(12, heads).double()
    e, f = torch.randn(2, 5, 12).double(), torch.randn(2, 12, 6, 7).double()
    x = sit.norm(torch.cat([e, f.flatten(2).mT], 1))
    q, k = sit.split_heads(sit.q(x)), sit.split_heads(sit.k(x))
    whole = torch.softmax(q @ k.mT / (12 / heads) ** 0.5, -1)
    torch.testing.assert_close(sit.attention(e, f), whole[:, :, :5, 5:].unflatten(3, (6, 7)))


@pytest.mark.parametrize("num_classes", [1, 4])
@pytest.mark.parametrize("embeddings", ["explicit", "learned"])
@pytest.mark.parametrize("training", [True, False])
def test_look_inside_is_what_forward_computes(num_classes, embeddings, training):
    model = small(num_classes, embeddings=embeddings, update_embeddings=False, num_heads=2)
    images = torch.randn(2, 3, 30, 43)
    with torch.no_grad():
        expected = model.eval()(images, return_aux=True)
        maps, _ = cfii.features.read(model.encoder(F.pad(images, (0, 1, 0, 2))))
        before, _ = model.neck.embed([m[:, : m.shape[1] // 2] for m in maps])
    model.train(training)
    model.encoder.eval()
    state = {name: x.clone() for name, x in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    inside = look_inside(model, images)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(x, state[name]) for name, x in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    torch.testing.assert_close(inside.logits, expected.logits)
    torch.testing.assert_close(inside.after, expected.embeddings)
    torch.testing.assert_close(inside.before, before)
    torch.testing.assert_close(inside.gates, [y.sigmoid() for y in expected.class_logits])
    assert inside.size == (32, 44) and inside.stages == model.stages and inside.strides == [1, 2, 4]
    assert inside.kinds == ["CIT", "CIT", "SIT"]
    n = max(num_classes, 2)
    sizes = [(32, 44), (16, 22), (8, 11)]
    assert [tuple(a.shape) for a in inside.attention] == [(2, 2, n, *size) for size in sizes]
    # The deepest stage has no deeper neighbour: its attention is that of the embeddings as they came.
    deepest = model.neck.iterator.interaction[-1]
    half = maps[-1][:, -(maps[-1].shape[1] // 2) :]
    torch.testing.assert_close(inside.attention[-1], deepest.attention(before[-1], half))


@pytest.mark.parametrize("wrap", [lambda m: torch.compile(m, backend="eager"), nn.DataParallel])
def test_wrapped_networks(wrap):
    model, images = small(), torch.randn(1, 3, 16, 16)
    expected = look_inside(model, images)
    torch.testing.assert_close(look_inside(wrap(model), images).logits, expected.logits)


def test_a_compiled_network_is_not_compiled_anew():
    compilations = []

    def backend(graph, inputs):
        compilations.append(graph)
        return graph.forward

    model, images = small(), torch.randn(1, 3, 16, 16)
    model.compile(backend=backend)
    with torch.no_grad():
        expected = model(images)
        once = len(compilations)
        torch.testing.assert_close(look_inside(model, images).logits, expected)
        torch.testing.assert_close(model(images), expected)
    assert len(compilations) == once == 1


def test_other_encoders():
    """Channels last, stages that pass, fixed sizes: nothing is special to our own codecs."""
    model = create_model("smp-unet", 3, encoder_name="resnet18", encoder_weights=None, stages=[2, 4])
    inside = look_inside(model, torch.randn(1, 3, 50, 64))
    assert inside.stages == [2, 4] and inside.strides == [4, 16] and inside.size == (64, 64)
    assert [a.shape[3:] for a in inside.attention] == [(16, 16), (4, 4)]


def test_a_failing_forward_leaves_no_hook():
    model = small()
    with pytest.raises(ValueError, match="images: expected"):
        look_inside(model, torch.randn(1, 2, 16, 16))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_what_is_no_such_network():
    with pytest.raises(ValueError, match=r"expected a network with CFII, got a plain one"):
        look_inside(small(cfii=False), torch.randn(1, 3, 16, 16))
    with pytest.raises(TypeError, match=r"model: expected a CFIIWrapper or .*, got a Linear"):
        look_inside(nn.Linear(2, 2), torch.randn(1, 3, 16, 16))


def test_embedding_distances():
    e = torch.randn(3, 5, 7)
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    d = torch.stack([e[:, i] - e[:, j] for i, j in pairs]).square().sum(2).mean(0).sqrt().mean()
    c = torch.stack([1 - F.cosine_similarity(e[:, i], e[:, j]) for i, j in pairs]).mean()
    torch.testing.assert_close(embedding_distances([e, 2 * e]), torch.stack([d, 2 * d]))
    torch.testing.assert_close(embedding_distances([e, 2 * e], "cosine"), torch.stack([c, c]))
    assert embedding_distances([e[:, :1].expand(-1, 5, -1)]).item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(cosine_similarity(e).diagonal(0, 1, 2), torch.ones(3, 5))
    with pytest.raises(ValueError, match="metric: expected one of 'euclidean', 'cosine'"):
        embedding_distances([e], "manhattan")
    with pytest.raises(ValueError, match=r"embeddings\[0\]: expected class embeddings"):
        embedding_distances([e[0]])


def given(labels, gates, n):
    """An `Inside` whose gates are given."""
    from cfii.inside import Inside

    b, height, width = labels.shape[0], *labels.shape[-2:]
    logits = torch.zeros(b, n, height, width)
    return Inside(logits, [torch.logit(g) for g in gates], [], [], [torch.zeros(b, n, 2)], [], [], [], (8, 8))


def test_overlap_of_perfect_gates_is_one_at_every_stride():
    labels = torch.randint(0, 3, (2, 7, 6))  # 8 x 8 once padded
    truth = F.one_hot(F.pad(labels, (0, 2, 0, 1), value=3), 4).movedim(3, 1)[:, :3].float()
    inside_image = F.pad(torch.ones(2, 1, 7, 6), (0, 2, 0, 1))
    gates = [F.adaptive_avg_pool2d(truth, s) / F.adaptive_avg_pool2d(inside_image, s) for s in (8, 4, 2)]
    gates = [g.nan_to_num(1.0) for g in gates]  # wherever there is no image, a gate may be anything
    torch.testing.assert_close(gate_overlap(given(labels, gates, 3), labels), torch.ones(3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(gate_overlap(given(labels, gates, 3), labels[:, None]), torch.ones(3, 3))
    worse = gate_overlap(given(labels, [g.roll(1, 1) for g in gates], 3), labels)
    assert (worse < 0.95).all()


def test_overlap_by_hand():
    labels = torch.tensor([[[0, 1], [1, 255]]])
    gates = [torch.tensor([[[[0.5, 0.25], [0.0, 1.0]], [[0.5, 1.0], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]]])]
    inside = given(labels, gates, 3)._replace(size=(2, 2))
    score = gate_overlap(inside, labels, ignore_index=255)
    background = 2 * 0.5 / (0.25 + 0.0625 + 1)
    one = 2 * 1.5 / (0.25 + 1 + 0.25 + 2)
    torch.testing.assert_close(score, torch.tensor([[background, one, torch.nan]]), equal_nan=True)
    maps = torch.stack([labels == i for i in range(3)], 1)
    torch.testing.assert_close(gate_overlap(inside, maps)[0, 0], torch.tensor(2 * 0.5 / (0.25 + 0.0625 + 1 + 1)))
    with pytest.raises(ValueError, match=r"labels: expected whole numbers 0 to 2, got \[0, 1, 255\]"):
        gate_overlap(inside, labels)
    with pytest.raises(ValueError, match=r"labels: expected a shape of \(1, 2, 2\)"):
        gate_overlap(inside, labels[0])
    with pytest.raises(ValueError, match="learned ones have no class gates"):
        gate_overlap(inside._replace(class_logits=[]), labels)


def test_overlap_of_one_output_channel():
    model = small(1)
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (2, 20, 24)))
    overlap = gate_overlap(look_inside(model, torch.randn(2, 3, 20, 24)), labels)
    assert overlap.shape == (3, 2) and ((overlap > 0) & (overlap < 1)).all()


def test_classes_alike():
    """Only what tells the classes apart is gone: with equal embeddings it changes nothing, and it ends."""
    model, images = small().double(), torch.randn(2, 3, 32, 32).double()
    with torch.no_grad():
        before = model(images)
        with classes_alike(model):
            level = model(images)
            inside = look_inside(model, images)
        assert torch.equal(model(images), before) and not torch.allclose(level, before)
        # CIT's classes share every pixel evenly, and all interacted embeddings of a stage are one.
        shallow = inside.attention[inside.kinds.index("CIT")]
        torch.testing.assert_close(shallow, torch.full_like(shallow, 1 / 4))
        torch.testing.assert_close(embedding_distances(inside.after), torch.zeros(3), atol=1e-6, rtol=0)

        # Class maps without weights give every class the same gate, so its embedding is the mean to begin with.
        for eceg in model.neck.eceg:
            nn.init.zeros_(eceg.phi2.weight), nn.init.zeros_(eceg.phi2.bias)
        before = model(images)
        with classes_alike(model):
            torch.testing.assert_close(model(images), before)

    with pytest.raises(ValueError, match="got a plain one"), classes_alike(small(cfii=False)):
        pass
