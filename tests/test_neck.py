import literal
import pytest
import torch
from parity import assert_parity

from cfii import CFIINeck

WIDTHS, STRIDES, SIZES = [8, 13, 16], [1, 2, 4], [(12, 10), (6, 5), (3, 3)]


def features(batch=2):
    return [torch.randn(batch, c, *size) for c, size in zip(WIDTHS, SIZES, strict=True)]


@pytest.mark.parametrize("rejoin", [True, False])
def test_is_the_paper(rejoin):
    neck = CFIINeck(WIDTHS, STRIDES, 5, rejoin=rejoin)
    assert_parity(neck, literal.neck, [features()], torch.float64)
    # In float32 the gradient of CIT's keys rests on the differences of nearly equal class embeddings: through
    # the whole chain the literal form itself is 1e-4 away from float64 there (ours, half of it).
    assert_parity(neck, literal.neck, [features()], torch.float32, jointly=True)


@pytest.mark.parametrize(("rejoin", "widths"), [(True, [8, 13, 16]), (False, [4, 7, 8])])
def test_out_channels(rejoin, widths):
    neck = CFIINeck(WIDTHS, STRIDES, 5, rejoin=rejoin)
    out, embeddings, class_logits = neck(features())
    assert neck.out_channels == widths == [f.shape[1] for f in out]
    assert [e.shape for e in embeddings] == [(2, 5, 4), (2, 5, 7), (2, 5, 8)]
    assert [y.shape for y in class_logits] == [(2, 5, *size) for size in SIZES]


def test_rejoin_keeps_the_first_half():
    maps = features()
    out, _, _ = CFIINeck(WIDTHS, STRIDES, 5, rejoin=True)(maps)
    for f, new in zip(maps, out, strict=True):
        kept = f.shape[1] // 2
        assert torch.equal(f[:, :kept], new[:, :kept])


def test_stages_that_do_not_take_part():
    image, empty = torch.randn(2, 3, 24, 20), torch.randn(2, 0, 12, 10)
    maps = [image, empty, *features()]
    options = {"stages": [2, 4], "keep": [0, 1]}
    neck = CFIINeck([3, 0, *WIDTHS], [1, 2, 2, 2, 4], 5, **options)
    out, embeddings, _ = neck(maps)
    assert out[0] is image and out[1] is empty
    assert torch.equal(out[3], maps[3][:, 6:])  # halved, though it takes no part
    assert neck.out_channels == [3, 0, 4, 7, 8] and neck.stages == [2, 4] and len(embeddings) == 2
    assert CFIINeck([3, 0, *WIDTHS], [1, 2, 2, 2, 4], 5, rejoin=True, **options)(maps)[0][3] is maps[3]


def test_learned_embeddings():
    neck = CFIINeck(WIDTHS, STRIDES, 5, embeddings="learned")
    out, embeddings, class_logits = neck(features())
    assert class_logits == [] and len(embeddings) == 3
    names = [name for name, _ in neck.named_parameters()]
    assert any("learned" in name for name in names) and not any("eceg" in name for name in names)
    sum(f.sum() for f in out).backward()
    assert all(p.grad.abs().sum() > 0 for p in neck.learned)


def test_one_class_keeps_two_embeddings():
    _, embeddings, _ = CFIINeck(WIDTHS, STRIDES, 1)(features())
    assert all(e.shape[1] == 2 for e in embeddings)


@pytest.mark.parametrize("rejoin", [True, False])
def test_identity_start_hands_the_features_on(rejoin):
    maps = [f.double() for f in features()]
    changes = {}
    for start in ("identity", "default"):
        neck = CFIINeck(WIDTHS, STRIDES, 5, rejoin=rejoin, start=start).double()
        out, _, _ = neck(maps)
        plain = maps if rejoin else [f[:, f.shape[1] // 2 :] for f in maps]
        changes[start] = max(((a - b).std() / b.std()).item() for a, b in zip(out, plain, strict=True))
    assert changes["identity"] < 0.1 < changes["default"]


def test_wrong_calls_are_named():
    with pytest.raises(ValueError, match="embeddings: expected one of 'explicit', 'learned', got 'random'"):
        CFIINeck(WIDTHS, STRIDES, 5, embeddings="random")
    with pytest.raises(ValueError, match="start: expected one of"):
        CFIINeck(WIDTHS, STRIDES, 5, start="zero")
    with pytest.raises(ValueError, match="num_classes"):
        CFIINeck(WIDTHS, STRIDES, 0)
    with pytest.raises(ValueError, match=r"stages: expected at least one of \[0, 1, 2\].*got \[3\]"):
        CFIINeck(WIDTHS, STRIDES, 5, stages=[3])
    with pytest.raises(ValueError, match="stages"):
        CFIINeck([1, 2], [1, 2], 5)
    with pytest.raises(ValueError, match="features: expected 3 stages, got 2"):
        CFIINeck(WIDTHS, STRIDES, 5)(features()[:2])
    with pytest.raises(ValueError, match=r"features\[1\]: expected a feature map \(B, 13, H, W\)"):
        CFIINeck(WIDTHS, STRIDES, 5)([features()[i] for i in (0, 0, 2)])
