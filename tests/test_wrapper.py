import copy
from functools import partial

import pytest
import torch
import torch._dynamo.testing
from contract import dead_parameters
from torch import nn

from cfii import CFIIOutput, CFIIWrapper, create_model
from cfii.wrapper import build_head


def conv(a, b, stride=1):
    return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1), nn.BatchNorm2d(b), nn.ReLU())


class Encoder(nn.Module):
    """A user's own: no attributes, three stages, in the form asked for."""

    def __init__(self, in_channels=3, widths=(8, 13, 16), form=list):
        super().__init__()
        pairs = zip((in_channels, *widths), widths, strict=False)
        self.stages = nn.ModuleList(conv(a, b, 1 + (i > 0)) for i, (a, b) in enumerate(pairs))
        self.form = form

    def forward(self, x):
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return self.form(maps)


class Decoder(nn.Module):
    def __init__(self, widths, out_channels=6):
        super().__init__()
        self.convs = nn.ModuleList(conv(w, out_channels) for w in widths)

    def forward(self, features):
        y = 0
        for c, f in zip(self.convs, features, strict=True):
            y = y + nn.functional.interpolate(c(f), features[0].shape[2:])
        return y


WIDTHS = [8, 13, 16]
FORMS = {
    "list": list,
    "tuple": tuple,
    "dict": lambda maps: {f"stage{i}": x for i, x in enumerate(maps)},
    "nhwc": lambda maps: [x.permute(0, 2, 3, 1) for x in maps],
    "nhwc dict": lambda maps: {str(i): x.permute(0, 2, 3, 1) for i, x in enumerate(maps)},
}


def assert_alive(model, images):
    """Every parameter of the neck has a gradient, non-zero, from the logits alone."""
    assert dead_parameters(model.train(), images) == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("decoder", ["built", "factory"])
def test_wraps_a_users_own(form, decoder):
    model = CFIIWrapper(Encoder(form=FORMS[form]), Decoder(WIDTHS) if decoder == "built" else Decoder, 4)
    assert model.stages == [0, 1, 2] and model.num_classes == 4
    assert model.neck.out_channels == (WIDTHS if decoder == "built" else [4, 7, 8])
    assert isinstance(model.head, nn.Conv2d)
    assert_alive(model, torch.randn(2, 3, 32, 32))
    assert model(torch.randn(2, 3, 19, 33)).shape == (2, 4, 19, 33)


def test_built_decoder_in_the_encoders_own_layout():
    class LastDecoder(Decoder):
        def forward(self, features):
            assert features[0].shape[3] == 8
            return super().forward([f.permute(0, 3, 1, 2) for f in features])

    model = CFIIWrapper(Encoder(form=FORMS["nhwc"]), LastDecoder(WIDTHS), 4)
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 4, 16, 16)


@pytest.mark.parametrize("size", [(32, 32), (31, 17), (4, 4), (1, 1), (40, 65)])
@pytest.mark.parametrize("pad", [True, False])
def test_logits_at_the_input_size(size, pad):
    model = CFIIWrapper(Encoder(), Decoder, 4, pad=pad).eval()
    assert model(torch.randn(1, 3, *size)).shape == (1, 4, *size)


def test_decoder_at_a_lower_resolution_is_resized():
    class Quarter(Decoder):
        def forward(self, features):
            return nn.functional.avg_pool2d(super().forward(features), 4)

    assert CFIIWrapper(Encoder(), Quarter, 4)(torch.randn(2, 3, 30, 30)).shape == (2, 4, 30, 30)


def test_padding_does_not_change_what_fits():
    model = CFIIWrapper(Encoder(), Decoder, 4).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)
        model.pad = False
        torch.testing.assert_close(model(images), expected)


def test_auxiliary_output():
    model = CFIIWrapper(Encoder(), Decoder, 4).eval()
    images = torch.randn(2, 3, 16, 24)
    output = model(images, return_aux=True)
    assert isinstance(output, CFIIOutput)
    torch.testing.assert_close(output.logits, model(images))
    assert [e.shape for e in output.embeddings] == [(2, 4, 4), (2, 4, 7), (2, 4, 8)]
    assert [y.shape for y in output.class_logits] == [(2, 4, 16, 24), (2, 4, 8, 12), (2, 4, 4, 6)]
    assert CFIIWrapper(Encoder(), Decoder, 4, embeddings="learned")(images, return_aux=True).class_logits == []


def test_one_class():
    model = CFIIWrapper(Encoder(), Decoder, 1)
    output = model(torch.randn(2, 3, 16, 16), return_aux=True)
    assert output.logits.shape == (2, 1, 16, 16) and output.embeddings[0].shape[1] == 2
    assert_alive(model, torch.randn(2, 3, 16, 16))


@pytest.mark.parametrize("in_channels", [1, 3, 4])
def test_in_channels_from_the_first_convolution(in_channels):
    model = CFIIWrapper(Encoder(in_channels), Decoder, 4)
    assert model(torch.randn(2, in_channels, 16, 16)).shape == (2, 4, 16, 16)


def test_misleading_attribute_gives_way_to_the_first_convolution():
    encoder = Encoder()
    encoder.in_channels = 64  # the running width that some ResNets keep
    assert CFIIWrapper(encoder, Decoder, 4).in_channels == 3


class Patches(nn.Module):
    """No convolution: the number of image channels cannot be read from it."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(2 * 16, 12)

    def forward(self, x):
        x = nn.functional.pixel_unshuffle(x, 4)
        return [self.embed(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)]


def test_in_channels_is_asked_for():
    with pytest.raises(ValueError, match="in_channels: expected the number of image channels"):
        CFIIWrapper(Patches(), Decoder, 4)
    assert CFIIWrapper(Patches(), Decoder, 4, in_channels=2)(torch.randn(2, 2, 16, 16)).shape == (2, 4, 16, 16)


class Some(Decoder):
    """Reads the first and the last stage only, but knows all."""

    def forward(self, features):
        y = self.convs[0](features[0])
        return y + nn.functional.interpolate(self.convs[-1](features[-1]), y.shape[2:])


@pytest.mark.parametrize("built", [True, False])
def test_unread_stages_are_left_out(built):
    model = CFIIWrapper(Encoder(), Some(WIDTHS) if built else Some, 4)
    assert model.stages == [0, 2]
    assert_alive(model, torch.randn(2, 3, 16, 16))


def test_stage_read_in_training_only_takes_part():
    class Supervised(Decoder):
        def forward(self, features):
            y = self.convs[0](features[0])
            return y + features[2].mean() if self.training else y

    assert CFIIWrapper(Encoder(), Supervised, 4).stages == [0, 2]


def test_stages_can_be_chosen():
    model = CFIIWrapper(Encoder(), Decoder, 4, stages=[1, 2])
    assert model.stages == [1, 2] and len(model.neck.eceg) == 2


def test_the_image_itself_and_placeholders_pass():
    class Padded(Encoder):
        def forward(self, x):
            return [x, x.new_zeros(len(x), 0, *x.shape[2:]), *super().forward(x)]

    class All(nn.Module):
        def __init__(self, widths):
            super().__init__()
            self.widths, self.inner = widths, Decoder([w for w in widths if w])

        def forward(self, features):
            assert [f.shape[1] for f in features] == self.widths
            return self.inner([f for f in features if f.shape[1]])

    model = CFIIWrapper(Padded(), All, 4)
    assert model.decoder.widths == [3, 0, 4, 7, 8] and model.stages == [2, 3, 4]
    assert_alive(model, torch.randn(2, 3, 16, 16))


def test_decoder_factory_with_strides():
    seen = {}

    def factory(widths, strides):
        seen.update(widths=widths, strides=strides)
        return Decoder(widths)

    CFIIWrapper(Encoder(), factory, 4)
    assert seen == {"widths": [4, 7, 8], "strides": [1, 2, 4]}


@pytest.mark.parametrize("factory", [Decoder, partial(Decoder, out_channels=5), lambda w: Decoder(w)])
def test_decoder_factories(factory):
    assert CFIIWrapper(Encoder(), factory, 4)(torch.randn(2, 3, 16, 16)).shape == (2, 4, 16, 16)


def test_head():
    assert CFIIWrapper(Encoder(), partial(Decoder, out_channels=4), 4).head is None
    head = nn.Conv2d(6, 4, 3, padding=1)
    assert CFIIWrapper(Encoder(), Decoder, 4, head).head is head


def test_the_dry_run_leaves_everything_as_it_was():
    encoder, decoder = Encoder(), Decoder(WIDTHS)
    encoder.train(), decoder.eval()
    encoder.stages[0].eval()
    before = copy.deepcopy((encoder.state_dict(), decoder.state_dict()))
    modes = [m.training for m in (*encoder.modules(), *decoder.modules())]
    CFIIWrapper(encoder, decoder, 4)
    for old, module in zip(before, (encoder, decoder), strict=True):
        assert all(torch.equal(old[name], x) for name, x in module.state_dict().items())
    assert modes == [m.training for m in (*encoder.modules(), *decoder.modules())]


class OffMeta(nn.Module):
    """Cannot run on the meta device: it looks at values, draws numbers and counts calls."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        first = x[0] if isinstance(x, list) else x
        if not torch.isfinite(first + torch.rand(())).all().item():
            raise FloatingPointError
        return self.inner(x)


@pytest.mark.parametrize("which", ["encoder", "decoder", "both"])
def test_falls_back_to_one_real_pass(which):
    encoder, decoder = Encoder(), Some(WIDTHS)
    encoder = OffMeta(encoder) if which != "decoder" else encoder
    decoder = OffMeta(decoder) if which != "encoder" else decoder
    plain = Encoder(), Some(WIDTHS)
    torch.manual_seed(3)
    CFIIWrapper(*plain, 4)
    expected = torch.rand(3)
    torch.manual_seed(3)
    model = CFIIWrapper(encoder, decoder, 4)
    assert torch.equal(torch.rand(3), expected)  # only the neck's initialisation drew numbers
    assert model.stages == [0, 2] and model.training
    for part in (encoder, decoder):
        assert not isinstance(part, OffMeta) or part.calls == 0
    assert_alive(model, torch.randn(2, 3, 16, 16))


def test_neck_follows_the_encoders_dtype_and_device():
    model = CFIIWrapper(Encoder().double(), Decoder, 4)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model(torch.randn(2, 3, 16, 16).double()).dtype == torch.float64
    meta = CFIIWrapper(Encoder().to("meta"), Decoder, 4)
    assert {p.device.type for p in meta.parameters()} == {"meta"}
    assert meta(torch.randn(2, 3, 16, 16, device="meta")).shape == (2, 4, 16, 16)


class HalvesOnceMore(Decoder):
    """Adds the deepest map, halved and doubled again, to itself: it takes even extents only."""

    def forward(self, features):
        *rest, deepest = features
        return super().forward(
            [*rest, deepest + nn.functional.interpolate(nn.functional.avg_pool2d(deepest, 2), scale_factor=2)]
        )


class Windows(Encoder):
    """Takes multiples of 56 pixels only, as windows of 7 at stride 8 would."""

    def forward(self, x):
        if x.shape[2] % 56 or x.shape[3] % 56:
            raise AssertionError("windows")
        return super().forward(x)


class Positions(Encoder):
    """Takes 40×24 pixels only."""

    def __init__(self):
        super().__init__()
        self.img_size = (40, 24)
        self.position = nn.Parameter(torch.randn(1, 3, 40, 24))

    def forward(self, x):
        return super().forward(x + self.position)


def test_pads_to_what_encoder_and_decoder_take_together():
    model = CFIIWrapper(Encoder(), HalvesOnceMore, 4).eval()
    assert model.layout.grid == (8, 8) and not model.layout.fixed
    assert model(torch.randn(1, 3, 12, 13)).shape == (1, 4, 12, 13)
    model = CFIIWrapper(Windows(), Decoder, 4).eval()
    assert model.layout.grid == (224, 224) and not model.layout.fixed
    assert model(torch.randn(1, 3, 12, 230)).shape == (1, 4, 12, 230)


def test_an_encoder_for_one_size_takes_images_up_to_it():
    model = CFIIWrapper(Positions(), Decoder, 4).eval()
    assert model.layout.grid == (40, 24) and model.layout.fixed
    assert model(torch.randn(1, 3, 40, 24)).shape == (1, 4, 40, 24)
    assert model(torch.randn(1, 3, 33, 17)).shape == (1, 4, 33, 17)
    with pytest.raises(ValueError, match=r"images: expected at most \(40, 24\) pixels.* got \(41, 24\)"):
        model(torch.randn(1, 3, 41, 24))


def test_image_size_of_an_encoder_that_does_not_declare_it():
    encoder = Positions()
    del encoder.img_size
    with pytest.raises(ValueError, match="pass in_channels or image_size"):
        CFIIWrapper(encoder, Decoder, 4)
    assert CFIIWrapper(encoder, Decoder, 4, image_size=(40, 24)).layout.fixed


def test_plain_gives_the_codec_without_the_neck_back():
    encoder, decoder, head = Encoder(), Decoder(WIDTHS), nn.Conv2d(6, 4, 1)
    model = CFIIWrapper(encoder, decoder, 4, head).eval()
    plain = model.plain()
    images = torch.randn(2, 3, 19, 21)
    padded = nn.functional.pad(images, (0, 3, 0, 1))
    with torch.no_grad():
        expected = head(decoder(encoder(padded)))[:, :, :19, :21]
        torch.testing.assert_close(plain(images), expected)
    assert plain.neck is None and plain.encoder is encoder and plain.stages == [] and model.stages == [0, 1, 2]
    assert not plain.training and plain.plain()(images).shape == (2, 4, 19, 21)
    with pytest.raises(ValueError, match="plain: the decoder was built for half the encoder's widths"):
        CFIIWrapper(Encoder(), Decoder, 4).plain()


def test_freezing_the_encoder():
    model = CFIIWrapper(Encoder(), Decoder, 4)
    model.freeze_encoder()
    before = {name: x.clone() for name, x in model.encoder.state_dict().items()}
    model.train()
    assert model.training and model.neck.training and not any(m.training for m in model.encoder.modules())
    optimizer = torch.optim.SGD(model.parameter_groups(lr=0.1, encoder_lr=0.1), lr=1.0)
    model(torch.randn(2, 3, 16, 16)).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(x, before[name]) for name, x in model.encoder.state_dict().items())
    assert [group["name"] for group in optimizer.param_groups] == ["rest"]
    model.unfreeze_encoder()
    assert model.encoder.training and all(p.requires_grad for p in model.encoder.parameters())
    assert_alive(model, torch.randn(2, 3, 16, 16))


def test_parameter_groups():
    model = CFIIWrapper(Encoder(), Decoder, 4)
    rest, encoder = model.parameter_groups(lr=1e-3, encoder_lr=1e-4)
    assert (rest["lr"], encoder["lr"]) == (1e-3, 1e-4)
    assert {id(p) for p in encoder["params"]} == {id(p) for p in model.encoder.parameters()}
    ids = [id(p) for p in rest["params"] + encoder["params"]]
    assert len(ids) == len(set(ids)) and set(ids) == {id(p) for p in model.parameters()}


def test_compiled_parts_are_unwrapped():
    encoder, decoder = Encoder(), Decoder(WIDTHS)
    model = CFIIWrapper(torch.compile(encoder), torch.compile(decoder), 4)
    assert model.encoder is encoder and model.decoder is decoder


def test_start():
    torch.manual_seed(0)
    encoder, decoder, head = Encoder().eval(), Decoder(WIDTHS).eval(), nn.Conv2d(6, 4, 1)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        plain = head(decoder(encoder(images)))
        built = CFIIWrapper(encoder, decoder, 4, head).eval()(images)
        usual = CFIIWrapper(encoder, decoder, 4, head, start="default").eval()(images)
    assert (built - plain).std() < 0.05 * plain.std() < (usual - plain).std()


def test_a_new_decoder_has_the_same_start():
    """Whatever the decoder, the neck's last projections start damped, unless told otherwise."""

    def largest(**options):
        torch.manual_seed(0)
        neck = CFIIWrapper(Encoder(), Decoder, 4, **options).neck
        return [x.weight.abs().max() for x in (neck.iterator.interaction[0].out, neck.iterator.feu[0].spatial)]

    usual = largest(start="default")
    for options in ({}, {"start": None}, {"start": "identity"}):
        torch.testing.assert_close(largest(**options), [0.01 * x for x in usual])
    create_model("unet", num_classes=2, widths=[4, 8], start=None)  # takes what the wrapper takes


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (lambda: (nn.Identity, Decoder, 4), TypeError, "encoder: expected a torch.nn.Module"),
        (lambda: (Encoder(), Decoder([8, 13, 16, 4]), 4), ValueError, r"decoder: called as decoder\(features\)"),
        (
            lambda: (Encoder(), lambda widths: Decoder(WIDTHS), 4),
            ValueError,
            "built for the widths that the call",
        ),
        (lambda: (Encoder(), lambda widths: 3, 4), TypeError, "decoder: expected a built.*returned a int"),
        (lambda: (Encoder(), "unet", 4), TypeError, "decoder: expected a built.*got a str"),
        (lambda: (Encoder(), Decoder, 0), ValueError, "num_classes"),
        (
            lambda: (Encoder(), Decoder, 4, nn.Conv2d(6, 5, 1)),
            ValueError,
            "head: expected it to give num_classes = 4",
        ),
        (lambda: (Encoder(), Decoder, 4, "linear"), TypeError, "head: expected a torch.nn.Module or None"),
        (lambda: (nn.Conv2d(3, 8, 3), Decoder, 4), TypeError, "encoder: expected it to return a list"),
        (lambda: (Encoder(form=lambda m: [x.flatten(2) for x in m]), Decoder, 4), ValueError, "its map 0"),
        (
            lambda: (Encoder(form=lambda m: m[::-1]), Decoder, 4),
            ValueError,
            "encoder: expected its maps from shallow to deep, got .* strides",
        ),
        (lambda: (nn.DataParallel(Encoder()), Decoder, 4), TypeError, "wrap the whole network in it afterwards"),
    ],
)
def test_wrong_parts_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        CFIIWrapper(*arguments())


def test_wrong_options_are_named():
    with pytest.raises(TypeError, match="num_head"):
        CFIIWrapper(Encoder(), Decoder, 4, num_head=2)
    with pytest.raises(ValueError, match=r"stages: expected.*got \[7\]"):
        CFIIWrapper(Encoder(), Decoder, 4, stages=[7])
    with pytest.raises(ValueError, match=r"could not run it on an image.*in_channels"):
        CFIIWrapper(Encoder(), Decoder, 4, in_channels=5)
    encoder = Encoder()
    encoder.out_channels = [8, 16, 16]
    with pytest.raises(ValueError, match=r"out_channels declares the widths \[8, 16, 16\].*\[8, 13, 16\]"):
        CFIIWrapper(encoder, Decoder, 4)
    with pytest.raises(TypeError, match=r"decoder: called as decoder\(features\) with one list of 3"):
        CFIIWrapper(Encoder(), lambda widths: TakesMany(), 4)
    with pytest.raises(ValueError, match="decoder: it reads none of the encoder's features"):
        CFIIWrapper(Encoder(), Blind, 4)


class TakesMany(nn.Module):
    def forward(self, a, b, c):
        return a


class Blind(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.constant = nn.Parameter(torch.zeros(1, 4, 1, 1))

    def forward(self, features):
        return self.constant.expand(len(features[0]), -1, *features[0].shape[2:])


def test_wrong_images_are_named():
    model = CFIIWrapper(Encoder(), Decoder, 4)
    with pytest.raises(
        ValueError, match=r"images: expected \(B, 3, H, W\), got a tensor of shape \(2, 1, 16, 16\)"
    ):
        model(torch.randn(2, 1, 16, 16))
    with pytest.raises(ValueError, match="images"):
        model(torch.randn(3, 16, 16))


@pytest.mark.skipif(not hasattr(torch.export.Dim, "DYNAMIC"), reason="torch 2.4's interpolation knows no symbols")
def test_compiles_for_any_size():
    model = CFIIWrapper(Encoder(), Decoder, 4).eval()
    images = torch.randn(2, 3, 24, 32)
    model(images)  # at its first call einops registers torch, which would count as a change
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    with torch.no_grad():
        for x in (images, torch.randn(2, 3, 17, 32), torch.randn(3, 3, 40, 19)):
            torch.testing.assert_close(compiled(x), model(x))
    assert counter.frame_count == 1  # a new size or batch compiles nothing anew


@pytest.mark.skipif(not hasattr(torch.export.Dim, "DYNAMIC"), reason="dynamic export is tested from torch 2.6 on")
@pytest.mark.parametrize("size", [(24, 32), (23, 31)])
def test_exports_for_any_size(size):
    model = CFIIWrapper(Encoder(), Decoder, 4).eval()
    dynamic = torch.export.Dim.DYNAMIC
    images = torch.randn(2, 3, *size)
    program = torch.export.export(model, (images,), dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},))
    with torch.no_grad():
        for other in (images, torch.randn(3, 3, 17, 40)):
            torch.testing.assert_close(program.module()(other), model(other))


@pytest.mark.parametrize("num_classes", [1, 2, 5])
def test_the_head_can_tell_every_class_from_the_start(num_classes):
    """Of features that are never negative some speak for each class against each other, however few there are."""
    for seed in range(200):
        torch.manual_seed(seed)
        weight = build_head(4, num_classes).weight.flatten(1)
        others = torch.cat([weight, torch.zeros(1, 4)]) if num_classes == 1 else weight  # of one class: against 0
        for c in range(num_classes):
            against = weight[c] - torch.cat([others[:c], others[c + 1 :]])
            assert (against.amax(1) > 0).all() and (against.amin(1) < 0).all()
    assert build_head(1, num_classes).weight.abs().sum() > 0  # nothing to balance
