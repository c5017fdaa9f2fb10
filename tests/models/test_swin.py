"""Swin against timm's and torchvision's recorded outputs, as image, still-clip and video model."""

import copy
import re
from typing import Any

import pytest
import torch

from tests.golden import COPIES, build, find_cases, load_case
from tests.golden_families.swin import arguments
from tests.golden_json import load_json
from tests.models.parity import check_case, logits, still
from vidformers.analysis.complexity import count_flops
from vidformers.checkpoints import load_weights, to_our_names
from vidformers.checkpoints.swin import adapt
from vidformers.layers.position_bias import TableBias
from vidformers.models import Swin, create_model

CASES = find_cases("swin/*.pt", "swin3d/*.pt")
IMAGE = [name for name in CASES if name.startswith("swin/")]
# manifest -> registered name, and what makes it the image model
IMAGE_FORM = {"num_frames": 1, "patch_size": (1, 4, 4), "window": (1, 7, 7), "num_classes": 1000}
MANIFESTS = sorted(
    (path.parent.name, path.name.removesuffix(".json.gz"))
    for path in (COPIES / "manifests").glob("swin*/*.json.gz")
)


@pytest.mark.parametrize("name", CASES)
def test_logits(name: str) -> None:
    check_case(name)


@pytest.mark.parametrize("num_frames", [1, 4, 5, 7, 8])
@pytest.mark.parametrize("name", IMAGE)
def test_still_clip_gives_the_image_logits(name: str, num_frames: int) -> None:
    """5 and 7 frames fill neither a tubelet nor a window of 2."""
    check_case(name, num_frames)


@pytest.mark.parametrize(("window", "num_frames"), [(4, 3), (4, 6), (3, 7), (8, 16)])
def test_still_clip_in_other_windows(window: int, num_frames: int) -> None:
    """Clipped, padded and shifted along time."""
    case = load_case(IMAGE[0])
    image = build(case)
    changed = {"num_frames": num_frames, "window": (window, *image.window[1:])}
    model = Swin(**{**_arguments(case, 1), **changed})
    info = load_weights(model, case["state_dict"])
    assert any(name.endswith("position_bias.table") for name in info.inflated)
    clip = still(case["input"], num_frames).double()
    exact = logits(model.double().eval(), clip)
    torch.testing.assert_close(exact, case["logits_fp64"], atol=1e-9, rtol=0)


def _arguments(case: dict[str, Any], num_frames: int | None) -> dict[str, Any]:
    return arguments(case, num_frames)[1]


def test_inexact_choices_are_seen() -> None:
    """Padding in time that is visible moves the logits of a still clip; so the tests above could fail."""
    case = load_case(IMAGE[0])
    for wrong in ({"pad_mask": "none"}, {"patch_time_padding": "zero"}):
        model = Swin(**{**_arguments(case, 5), **wrong}).eval()
        load_weights(model, case["state_dict"])
        assert (logits(model, still(case["input"], 5)) - case["logits"]).abs().max() > 1e-2


def test_moving_clip_is_not_the_mean_of_its_frames() -> None:
    case = load_case(IMAGE[0])
    model = build(case, num_frames=8)
    clip = torch.stack([case["input"].roll(7 * t, dims=-1) for t in range(8)], dim=2)
    each = torch.stack([logits(build(case), frame) for frame in clip.unbind(2)]).mean(dim=0)
    moving = logits(model, clip)
    assert (moving - each).abs().max() > 1e-2
    # Inflated weights do not tell frames of a tubelet or offsets in time apart, but their windows do.
    assert (moving - logits(model, clip[:, :, torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])])).abs().max() > 1e-3


@pytest.mark.parametrize(("family", "name"), MANIFESTS)
def test_published_checkpoints_fit(family: str, name: str) -> None:
    """Every name and shape of the published files, without their values."""
    content = load_json(f"manifests/{family}/{name}.json")
    size = name[-1] if family == "swin3d" else name.split("_")[1][0]
    registered = f"{family}_{size}"
    state = {key: torch.empty(shape, device="meta") for key, shape in content["state_dict"].items()}
    with torch.device("meta"):
        published = create_model(registered, **(IMAGE_FORM if family == "swin" else {}))
        video = create_model(registered, num_classes=published.head.projection.out_features)
    assert sum(p.numel() for p in published.parameters()) == content["num_params"]
    assert {m.eps for m in published.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-5}
    flops = count_flops(published, content["input_shape"])["total"]
    assert flops / 1e9 == pytest.approx(content["gflops"], abs=1e-3)
    for model in (published, video):
        source, converted = to_our_names(state, "Swin")
        assert source == ("timm" if family == "swin" else "torchvision")
        adapted = adapt(converted, model)
        fitted = {key: tuple(tensor.shape) for key, tensor in adapted.state.items()}
        assert fitted == {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        assert not adapted.resized
        assert bool(adapted.inflated) == (family == "swin" and model is video)


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_official_names(prefix: str) -> None:
    """Merging at the end of a stage; MMAction2 puts a prefix before the backbone and renames the head."""
    case = load_case(IMAGE[0])
    source, ours = to_our_names(case["state_dict"], "Swin")
    official = {"layers.0.blocks.1.attn_mask": torch.zeros(1)}
    for name, tensor in ours.items():
        name = name.replace("position_bias.table", "relative_position_bias_table")
        name = re.sub(r"layers\.1\.downsample", "layers.0.downsample", name)
        name = name.replace("head.projection", "cls_head.fc_cls" if prefix else "head")
        official[name if name.startswith("cls_head") else prefix + name] = tensor
    found, converted = to_our_names(official, "Swin")
    assert found == "official"
    assert source in ("timm", "torchvision")
    assert converted.keys() == ours.keys()
    assert all(converted[name] is tensor for name, tensor in ours.items())


def test_weights_of_a_relative_are_not_taken() -> None:
    """MSG-Transformer's names are nearly the official Swin's."""
    case = load_case(find_cases("msg_transformer/*.pt")[0])
    with pytest.raises(ValueError, match="not those of a Swin, but of a MSGTransformer"):
        load_weights(create_model("swin_tiny"), case["state_dict"])


def test_tables_of_clipped_windows() -> None:
    """timm makes its tables for min(window, map); we look the same numbers up in the whole window's."""
    torch.manual_seed(0)
    small = {"image_size": (48, 24), "embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2)}
    small = {**IMAGE_FORM, **small, "window": (1, 4, 4), "num_classes": 5}
    model = Swin(**small).eval()
    state = copy.deepcopy(model.state_dict())
    timm = {}
    for name, tensor in state.items():
        if name.startswith("layers.1.") and name.endswith(".table"):  # a map of 6 x 3
            tensor = tensor.view(7, 7, -1)[:, 1:-1].flatten(0, 1)
        name = name.replace("head.projection", "head.fc")
        timm[name.replace("position_bias.table", "relative_position_bias_table")] = tensor
    image = torch.randn(2, 3, 48, 24)
    before = logits(model, image)
    fresh = Swin(**small).eval()
    info = load_weights(fresh, timm)
    assert not info.resized
    torch.testing.assert_close(logits(fresh, image), before)


def test_tables_of_other_windows_are_resized() -> None:
    case = load_case(IMAGE[0])
    model = Swin(**{**_arguments(case, None), "window": (1, 5, 5), "image_size": 224})
    info = load_weights(model, case["state_dict"])
    assert len(info.resized) == 4
    assert not info.inflated


def test_corner_bias_is_that_of_the_first_tokens() -> None:
    bias = TableBias((2, 3, 3), 2, corner=True)
    whole = bias((2, 3, 3))
    torch.testing.assert_close(bias((2, 2, 3)), whole[:, :12, :12])
    offsets = TableBias((2, 3, 3), 2)
    offsets.load_state_dict(bias.state_dict())
    torch.testing.assert_close(offsets((1, 3, 3)), bias((1, 3, 3)))
    assert not torch.equal(offsets((2, 2, 3)), bias((2, 2, 3)))


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 37, 50), (9, 64, 30)])
def test_any_size(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = create_model("swin_tiny")
    clip = torch.randn(1, 3, *size, requires_grad=True)
    features = model.forward_features(clip)
    T, H, W = (-(-n // s) for n, s in zip(size, (2, 16, 16), strict=True))
    assert features.shape == (1, T, H, W, 96)
    features.sum().backward()
    assert torch.isfinite(clip.grad).all()


@pytest.mark.parametrize("style", ["timm", "torchvision"])
def test_the_image_models_drop_what_fills_no_patch(style: str) -> None:
    model = create_model("swin_tiny", padding_style=style, image_size=(30, 33)).eval()
    assert model.grid == (4, 7, 8)
    clip = torch.randn(1, 3, 2, 30, 33)
    torch.testing.assert_close(logits(model, clip), logits(model, clip[..., :28, :32]))
    with pytest.raises(ValueError, match="got frames of 3x33 pixels, and this model needs at least 4x4"):
        model(clip[..., :3, :])


def test_layer_ids_and_weight_decay() -> None:
    model = create_model("swin_tiny")
    assert model.layer_id("patch_embed.norm.weight") == 0
    assert model.layer_id("layers.0.blocks.1.norm1.weight") == 2
    assert model.layer_id("layers.1.downsample.reduction.weight") == 3
    assert model.layer_id("layers.2.blocks.1.mlp.fc1.bias") == 6 == model.num_layers
    assert model.layer_id("norm.weight") == 7
    assert len(model.no_weight_decay()) == 6


def test_drop_path_grows_linearly() -> None:
    model = create_model("swin_tiny", drop_path_rate=0.5)
    rates = [block.drop_path.drop_rate for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pad_mask": "space"}, "pad_mask='space' is not one of 'none', 'time', 'all'"),
        ({"depths": (2, 2)}, "has 2 stages and num_heads=.* has 3; give both the same number"),
        ({"num_heads": (1, 5, 4)}, r"stage 1 has width 48 .* num_heads\[1\]=5 does not divide"),
        ({"window": (0, 4, 4)}, r"window must be at least 1 .* got \(0, 4, 4\)"),
        ({"num_frames": 0}, "num_frames and image_size must be at least 1"),
        ({"patch_time_padding": "reflect"}, "time_padding='reflect' is not one of 'zero', 'replicate'"),
        ({"padding_style": "timm", "pad_mask": "all"}, "use pad_mask='time'"),
        ({"padding_style": "timm", "image_size": 3}, r"image_size=3 is less than a patch of \(4, 4\)"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("swin_tiny", **wrong)


def test_compiles_to_one_graph() -> None:
    model = create_model("swin_tiny").eval()
    clip = torch.randn(1, 3, 6, 40, 64)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(logits(compiled, clip), logits(model, clip))
