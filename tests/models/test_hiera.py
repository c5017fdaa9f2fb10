"""Hiera against the official code; image weights in time; sizes that are no multiple of a mask unit."""

from typing import Any

import pytest
import torch

import vidformers as vf
from tests.golden import build, find_cases, load_case
from tests.golden_families.hiera import arguments
from tests.golden_json import load_json
from tests.models.parity import check_case, check_logits, check_moving_clip, logits, still
from vidformers.analysis.complexity import count_flops, count_parameters
from vidformers.models import Hiera
from vidformers.models.hiera import MaskUnitAttention

CASES = find_cases("hiera/*.pt")
IMAGE = find_cases("hiera/*image*.pt")
IMAGE_ARGUMENTS = {
    "num_frames": 1,
    "num_classes": 1000,
    "patch_kernel": (1, 7, 7),
    "patch_stride": (1, 4, 4),
    "patch_padding": (0, 3, 3),
    "position_embedding": "joint",
}
MANIFESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "hiera_base_16x224": ("hiera_b", {}),
    "hiera_base_plus_16x224": ("hiera_b_plus", {}),
    "hiera_large_16x224": ("hiera_l", {}),
    "hiera_base_224": ("hiera_b", IMAGE_ARGUMENTS),
    "hiera_tiny_224": ("hiera_t", IMAGE_ARGUMENTS),
}


@pytest.mark.parametrize("name", CASES)
def test_logits(name: str) -> None:
    check_case(name)


@pytest.mark.parametrize("num_frames", [1, 4, 7, 8])
@pytest.mark.parametrize("name", IMAGE)
def test_still_clip_gives_the_image_logits(name: str, num_frames: int) -> None:
    check_case(name, num_frames)
    case = load_case(name)
    # In pairs of frames, of which 7 leave half a pair.
    check_logits(build(case, 8), still(case["input"], num_frames), case)


def test_moving_clip_is_more_than_its_frames() -> None:
    check_moving_clip(IMAGE[0])


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_published_sizes(manifest: str) -> None:
    name, changes = MANIFESTS[manifest]
    published = load_json(f"manifests/hiera/{manifest}.json")
    with torch.device("meta"):
        model, video = vf.create_model(name, **changes), vf.create_model(name, num_classes=1000)
    assert count_parameters(model) == published["num_params"]
    flops = count_flops(model, published["input_shape"])["total"]
    assert flops / 1e9 == pytest.approx(published["gflops"], rel=1e-3)

    state = {key: torch.ones(()).expand(shape) for key, shape in published["state_dict"].items()}
    info = vf.load_weights(model.to_empty(device="cpu"), state)
    assert info.source == "hiera"
    assert vf.model_arguments(name)["norm_eps"] == 1e-6
    assert len(info.matched) == len(state)
    assert not info.resized and not info.inflated
    if changes:  # an image model: its weights fill the registered video model too
        info = vf.load_weights(video.to_empty(device="cpu"), state)
        assert set(info.inflated) == {"patch_embed.proj.weight", "pos_embed_spatial", "pos_embed_temporal"}


@pytest.mark.parametrize("q_stride", [(1, 1, 1), (1, 2, 2), (2, 2, 2)])
def test_attention_within_mask_units_by_its_definition(q_stride: tuple[int, int, int]) -> None:
    """With loops over the mask units, cut off at the map's ends: padding is never seen."""
    torch.manual_seed(0)
    attn = MaskUnitAttention(dim=8, dim_out=16, num_heads=2, q_stride=q_stride, window=(2, 4, 4)).double()
    x = torch.randn(2, 3, 5, 9, 8, dtype=torch.float64)
    with torch.no_grad():
        got = attn(x)
        q, k, v = attn.qkv(x).chunk(3, dim=-1)
    st, sh, sw = q_stride
    expected = torch.full_like(got, torch.nan)
    for t in range(0, 3, 2):
        for h in range(0, 5, 4):
            for w in range(0, 9, 4):
                unit = (slice(None), slice(t, t + 2), slice(h, h + 4), slice(w, w + 4))
                queries: dict[tuple[int, int, int], torch.Tensor] = {}
                for dt in range(t, min(t + 2, 3)):
                    for dh in range(h, min(h + 4, 5)):
                        for dw in range(w, min(w + 4, 9)):
                            place = (dt // st, dh // sh, dw // sw)
                            token = q[:, dt, dh, dw]
                            queries[place] = torch.maximum(queries.get(place, token), token)
                keys, values = (part[unit].flatten(1, 3).unflatten(-1, (2, 8)) for part in (k, v))
                for (dt, dh, dw), query in queries.items():
                    logits = torch.einsum("bhd,bnhd->bhn", query.unflatten(-1, (2, 8)), keys) * 8**-0.5
                    out = torch.einsum("bhn,bnhd->bhd", logits.softmax(dim=-1), values).flatten(1)
                    expected[:, dt, dh, dw] = attn.proj(out).detach()
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("size", [(8, 64, 64), (5, 50, 70), (1, 20, 36), (3, 4, 4)])
@pytest.mark.parametrize("position", ["separable", "joint"])
def test_any_size(size: tuple[int, int, int], position: str) -> None:
    model = vf.create_model("hiera_tiny", position_embedding=position).eval()
    clip = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = model.forward_features(clip)
    assert features.shape == (2, -(-size[0] // 2), -(-size[1] // 32), -(-size[2] // 32), 192)
    assert torch.isfinite(features).all()


def test_weights_of_another_input_size() -> None:
    case = load_case(IMAGE[0])
    found = {**arguments(case, None)[1], "image_size": (96, 64)}
    larger = Hiera(**found).eval()
    info = vf.load_weights(larger, case["state_dict"])
    assert info.resized + info.inflated == ["pos_embed"]
    assert torch.isfinite(logits(larger, torch.randn(1, 3, 96, 64))).all()


def test_a_2d_kernel_tells_images_from_a_video_model_with_as_many_tokens() -> None:
    """16 x 16 tokens of one image, where the video model has 4 x 8 x 8."""
    names = ("num_frames", "patch_kernel", "patch_stride", "patch_padding", "position_embedding")
    image = vf.create_model("hiera_tiny", image_size=64, **{name: IMAGE_ARGUMENTS[name] for name in names})
    state = image.state_dict()
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].squeeze(2)
    video = vf.create_model("hiera_tiny", image_size=32, position_embedding="joint")
    assert video.pos_embed.shape == image.pos_embed.shape
    info = vf.load_weights(video, state)
    assert set(info.inflated) == {"patch_embed.proj.weight", "pos_embed"}
    frames = video.pos_embed.unflatten(1, video.grid)
    torch.testing.assert_close(frames[:, 1:], frames[:, :-1])


def test_another_family_says_whose_weights_these_are() -> None:
    state = vf.create_model("hiera_tiny").state_dict()
    with pytest.raises(ValueError, match=r"but of a Hiera \(hiera\)"):
        vf.load_weights(vf.create_model("vit_tiny"), state)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mask_unit_size": (1, 6, 8)}, r"must be a multiple of \(1, 8, 8\)"),
        ({"mask_unit_attn": (True, False)}, "as many entries as there are stages"),
        ({"q_pool": 4}, "must be 0 to 3"),
        ({"position_embedding": "sincos"}, "'sincos' is not one of 'joint', 'separable'"),
        ({"num_heads": 0}, "num_heads=0 must be a whole number"),
        ({"stages": ()}, "needs at least one block a stage"),
        ({"q_stride": 2}, r"q_stride=2 must be three whole numbers \(t, h, w\)"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate=1\.0 must be at least 0 and below 1"),
        ({"num_heads": 5}, "not divisible by num_heads=5; use embed_dim=20"),
        ({"num_frames": 7}, "not divisible by the patch stride 2"),
    ],
    ids=str,
)
def test_arguments_that_do_not_go_together(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vf.create_model("hiera_tiny", **wrong)
