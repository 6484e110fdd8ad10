import math

import pytest
import torch
import torch.nn.functional as F

from cfii import CFIILoss, CFIIOutput


def make(n=4, size=(6, 5), b=3):
    return torch.randn(b, n, *size), torch.randint(0, n, (b, *size))


def reference_dice(probabilities, truth):
    """Class by class, pixel by pixel, as in TransUNet's code."""
    losses = []
    for c in range(truth.shape[1]):
        p, t = probabilities[:, c], truth[:, c]
        losses.append(1 - (2 * (p * t).sum() + 1e-5) / ((p * p).sum() + (t * t).sum() + 1e-5))
    return sum(losses) / len(losses)


def test_multiclass():
    logits, labels = make()
    terms = CFIILoss(4).terms(logits, labels)
    one_hot = F.one_hot(labels, 4).movedim(-1, 1).float()
    torch.testing.assert_close(terms["dice"], reference_dice(logits.softmax(1), one_hot))
    torch.testing.assert_close(terms["cross_entropy"], F.cross_entropy(logits, labels))
    assert terms["embedding"] == 0
    torch.testing.assert_close(CFIILoss(4)(logits, labels), terms["dice"] + terms["cross_entropy"])


def test_binary_and_multilabel():
    logits, labels = make(1)
    labels = torch.randint(0, 2, labels.shape)
    terms = CFIILoss(1, mode="binary").terms(logits, labels)
    truth = labels[:, None].float()
    torch.testing.assert_close(terms["dice"], reference_dice(logits.sigmoid(), truth))
    torch.testing.assert_close(terms["cross_entropy"], F.binary_cross_entropy_with_logits(logits, truth))
    logits, _ = make(4)
    truth = torch.randint(0, 2, logits.shape)
    terms = CFIILoss(4, mode="multilabel").terms(logits, truth)
    torch.testing.assert_close(terms["dice"], reference_dice(logits.sigmoid(), truth.float()))
    torch.testing.assert_close(terms["cross_entropy"], F.binary_cross_entropy_with_logits(logits, truth.float()))


def test_embedding_distance_is_li_2022():
    embeddings = [torch.randn(3, 4, 8), torch.randn(3, 4, 5)]
    logits, labels = make()
    expected = []
    for e in embeddings:
        for sample in e:
            total = sum((a - b).square().sum() for a in sample for b in sample)
            expected.append(10 * math.log(100 / math.sqrt(total + 1e-6) + 1))
    output = CFIIOutput(logits, embeddings, [])
    terms = CFIILoss(4).terms(output, labels)
    assert terms["embedding"].item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    total = terms["dice"] + terms["cross_entropy"]
    torch.testing.assert_close(CFIILoss(4)(output, labels), total + 0.3 * terms["embedding"])
    torch.testing.assert_close(CFIILoss(4, lambda_eu=0)(output, labels), total)


def test_equal_embeddings_have_finite_gradients():
    e = torch.ones(2, 4, 8, requires_grad=True)
    logits, labels = make(b=2)
    CFIILoss(4)(CFIIOutput(logits, [e], []), labels).backward()
    assert e.grad.isfinite().all()


@pytest.mark.parametrize("ignored", [255, -100, 0, 3])
def test_ignored_pixels_do_not_count(ignored):
    logits, labels = make()
    mask = torch.rand(labels.shape) < 0.3
    loss = CFIILoss(4, ignore_index=ignored)
    labels = labels.where(labels != ignored, 1)
    expected = loss(logits, labels.where(~mask, ignored))
    logits = logits + 10 * torch.randn_like(logits) * mask[:, None]  # whatever is predicted there
    torch.testing.assert_close(loss(logits, labels.where(~mask, ignored)), expected)
    kept = loss.terms(logits, labels.where(~mask, ignored))["cross_entropy"]
    torch.testing.assert_close(kept, F.cross_entropy(logits, labels.where(~mask, ignored), ignore_index=ignored))


@pytest.mark.parametrize(("mode", "n"), [("multiclass", 4), ("binary", 1), ("multilabel", 4)])
def test_all_ignored_is_zero_with_zero_gradients(mode, n):
    logits = torch.randn(2, n, 5, 5, requires_grad=True)
    target = torch.full((2, 4, 5, 5) if mode == "multilabel" else (2, 5, 5), 255)
    terms = CFIILoss(n, mode=mode, ignore_index=255).terms(logits, target)
    assert terms["dice"] == 0 and terms["cross_entropy"] == 0
    sum(terms.values()).backward()
    assert (logits.grad == 0).all()


def test_class_weights():
    logits, labels = make()
    weights = torch.tensor([0.1, 1.0, 2.0, 0.0])
    terms = CFIILoss(4, class_weights=weights).terms(logits, labels)
    torch.testing.assert_close(terms["cross_entropy"], F.cross_entropy(logits, labels, weight=weights))
    equal = CFIILoss(4, class_weights=[2, 2, 2, 2])(logits, labels)
    torch.testing.assert_close(equal, CFIILoss(4)(logits, labels))
    only = CFIILoss(4, class_weights=[0, 1, 0, 0], ignore_index=255).terms(logits, torch.zeros_like(labels))
    assert only["cross_entropy"] == 0  # no pixel of a class that counts


def test_target_forms():
    logits, labels = make()
    expected = CFIILoss(4)(logits, labels)
    for target in (labels[:, None], labels.float(), labels.to(torch.uint8), labels[:, None].double()):
        torch.testing.assert_close(CFIILoss(4)(logits, target), expected)


def test_float32_inside_autocast():
    logits = torch.zeros(1, 2, 512, 512, dtype=torch.float16)
    labels = torch.zeros(1, 512, 512, dtype=torch.long)
    embeddings = [1000 * torch.randn(1, 2, 64, dtype=torch.float16)]
    with torch.autocast("cpu", torch.float16):
        terms = CFIILoss(2).terms(CFIIOutput(logits, embeddings, []), labels)
    assert {x.dtype for x in terms.values()} == {torch.float32}
    assert all(x.isfinite() for x in terms.values())
    assert terms["cross_entropy"].item() == pytest.approx(math.log(2), rel=1e-6)


def test_wrong_labels_are_shown():
    logits, labels = make()
    labels[0, 0, :2] = torch.tensor([7, -1])
    with pytest.raises(ValueError, match=r"labels 0 … 3 in 'multiclass' mode, got also -1, 7"):
        CFIILoss(4)(logits, labels)
    with pytest.raises(ValueError, match=r"or ignore_index = 7, got also -1"):
        CFIILoss(4, ignore_index=7)(logits, labels)
    with pytest.raises(ValueError, match="0 … 1 in 'binary' mode, got also 255"):
        CFIILoss(1, mode="binary")(torch.randn(1, 1, 4, 4), torch.full((1, 4, 4), 255))
    with pytest.raises(ValueError, match="whole numbers"):
        CFIILoss(4)(logits, labels + 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 4, "mode": "multi"}, "mode: expected one of 'multiclass', 'binary', 'multilabel'"),
        ({"num_classes": 2, "mode": "binary"}, "num_classes and mode"),
        ({"num_classes": 1}, "num_classes and mode"),
        ({"num_classes": 4, "class_weights": [1, 2]}, "class_weights: expected 4 weights"),
        ({"num_classes": 4, "lambda_eu": -1}, "lambda_eu"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        CFIILoss(**options)


def test_wrong_shapes_are_named():
    logits, labels = make()
    with pytest.raises(ValueError, match=r"target: expected labels of shape \(3, 6, 5\) or \(3, 1, 6, 5\)"):
        CFIILoss(4)(logits, labels[:, :5])
    with pytest.raises(ValueError, match=r"output: expected logits \(B, 4, H, W\)"):
        CFIILoss(4)(logits[:, :3], labels)


@pytest.mark.parametrize(("mode", "n"), [("multiclass", 4), ("binary", 1), ("multilabel", 3)])
def test_class_maps(mode, n):
    """Each stage's maps against the labels at its size; with maps of the labels themselves, next to nothing."""
    shape = (2, n, 16, 16) if mode == "multilabel" else (2, 16, 16)
    labels = torch.randint(0, 4 if mode == "multiclass" else 2, shape)
    truth = labels if mode == "multilabel" else F.one_hot(labels, max(n, 2)).movedim(-1, 1)
    sizes = [(16, 16), (8, 8), (5, 5)]
    good = [20 * F.interpolate(truth.float(), size, mode="nearest-exact") - 10 for size in sizes]
    logits = torch.zeros(2, n, 16, 16)
    criterion = CFIILoss(n, mode, class_maps_weight=0.5)
    assert criterion.terms(CFIIOutput(logits, [], good), labels)["class_maps"] < 1e-3
    flat = [torch.zeros_like(m) for m in good]
    terms = criterion.terms(CFIIOutput(logits, [], flat), labels)
    expected = math.log(2) if mode != "multiclass" else math.log(4)
    assert terms["class_maps"].item() == pytest.approx(expected, rel=1e-5)
    plain = CFIILoss(n, mode)(CFIIOutput(logits, [], flat), labels)
    torch.testing.assert_close(criterion.total(terms), plain + 0.5 * terms["class_maps"])
    assert criterion.terms(CFIIOutput(logits, [], []), labels)["class_maps"] == 0
    assert "class_maps" not in CFIILoss(n, mode).terms(logits, labels)
    with pytest.raises(ValueError, match="class_maps_weight: expected 0 or more"):
        CFIILoss(n, mode, class_maps_weight=-1)


def test_class_maps_leave_out_what_is_ignored():
    labels = torch.randint(0, 3, (1, 8, 8))
    ignored = labels.clone()
    ignored[:, :4] = 255
    maps = torch.randn(1, 3, 8, 8)
    criterion = CFIILoss(3, ignore_index=255, class_maps_weight=1)
    terms = criterion.terms(CFIIOutput(torch.zeros(1, 3, 8, 8), [], [maps]), ignored)
    torch.testing.assert_close(terms["class_maps"], F.cross_entropy(maps[:, :, 4:], labels[:, 4:]))


def test_across_processes_alone_changes_nothing():
    logits, labels = make()
    torch.testing.assert_close(CFIILoss(4, across_processes=True)(logits, labels), CFIILoss(4)(logits, labels))


def test_class_maps_of_one_class_in_both_modes():
    """One channel has two class maps, background and foreground, whether it is called binary or multilabel."""
    torch.manual_seed(0)
    maps = [torch.randn(2, 2, 8, 8), torch.randn(2, 2, 4, 4)]
    output = CFIIOutput(torch.randn(2, 1, 8, 8), [torch.randn(2, 2, 3)] * 2, maps)
    target = torch.randint(0, 2, (2, 1, 8, 8))
    binary, multilabel = (
        CFIILoss(1, mode, class_maps_weight=1.0).terms(output, target)["class_maps"]
        for mode in ("binary", "multilabel")
    )
    small = [F.interpolate(target.float(), y.shape[2:], mode="nearest-exact")[:, 0].long() for y in maps]
    expected = [F.cross_entropy(y, labels) for y, labels in zip(maps, small, strict=True)]
    torch.testing.assert_close(binary, torch.stack(expected).mean())
    torch.testing.assert_close(multilabel, binary)
