"""VisionTransformer against timm's ViT, TimeSformer, VideoMAE and PySlowFast's ViT; image weights in time."""

import math
import pickle
from typing import Any

import pytest
import torch
import yaml

import vidformers as vf
from tests.golden import find_cases, load_case
from tests.golden_families.vision_transformer import arguments
from tests.golden_json import load_json
from tests.models.parity import check_case, check_logits, check_moving_clip, logits, still
from vidformers.analysis.complexity import count_flops, count_parameters
from vidformers.config.pyslowfast import mvit_arguments
from vidformers.models import VisionTransformer

CASES = find_cases("vit/*.pt", "timesformer/*.pt", "videomae/*.pt")
IMAGE = find_cases("vit/*.pt")
# vit_fixed_sincos is left to MViT: PySlowFast adds its fixed embedding twice, a mistake not repeated here.
SLOWFAST = find_cases("slowfast/vit_image_cls.pt", "slowfast/vit_sep_pos_mean.pt")
IMAGE_PATCH = {"patch_kernel": (1, 16, 16), "patch_stride": (1, 16, 16), "num_frames": 1}
# Published model -> (registered name, what makes it the model that was published)
MANIFESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit/vit_small_patch16_224": ("vit_s", {**IMAGE_PATCH, "num_classes": 1000}),
    "vit/vit_base_patch16_224": ("vit_b", {**IMAGE_PATCH, "num_classes": 1000}),
    "timesformer/timesformer_base_divst_8x224": ("timesformer_b", {}),
    "timesformer/timesformer_base_joint_8x224": ("timesformer_b_joint", {}),
    "videomae/videomae_vit_small_patch16_224": ("videomae_s", {}),
    "videomae/videomae_vit_base_patch16_224": ("videomae_b", {}),
}


@pytest.mark.parametrize("name", CASES)
def test_logits(name: str) -> None:
    check_case(name)


@pytest.mark.parametrize("num_frames", [1, 4, 7, 8])
@pytest.mark.parametrize("name", IMAGE)
def test_still_clip_gives_the_image_logits(name: str, num_frames: int) -> None:
    """In tubelets of two frames, the last of 7 being filled up."""
    check_case(name, num_frames)


@pytest.mark.parametrize("num_frames", [1, 3, 10])
@pytest.mark.parametrize(
    "changes",
    [
        {"attention": "divided", "class_token_log_frames": False},
        {"attention": "space_only", "class_token_log_frames": False, "position_embedding": "spatial"},
        {"position_embedding": "joint"},
        {"patch_kernel": (3, 8, 8)},
        {"patch_kernel": (1, 8, 8)},
    ],
    ids=str,
)
def test_other_video_models_of_the_same_image_weights(changes: dict[str, Any], num_frames: int) -> None:
    """Built for 8 frames, run on other numbers of them."""
    case = load_case("vit/vit_cls")
    model = VisionTransformer(**{**arguments(case, 8)[1], **changes})
    info = vf.load_weights(model, case["state_dict"])
    assert info.source == "timm"
    assert not info.missing
    kernel = model.patch_embed.proj.weight.shape[2]
    assert ("patch_embed.proj.weight" in info.inflated) == (kernel > 1)
    assert ("pos_embed" in info.inflated) == (changes.get("position_embedding") == "joint")
    assert ("time_embed" in info.inflated) == ("position_embedding" not in changes)
    assert ("blocks.0.temporal_attn.qkv.weight" in info.inflated) == (changes.get("attention") == "divided")
    clip = still(case["input"], num_frames)
    torch.testing.assert_close(logits(model.eval(), clip), case["logits"], atol=1e-5, rtol=0)
    # In float64 from the start: a third of a kernel is rounded.
    vf.load_weights(model.double(), {key: value.double() for key, value in case["state_dict"].items()})
    torch.testing.assert_close(logits(model, clip.double()), case["logits_fp64"], atol=1e-9, rtol=0)


def test_shared_class_token_without_its_correction_is_not_exact() -> None:
    """Otherwise the tests above could not tell."""
    case = load_case("vit/vit_cls")
    model = VisionTransformer(**{**arguments(case, 8)[1], "class_token_log_frames": False}).eval()
    vf.load_weights(model, case["state_dict"])
    assert (logits(model, still(case["input"], 8)) - case["logits"]).abs().max() > 0.05


def test_moving_clip_is_more_than_its_frames() -> None:
    check_moving_clip("vit/vit_cls")


@pytest.mark.parametrize("name", SLOWFAST)
def test_pyslowfast_vit(name: str) -> None:
    case = load_case(name)
    theirs = mvit_arguments(yaml.safe_load(case["yaml"]))
    same = ("num_frames", "image_size", "num_classes", "patch_kernel", "patch_stride", "embed_dim", "depth")
    ours = {key: theirs[key] for key in (*same, "num_heads", "mean_pooling", "position_embedding")}
    model = VisionTransformer(**ours).eval()
    assert vf.load_weights(model, case["state_dict"]).source == "slowfast"
    torch.testing.assert_close(logits(model, case["input"]), case["logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_published_sizes(manifest: str) -> None:
    name, changes = MANIFESTS[manifest]
    published = load_json(f"manifests/{manifest}.json")
    with torch.device("meta"):
        model, video = vf.create_model(name, **changes), vf.create_model(name, num_classes=1000)
    assert count_parameters(model) == published["num_params"]
    flops = count_flops(model, published["input_shape"])["total"]
    assert flops / 1e9 == pytest.approx(published["gflops"], rel=1e-3)

    state = {key: torch.ones(()).expand(shape) for key, shape in published["state_dict"].items()}
    info = vf.load_weights(model.to_empty(device="cpu"), state)
    assert info.source == manifest.partition("/")[0].replace("vit", "timm")
    assert len(info.matched) == len(state)
    assert vf.model_arguments(name)["norm_eps"] == 1e-6
    assert not info.resized and not info.inflated
    if changes:  # an image model: its weights fill the registered video model too
        info = vf.load_weights(video.to_empty(device="cpu"), state)
        assert set(info.inflated) == {"patch_embed.proj.weight", "time_embed"}


def test_parameters_of_the_mvit_papers_baseline() -> None:
    with torch.device("meta"):
        model = vf.create_model("vit_b_16x4")
    assert round(count_parameters(model) / 1e6, 1) == 87.2
    # The paper's 179.6, plus fvcore's share for LayerNorm.
    flops = count_flops(model, (1, 3, 16, 224, 224))
    without_norms = flops["total"] - flops["by_operator"]["layer_norm"]
    assert round(without_norms / 1e9, 1) == 179.6


def test_timesformer_files_carry_prefixes_and_other_sizes() -> None:
    case = load_case("timesformer/tsf_divided")
    found = arguments(case, None)[1]
    wrapped = {"model_state": {f"model.{name}": value for name, value in case["state_dict"].items()}}
    same = VisionTransformer(**found).eval()
    assert vf.load_weights(same, wrapped).source == "timesformer"
    check_logits(same, case["input"], case)
    larger = VisionTransformer(**{**found, "num_frames": 6, "image_size": (32, 64)})
    assert set(vf.load_weights(larger, wrapped).resized) == {"pos_embed", "time_embed"}
    # A model built for the size interpolates as one does that meets the size in a clip.
    clip = torch.randn(1, 3, 6, 32, 64)
    torch.testing.assert_close(logits(larger.eval(), clip), logits(same.float(), clip))


def loaded_size(
    small: dict[str, Any], stored: dict[str, Any], wanted: dict[str, Any]
) -> tuple[VisionTransformer, VisionTransformer, Any]:
    """The weights of one size, in that model and in a model of another size."""
    torch.manual_seed(0)
    first, second = VisionTransformer(**small, **stored).eval(), VisionTransformer(**small, **wanted).eval()
    state = dict(first.state_dict())
    if stored.get("num_frames") == 1:
        state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].squeeze(2)  # as timm's
    return first, second, vf.load_weights(second, state)


SMALL = {"embed_dim": 24, "depth": 1, "num_heads": 2, "position_embedding": "joint", "num_classes": 5}
PER_FRAME = {"patch_kernel": (1, 8, 8), "patch_stride": (1, 8, 8)}
TUBELETS = {"patch_kernel": (2, 8, 8), "patch_stride": (2, 8, 8)}


@pytest.mark.parametrize(
    ("patch", "stored", "wanted"),
    [
        (PER_FRAME, (6, 32), (3, 32)),
        (TUBELETS, (12, 32), (8, 32)),
        (TUBELETS, (8, 40), (8, 32)),
        (PER_FRAME, (1, 40), (1, 32)),
    ],
)
def test_joint_positions_of_another_size(
    patch: dict[str, Any], stored: tuple[int, int], wanted: tuple[int, int]
) -> None:
    """A model built for the size interpolates as one does that meets the size in a clip."""
    stored_size, wanted_size = ({"num_frames": t, "image_size": s, **patch} for t, s in (stored, wanted))
    first, second, info = loaded_size(SMALL, stored_size, wanted_size)
    assert info.resized == ["pos_embed"] and not info.inflated
    clip = torch.randn(1, 3, wanted[0], wanted[1], wanted[1])
    # A single frame is resized in two dimensions, bicubic; a model meets it in three, trilinear.
    if stored[0] > 1:
        torch.testing.assert_close(logits(second, clip), logits(first, clip))


def test_joint_positions_of_an_image_of_another_size() -> None:
    image = {"num_frames": 1, "image_size": 48, **PER_FRAME}
    video = {"num_frames": 4, "image_size": 32, **TUBELETS}
    _, second, info = loaded_size(SMALL, image, video)
    assert {"pos_embed", "patch_embed.proj.weight"} <= {*info.resized, *info.inflated}
    assert torch.equal(second.pos_embed[:, 1:17], second.pos_embed[:, 17:])


def test_joint_positions_that_can_be_of_several_sizes_are_refused() -> None:
    stored = {"num_frames": 8, "image_size": 64, **TUBELETS}
    wanted = {"num_frames": 8, "image_size": 32, **TUBELETS}
    with pytest.raises(ValueError, match=r"can be \(4, 8, 8\) or \(16, 4, 4\) \(t, h, w\), and the model"):
        loaded_size(SMALL, stored, wanted)


def test_positions_of_another_image_size_are_those_of_timm() -> None:
    """In the model and in weights; numbers of timm 1.0.31, resample_abs_pos_embed(table, (2, 3), (4, 4))."""
    table = torch.arange(1.0, 33.0).sin().reshape(1, 16, 2)
    expected = [0.2315939, -0.3200759, 0.3727565, -0.2571722, 0.3284594, -0.3630074]
    small = {"embed_dim": 2, "num_heads": 1, "depth": 1, "num_frames": 1, "position_embedding": "spatial"}
    model = VisionTransformer(image_size=32, **PER_FRAME, **small)
    with torch.no_grad():
        model.pos_embed[:, 1:] = table
    assert model._position((1, 2, 3))[0, :, 0].tolist() == pytest.approx(expected, abs=1e-6)
    loaded = VisionTransformer(image_size=(16, 24), **PER_FRAME, **small)
    assert vf.load_weights(loaded, model.state_dict()).resized == ["pos_embed"]
    assert loaded.pos_embed[0, 1:, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_weights_of_another_attention_do_not_load() -> None:
    case = load_case("timesformer/tsf_divided")
    found = {**arguments(case, None)[1], "attention": "joint"}
    with pytest.raises(ValueError, match=r"that the model does not have: .*temporal"):
        vf.load_weights(VisionTransformer(**found), case["state_dict"])
    video = {n: v for n, v in case["state_dict"].items() if ".temporal_" not in n}
    with pytest.raises(ValueError, match=r"missing from it: .*temporal"):
        vf.load_weights(VisionTransformer(**{**found, "attention": "divided"}), video)


@pytest.mark.parametrize("name", ["vit_tiny", "timesformer_b", "videomae_s", "vit_b_16x4"])
def test_own_weights_round_trip(name: str) -> None:
    small = {"embed_dim": 24, "depth": 1, "image_size": 32}
    torch.manual_seed(0)
    first, second = vf.create_model(name, **small), vf.create_model(name, **small)
    info = vf.load_weights(second, first.state_dict())
    assert not info.resized and not info.inflated
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("position", ["none", "joint", "spatial", "separable", "sincos", "sinusoid"])
@pytest.mark.parametrize("attention", ["joint", "divided", "space_only"])
@pytest.mark.parametrize("class_token", [True, False])
def test_any_size(position: str, attention: str, class_token: bool) -> None:
    torch.manual_seed(0)
    model = vf.create_model(
        "vit_tiny",
        embed_dim=48,
        depth=2,
        position_embedding=position,
        attention=attention,
        class_token=class_token,
    ).eval()
    for size, grid in (((5, 33, 50), (3, 5, 7)), ((1, 4, 20), (1, 1, 3))):
        clip = torch.randn(2, 3, *size)
        assert logits(model, clip).shape == (2, 10)
        with torch.no_grad():
            assert model.forward_features(clip).shape == (2, *grid, 48)


def test_sinusoid_by_its_definition() -> None:
    model = vf.create_model("videomae_s", num_frames=4, image_size=32, embed_dim=12, depth=1)
    table = model.pos_embed[0]
    for position in range(8):
        for channel in range(12):
            angle = position / 10000 ** (2 * (channel // 2) / 12)
            expected = math.cos(angle) if channel % 2 else math.sin(angle)
            assert table[position, channel].item() == pytest.approx(expected, abs=1e-6)
    assert "pos_embed" not in model.state_dict()


@pytest.mark.parametrize("position", ["sincos", "sinusoid"])
def test_the_fixed_table_follows_the_weights_that_are_loaded(position: str) -> None:
    """Assigned ones bring their type, and the table must not keep the model from being pickled."""
    arguments = {"position_embedding": position, "embed_dim": 48, "depth": 1, "num_frames": 2}
    model = vf.create_model("vit_tiny", **arguments).eval()
    with torch.device("meta"):
        half = vf.create_model("vit_tiny", **arguments).eval()
    half.load_state_dict(model.to(torch.bfloat16).state_dict(), assign=True)
    clip = torch.randn(1, 3, 2, 64, 64, dtype=torch.bfloat16)
    torch.testing.assert_close(logits(pickle.loads(pickle.dumps(half)), clip), logits(model, clip))


@pytest.mark.parametrize(
    ("without", "seen"), [("attn", [6, 70, 134, 198]), ("temporal_attn", list(range(64, 128)))]
)
def test_divided_attention_sees_its_place_in_time_and_its_frame_in_space(
    without: str, seen: list[int]
) -> None:
    """Token 70 of 4 x 8 x 8 is place 6 of frame 1."""
    torch.manual_seed(0)
    model = vf.create_model("vit_tiny", attention="divided", depth=1, class_token=False, embed_dim=24)
    block = model.blocks[0]
    torch.nn.init.zeros_(block.get_submodule(without).proj.weight)
    tokens = torch.randn(1, 4 * 64, 24, requires_grad=True)
    block(tokens, (4, 8, 8))[0, 70].square().sum().backward()
    assert tokens.grad is not None
    assert tokens.grad[0].abs().sum(dim=-1).nonzero().flatten().tolist() == seen


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"embed_dim": 50}, "not divisible by num_heads=3; use embed_dim=48"),
        ({"attention": "axial"}, "'axial' is not one of 'joint', 'divided', 'space_only'"),
        ({"position_embedding": "rope"}, "'rope' is not one of"),
        ({"position_embedding": "sincos", "embed_dim": 24}, "divisible by 16, got 24; use 16 or 32"),
        ({"class_token_log_frames": True, "class_token": False}, "needs class_token=True"),
        ({"class_token_log_frames": True, "attention": "divided"}, "attention='joint'"),
        ({"num_frames": 0}, "num_frames=0 must be a whole number of at least 1"),
        ({"num_heads": 0}, "num_heads=0 must be a whole number"),
        ({"patch_stride": 16}, r"patch_stride=16 must be three whole numbers \(t, h, w\)"),
        ({"drop_path_rate": -0.1}, r"drop_path_rate=-0\.1 must be at least 0"),
    ],
    ids=str,
)
def test_arguments_that_do_not_go_together(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vf.create_model("vit_tiny", **wrong)


def test_wrong_inputs() -> None:
    model = vf.create_model("vit_tiny")
    with pytest.raises(ValueError, match=r"expected a clip \(B, 3, T, H, W\)"):
        model(torch.zeros(1, 4, 8, 64, 64))
    with pytest.raises(ValueError, match=r"got torch\.uint8"):
        model(torch.zeros(1, 3, 8, 64, 64, dtype=torch.uint8))
    with pytest.raises(ValueError, match="no frames"):
        model(torch.zeros(1, 3, 0, 64, 64))


def test_new_temporal_layers_change_nothing_at_first_and_learn() -> None:
    case = load_case("vit/vit_cls")
    model = VisionTransformer(
        **{**arguments(case, 4)[1], "attention": "divided", "class_token_log_frames": False}
    )
    vf.load_weights(model, case["state_dict"])
    model(torch.randn(2, 3, 4, 32, 32)).square().sum().backward()
    assert all(block.temporal_fc.weight.grad.abs().max() > 0 for block in model.blocks)
    assert model.time_embed.grad.abs().max() > 0
