"""CrossFormer and CrossFormer++ against the official code's outputs; image weights in time."""

from typing import Any

import pytest
import torch

import vidformers as vf
from tests.golden import build, find_cases, load_case
from tests.golden_families.crossformer import arguments, inflated_arguments, official_arguments
from tests.models.parity import check_case, check_moving_clip, check_published, load_manifest, logits, still
from vidformers.analysis.complexity import count_flops
from vidformers.models import CrossFormer
from vidformers.models.crossformer import CrossFormerBlock

CASES = find_cases("crossformer/*.pt")
SMALLEST = "crossformer/cros_pad_mask"  # with padding in both kinds of attention
# Published model -> registered name
MANIFESTS = {
    "crossformer_tiny": "crossformer_t",
    "crossformer_small": "crossformer_s",
    "crossformer_base": "crossformer_b",
    "crossformer_large": "crossformer_l",
    "crossformer_pp_small": "crossformer_pp_s",
    "crossformer_pp_base": "crossformer_pp_b",
    "crossformer_pp_large": "crossformer_pp_l",
    "crossformer_pp_huge": "crossformer_pp_h",
}


def video_model(case: dict[str, Any], **changes: Any) -> CrossFormer:
    """The inflated model of a case for 8 frames, with other arguments."""
    model = CrossFormer(**{**arguments(case, 8)[1], **changes}).double().eval()
    vf.load_weights(model, case["state_dict"])
    return model


@pytest.mark.parametrize("name", CASES)
def test_logits(name: str) -> None:
    check_case(name)


@pytest.mark.parametrize("num_frames", [1, 4, 7, 8])
@pytest.mark.parametrize("name", CASES)
def test_still_clip_gives_the_image_logits(name: str, num_frames: int) -> None:
    """With 7 frames groups of 2 are padded; with 8 frames there are tubelets of 2 that overlap."""
    check_case(name, num_frames)


@pytest.mark.parametrize("num_frames", [1, 5])
@pytest.mark.parametrize(
    "changes",
    [
        {"interval": [(0, 3, 3), (0, 2, 2)]},
        {"group_size": [(4, 4, 4), (3, 4, 4)]},
        {"patch_kernels": [(2, 4, 4), (4, 8, 8), (4, 16, 16), (6, 32, 32)]},
        {"patch_kernels": [(1, 4, 4), (2, 8, 8), (3, 16, 16), (5, 32, 32)], "patch_stride": (1, 4, 4)},
        {"merge_kernels": [[(3, 2, 2), (5, 4, 4)]]},
        {"pad_mask": "time", "pad_side": "both", "image_only": {"pad_mask": "none", "pad_side": "both"}},
        {"cooling_kernel": None},
    ],
    ids=str,
)
def test_other_video_models_of_the_same_image_weights(changes: dict[str, Any], num_frames: int) -> None:
    """Built for 8 frames, run on other numbers of them, 1 too. Kernels are divided in float32."""
    case = load_case(SMALLEST)
    image_model = CrossFormer(**{**arguments(case, None)[1], **changes.get("image_only", {})}).double().eval()
    vf.load_weights(image_model, case["state_dict"])
    model = video_model(case, **{k: v for k, v in changes.items() if k != "image_only"})
    image = case["input"].double()
    expected = logits(image_model, image)
    torch.testing.assert_close(logits(model, still(image, num_frames)), expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("size", [(50, 70), (13, 200), (3, 5)])
def test_other_sizes(size: tuple[int, int]) -> None:
    """Not divisible by anything: padded at each step, and still the same for image and still clip."""
    case = load_case(SMALLEST)
    image = torch.randn(1, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = logits(build(case).double(), image)
    assert torch.isfinite(expected).all()
    found = logits(build(case, 8).double(), still(image, 7))
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    with torch.no_grad():
        features = build(case).forward_features(image.float())
    assert features.shape[1:4] == (1, *(-(-n // 8) for n in size))


def test_long_distance_attention_reaches_exactly_its_group() -> None:
    """A token that changes, changes the tokens of its group by the definition, and no others."""
    torch.manual_seed(0)
    block = CrossFormerBlock(
        dim=48,
        num_heads=3,
        group=(2, 4, 4),
        interval=(1, 2, 2),
        pad_side="end",
        pad_mask="all",
        mlp_ratio=2.0,
        qkv_bias=True,
        cooling_kernel=None,
        dropout_rate=0.0,
        drop_path_rate=0.0,
        norm_eps=1e-5,
    ).double()
    x = torch.randn(1, 3, 9, 11, 48, dtype=torch.float64)
    changed = x.clone()
    changed[0, 2, 3, 9] += torch.randn(48, dtype=torch.float64)
    with torch.no_grad():
        touched = (block(changed) - block(x)).abs().amax(dim=-1)[0] > 1e-12
    # Pieces of 2, 8 and 8 tokens: it is in time alone (the other one is padding), in height with every second
    # one of the first piece, in width in the second piece, of which only the tokens 8 to 10 exist.
    assert touched.nonzero().tolist() == [[2, h, 9] for h in (1, 3, 5, 7)]


def test_moving_clip_does_not_give_the_mean_of_its_frames() -> None:
    check_moving_clip(SMALLEST)


def test_inexact_choices_are_inexact() -> None:
    """The controls of the tests above: zeros before the first frame, and padded frames as keys."""
    case = load_case(SMALLEST)
    image = case["input"].double()
    model = video_model(case)
    for conv in model.patch_embed.projs:
        conv.time_padding = "zero"
    assert (logits(model, still(image, 8)) - case["logits_fp64"]).abs().max() > 1e-2
    model = video_model(case, pad_mask="none")
    assert (logits(model, still(image, 6)) - case["logits_fp64"]).abs().max() > 1e-3


def test_what_was_inflated_is_said() -> None:
    case = load_case(SMALLEST)
    info = vf.load_weights(CrossFormer(**arguments(case, 8)[1]), case["state_dict"])
    assert info.source == "official"
    assert not info.missing
    assert not info.unexpected
    assert "patch_embed.projs.0.weight" in info.inflated
    assert "layers.1.blocks.0.attn.position_bias.pos_proj.weight" in info.inflated
    assert not vf.load_weights(CrossFormer(**arguments(case, None)[1]), case["state_dict"]).inflated


@pytest.mark.parametrize("published", MANIFESTS)
def test_published_sizes(published: str) -> None:
    """Parameters, names, shapes and GFLOPs of the image model; its weights fit the registered video model."""
    manifest = load_manifest("crossformer", published)
    image_arguments = official_arguments(manifest["kwargs"])
    with torch.device("meta"):
        image_model = CrossFormer(**image_arguments)
        video = vf.create_model(MANIFESTS[published], num_classes=1000)
    check_published(manifest, image_model, video)
    flops = count_flops(image_model, manifest["input_shape"])["total"] / 1e9
    assert flops == pytest.approx(manifest["gflops"], rel=0.01)
    # What no shape tells.
    ours = vf.model_arguments(MANIFESTS[published])
    for argument in ("group_size", "interval"):
        assert [tuple(v[1:]) for v in ours[argument]] == [tuple(v[1:]) for v in image_arguments[argument]]


def test_the_published_groups_fill_the_map() -> None:
    with torch.device("meta"):
        model = vf.create_model("crossformer_s")
    layouts = [model.layers[i].blocks[1].layout((8, 56 // 2**i, 56 // 2**i)) for i in range(4)]
    assert [group for group, _, _ in layouts] == [(4, 7, 7)] * 4
    assert [interval for _, interval, _ in layouts] == [(2, 8, 8), (2, 4, 4), (2, 2, 2), (2, 1, 1)]
    assert model.layers[0].blocks[0].layout((8, 56, 56))[1] == (1, 1, 1)


def test_groups_of_small_and_of_uneven_maps() -> None:
    """No group is longer than its axis, where every interval would take its tokens apart; padding on both
    sides leaves the odd row to the end, and never precedes the first frame."""
    arguments = {"patch_kernels": [(1, 4, 4)], "patch_stride": (1, 4, 4), "pad_side": "both"}
    with torch.device("meta"):
        model = vf.create_model("crossformer_s", interval=((8, 8, 8),) * 4, **arguments)
    near, far = model.layers[0].blocks
    assert far.layout((3, 5, 7)) == ((3, 5, 7), (1, 1, 1), (0, 0, 0))
    assert near.layout((9, 5, 10)) == ((4, 5, 7), (1, 1, 1), (0, 0, 2))
    assert near.layout((9, 18, 4)) == ((4, 7, 4), (1, 1, 1), (0, 1, 0))
    assert far.layout((9, 53, 4)) == ((4, 7, 4), (8, 8, 1), (0, 1, 0))


def test_cooling_layers_follow_every_third_block_but_the_last() -> None:
    with torch.device("meta"):
        model = vf.create_model("crossformer_pp_h")
    where = [[j for j, b in enumerate(stage.blocks) if b.ex_conv is not None] for stage in model.layers]
    assert where == [[2], [2], [2, 5, 8, 11, 14], []]


def test_layers_for_decay() -> None:
    with torch.device("meta"):
        model = vf.create_model("crossformer_s")
    names = {
        "patch_embed.projs.1.bias": 0,
        "layers.0.blocks.1.norm1.weight": 2,
        "layers.0.downsample.norm.weight": 2,
        "layers.2.blocks.0.attn.position_bias.pos1.0.weight": 5,
        "layers.3.blocks.1.mlp.fc1.weight": 12,
        "norm.weight": 13,
    }
    assert {name: model.layer_id(name) for name in names} == names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": (2, 2, 2)}, "one entry a stage"),
        ({"num_heads": (3, 5, 12, 24)}, "not divisible"),
        ({"embed_dim": 100, "num_heads": (4, 4, 4, 4)}, "use a multiple of 8"),
        ({"patch_kernels": ((1, 4, 4),), "embed_dim": 96}, "at least as large as the stride"),
        ({"interval": ((0, 8, 8),)}, "does not fit 4 stages"),
        ({"interval": ((0, 8, -8),) * 4}, "1 or more, or 0"),
        ({"merge_kernels": (((1, 2, 2),),)}, "3 merges between them"),
        ({"merge_kernels": ((0, 0),) * 3}, r"kernel=0 must be three whole numbers"),
        ({"merge_kernels": (2, 2, 2)}, "kernels 2 must be a sequence of"),
        ({"patch_kernels": ((4, 4),)}, r"kernel=\(4, 4\) must be three whole numbers"),
        ({"pad_side": "start"}, "not one of 'end', 'both'"),
        ({"pad_mask": "some"}, "not one of 'none', 'time', 'all'"),
        ({"cooling_kernel": (2, 3, 3)}, "must be odd"),
        ({"num_frames": 0}, "must be at least 1"),
    ],
    ids=str,
)
def test_arguments_that_do_not_go_together(changes: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        vf.create_model("crossformer_s", **changes)


def test_cases_of_unknown_options_say_so() -> None:
    with pytest.raises(ValueError, match="ape=True"):
        official_arguments({"ape": True})
    with pytest.raises(ValueError, match="new_option"):
        official_arguments({"new_option": 1})


def test_inflated_arguments_only_change_time() -> None:
    image = official_arguments({"use_acl": True, "img_size": 64})
    video = inflated_arguments(image, 8)
    assert video["cooling_kernel"] == (3, 3, 3)
    assert [g[1:] for g in video["group_size"]] == [g[1:] for g in image["group_size"]]
