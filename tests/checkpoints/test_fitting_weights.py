"""Weights for another input size, of images, or with other tables: fitted where that is exact."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.checkpoints.test_load_weights import V2, clip, mvit, randomised, snapshot
from tests.golden_families.mvit import inflated_arguments
from tests.models.tiny import tiny
from vidformers.checkpoints import load_weights
from vidformers.checkpoints.adapt import match_qkv
from vidformers.checkpoints.inflate import inflate_kernel


@pytest.mark.parametrize(
    ("arguments", "num_frames", "size", "resized"),
    [
        ({}, 8, 32, {"pos_embed_temporal"}),
        ({"position_embedding": "joint"}, 4, 64, {"pos_embed"}),
        ({"position_embedding": "joint"}, 8, 32, {"pos_embed"}),
        (V2, 8, 64, {f"blocks.{i}.attn.rel_pos_{axis}" for i in range(4) for axis in "thw"}),
    ],
)
def test_another_input_size_is_as_interpolating_in_the_forward(
    arguments: dict[str, Any], num_frames: int, size: int, resized: set[str]
) -> None:
    small = randomised(mvit(**arguments))
    large = mvit(**arguments, num_frames=num_frames, image_size=size)
    info = load_weights(large, small.state_dict())
    x = clip(num_frames, size)
    with torch.no_grad():
        torch.testing.assert_close(large(x), small(x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(large.forward_features(x), small.forward_features(x), atol=1e-5, rtol=1e-5)
    assert set(info.resized) == resized
    assert set(info.matched) == set(large.state_dict())


def test_spatial_embedding_is_repaired_by_pyslowfasts_rule() -> None:
    """Bicubic, where its model, given another size than it was built for, is bilinear."""
    small, large = randomised(mvit()), mvit(image_size=64)
    assert load_weights(large, small.state_dict()).resized == ["pos_embed_spatial"]
    plane = small.pos_embed_spatial.transpose(1, 2).unflatten(2, (8, 8))
    expected = F.interpolate(plane, size=(16, 16), mode="bicubic").flatten(2).transpose(1, 2)
    torch.testing.assert_close(large.pos_embed_spatial, expected)


@pytest.mark.parametrize(
    ("num_frames", "image_size", "grids"),
    [
        (32, 32, r"\(4, 8, 8\) or \(16, 4, 4\)"),  # it was read as the second
        (8, 16, r"\(4, 8, 8\) or \(16, 4, 4\)"),
        (2, 32, r"\(1, 16, 16\) or \(4, 8, 8\)"),
    ],
)
def test_a_joint_embedding_that_may_be_of_several_grids_is_refused(
    num_frames: int, image_size: int, grids: str
) -> None:
    joint = {"position_embedding": "joint"}
    weights = mvit(num_frames=8, **joint).state_dict()
    model = mvit(num_frames=num_frames, image_size=image_size, **joint)
    before = snapshot(model)
    for strict in (True, False):
        with pytest.raises(ValueError, match=f"its pos_embed has 256 tokens, which can be {grids}"):
            load_weights(model, weights, strict=strict)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_joint_embedding_beside_relative_tables() -> None:
    """Temporal tables tell the number of frames: 4 x 8 x 8, not 16 x 4 x 4."""
    arguments = {"position_embedding": "joint", "rel_pos_temporal": True}
    small = randomised(mvit(num_frames=8, **arguments))
    large = mvit(num_frames=32, **arguments)
    assert "pos_embed" in load_weights(large, small.state_dict()).resized
    torch.testing.assert_close(large.pos_embed, small._position((16, 8, 8)))


PER_FRAME = {"patch_kernel": (1, 7, 7), "patch_stride": (1, 4, 4), "patch_padding": (0, 3, 3)}


@pytest.mark.parametrize("pool_kernel", [(1, 3, 3), (3, 3, 3)])
def test_per_frame_patches_are_not_an_image_model(pool_kernel: tuple[int, int, int]) -> None:
    arguments = {**PER_FRAME, "pool_kvq_kernel": pool_kernel, "rel_pos_spatial": True}
    for position in ("separable", "joint", "none"):
        small = mvit(**arguments, position_embedding=position, rel_pos_temporal=True)
        for name in small.state_dict():
            if not name.endswith(("rel_pos_t", "pos_embed_temporal")):
                continue
            weights = {n: tensor for n, tensor in small.state_dict().items() if n != name}
            with pytest.raises(ValueError, match=f"1 missing from it: {name}"):
                load_weights(mvit(**arguments, position_embedding=position, rel_pos_temporal=True), weights)
            assert load_weights(small, weights, strict=False).missing == [name]
    # 5 x 8 x 8 tokens; 4 x 8 x 8 could be 16 x 16 of an image, but for a kernel or a table over time
    joint = {**PER_FRAME, "pool_kvq_kernel": pool_kernel, "position_embedding": "joint"}
    small, large = randomised(mvit(num_frames=5, **joint)), mvit(num_frames=10, **joint)
    info = load_weights(large, small.state_dict())
    assert (info.resized, info.inflated) == (["pos_embed"], [])
    torch.testing.assert_close(large.pos_embed, small._position((10, 8, 8)))
    small, large = mvit(num_frames=4, **joint), mvit(num_frames=8, **joint)
    if pool_kernel[0] > 1:
        assert load_weights(large, small.state_dict()).resized == ["pos_embed"]
    else:
        with pytest.raises(ValueError, match=r"\(1, 16, 16\) or \(4, 8, 8\)"):
            load_weights(large, small.state_dict())


def test_images_of_another_size_that_have_as_many_tokens_as_the_clip() -> None:
    """16 x 16 tokens of an image are not 4 x 8 x 8 of a clip: a 2D patch kernel tells."""
    joint = {**PER_FRAME, "pool_kvq_kernel": (1, 3, 3), "position_embedding": "joint"}
    image = randomised(mvit(num_frames=1, image_size=64, **joint))
    weights = image.state_dict()
    weights["patch_embed.proj.weight"] = weights["patch_embed.proj.weight"].squeeze(2)
    video = mvit(num_frames=4, **joint)
    assert load_weights(video, weights).inflated == ["pos_embed"]
    expected = image._position((1, 8, 8))[:, 1:].repeat(1, 4, 1)
    torch.testing.assert_close(video.pos_embed[:, 1:], expected)


@pytest.mark.parametrize("spatial", [False, True])
def test_temporal_tables_of_images(spatial: bool) -> None:
    """Of one row, which every row of the video model's becomes."""
    arguments = {**PER_FRAME, "image_size": 32, "pool_kvq_kernel": (1, 3, 3), "rel_pos_temporal": True}
    image = randomised(mvit(num_frames=1, rel_pos_spatial=spatial, **arguments))
    sizes = {"pool_kvq_kernel": (1, 3, 3), **PER_FRAME, "rel_pos_temporal": True, "rel_pos_spatial": spatial}
    video = mvit(**inflated_arguments(sizes, 4))
    assert "blocks.0.attn.rel_pos_t" in load_weights(video, image.state_dict()).inflated
    still = clip(1)
    with torch.no_grad():
        features = video.forward_features(still.expand(-1, -1, 4, -1, -1))
        expected = image.forward_features(still).expand_as(features)
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)


def test_joint_embedding_of_another_length_and_size_is_refused() -> None:
    """2 x 8 x 8 tokens could as well be 8 x 4 x 4: a guess would load noise."""
    small, large = (
        mvit(position_embedding="joint"),
        mvit(position_embedding="joint", num_frames=8, image_size=64),
    )
    with pytest.raises(ValueError, match=r"pos_embed \(\(1, 129, 4\)"):
        load_weights(large, small.state_dict())


@pytest.mark.parametrize("separate", [False, True])
def test_fused_and_separate_qkv(separate: bool) -> None:
    original = randomised(mvit(separate_qkv=not separate))
    model = mvit(separate_qkv=separate)
    load_weights(model, original.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model(clip()), original(clip()), atol=1e-6, rtol=1e-6)
    names = set(original.state_dict())
    back = match_qkv(match_qkv(original.state_dict(), set(model.state_dict())), names)
    torch.testing.assert_close(back, dict(original.state_dict()), rtol=0, atol=0)


def test_image_weights_into_a_video_model_are_listed() -> None:
    image = tiny("mvit_v2_t")
    state = {k: v.squeeze(2) if k == "patch_embed.proj.weight" else v for k, v in image.state_dict().items()}
    video = tiny("mvit_v2_t", num_frames=4, rel_pos_temporal=True, pool_kvq_kernel=(3, 3, 3))
    info = load_weights(video, state)
    assert info.source == "slowfast"
    assert {"blocks.0.attn.pool_q.weight", "blocks.9.attn.rel_pos_t"} <= set(info.inflated)
    assert not info.resized
    assert video.blocks[0].attn.rel_pos_t.abs().max() == 0


@pytest.mark.parametrize("position_embedding", ["joint", "separable"])
def test_joint_embedding_of_images_into_video(position_embedding: str) -> None:
    patches = {"patch_kernel": (1, 7, 7), "patch_stride": (1, 4, 4), "patch_padding": (0, 3, 3)}
    image = mvit(position_embedding="joint", num_frames=1, pool_kvq_kernel=(1, 3, 3), **patches)
    randomised(image)
    video = mvit(position_embedding=position_embedding, class_token_log_frames=True)
    info = load_weights(video, image.state_dict())
    assert "patch_embed.proj.weight" in info.inflated
    assert any(name.startswith("pos_embed") for name in info.inflated)
    still = clip(1)
    with torch.no_grad():
        out = video(still.expand(-1, -1, 4, -1, -1))
        torch.testing.assert_close(out, image(still), atol=1e-5, rtol=1e-5)


def test_image_whose_pools_reach_over_time_into_video() -> None:
    """An image meets one tap of such kernels, so the others are no part of its model; nothing is rounded."""
    patches = {"patch_stride": (1, 4, 4), "rel_pos_temporal": True, "position_embedding": "joint"}
    of_image = {"patch_kernel": (1, 7, 7), "patch_padding": (0, 3, 3)}
    image = randomised(mvit(num_frames=1, **patches, **of_image)).double()
    state = snapshot(image)
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].squeeze(2)
    video = mvit(num_frames=5, class_token_log_frames=True, **patches).double()
    load_weights(video, state)
    still = clip(1).double()
    with torch.no_grad():
        out = video(still.expand(-1, -1, 5, -1, -1))
        torch.testing.assert_close(out, image(still), atol=1e-9, rtol=0)


def test_inflated_kernels() -> None:
    kernel = torch.randn(2, 3, 1, 4, 4)
    tubelet = inflate_kernel(kernel, 2, padding=0)
    torch.testing.assert_close(tubelet.sum(2, keepdim=True), kernel)
    torch.testing.assert_close(tubelet[:, :, 0], tubelet[:, :, 1])
    padded = inflate_kernel(kernel, 3, padding=1)
    torch.testing.assert_close(padded[:, :, 1:2], kernel)
    assert padded[:, :, [0, 2]].abs().max() == 0
