"""MSG-Transformer against the official code's outputs; image weights in time; the messengers' shuffle."""

from typing import Any

import pytest
import torch

import vidformers as vf
from tests.golden import find_cases, load_case
from tests.golden_families.msg_transformer import arguments, official_arguments
from tests.models.parity import check_case, check_moving_clip, check_published, load_manifest, logits, still
from vidformers.analysis.complexity import count_flops
from vidformers.models import MSGTransformer
from vidformers.models.msg_transformer import shuffle_index

CASES = find_cases("msg_transformer/*.pt")
SMALL = "msg_transformer/msg_noshuffle"
MANIFESTS = {"msg_tiny": "msg_t", "msg_small": "msg_s", "msg_base": "msg_b"}  # published -> registered name


def pair(region_t: int = 2, **changes: Any) -> tuple[MSGTransformer, MSGTransformer]:
    """An image model with random weights and shuffled messengers, and the video model that it becomes."""
    image = {
        "num_frames": 1,
        "image_size": 32,
        "num_classes": 5,
        "patch_kernel": (1, 7, 7),
        "patch_stride": (1, 4, 4),
        "embed_dim": 32,
        "depths": (2, 2),
        "num_heads": (2, 4),
        "window_size": (1, 2, 2),
        "region_size": ((1, 2, 2), (1, 2, 2)),
        "mlp_ratio": 2.0,
    }
    video = {
        **image,
        "num_frames": 8,
        "patch_kernel": (2, 7, 7),
        "patch_stride": (2, 4, 4),
        "merge_kernel": (3, 3, 3),
        "window_size": (2, 2, 2),
        "region_size": ((region_t, 2, 2), (region_t, 2, 2)),
        **changes,
    }
    torch.manual_seed(0)
    image_model = MSGTransformer(**image).double().eval()
    video_model = MSGTransformer(**video).double().eval()
    with torch.no_grad():
        for name, parameter in image_model.named_parameters():
            is_scale = "norm" in name and name.endswith("weight")
            parameter.copy_(torch.randn_like(parameter) * 0.3 + float(is_scale))
    vf.load_weights(video_model, image_model.state_dict())
    return image_model, video_model


def random_image(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CASES)
def test_logits(name: str) -> None:
    check_case(name)


@pytest.mark.parametrize("num_frames", [1, 4, 7, 8])
@pytest.mark.parametrize("name", CASES)
def test_still_clip_gives_the_image_logits(name: str, num_frames: int) -> None:
    """With 7 frames the last window is half padding, so that its messenger stands for one frame."""
    check_case(name, num_frames)


@pytest.mark.parametrize("num_frames", [1, 2, 5, 13])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"region_t": 4},
        {"window_size": (3, 2, 2)},
        {"patch_kernel": (1, 7, 7), "patch_stride": (1, 4, 4)},
        {"patch_kernel": (3, 7, 7), "patch_padding": (1, 2, 2)},
        {"merge_kernel": (1, 3, 3)},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(32, 32), (36, 21)], ids=str)
def test_still_clips_of_other_video_models(
    changes: dict[str, Any], num_frames: int, size: tuple[int, int]
) -> None:
    """Built for 8 frames, run on other numbers of them; 36x21 fills neither windows nor regions."""
    image_model, video_model = pair(**changes)
    image = random_image(*size)
    found, expected = logits(video_model, still(image, num_frames)), logits(image_model, image)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def test_moving_clip_does_not_give_the_mean_of_its_frames() -> None:
    check_moving_clip(SMALL)


def test_messengers_carry_information_between_windows_in_time() -> None:
    """With one merge kernel a frame, only the shuffle can bring the last frames to the first window."""
    reached = {}
    for shuffled in (False, True):
        _, model = pair(merge_kernel=(1, 3, 3), shuffle_messengers=shuffled)
        clip = random_image(32, 32)[:1].unsqueeze(2).repeat(1, 1, 8, 1, 1)
        changed = clip.clone()
        changed[:, :, -2:] += 1.0
        with torch.no_grad():
            first = [model.forward_features(c)[:, :2] for c in (clip, changed)]
        reached[shuffled] = (first[0] - first[1]).abs().max().item()
    assert reached[False] == 0.0
    assert reached[True] > 1e-3


def test_inexact_choices_are_inexact() -> None:
    """The control of the tests above: a messenger that counts as one key among many frames' patches."""
    image_model, video_model = pair(messenger_log_frames=False)
    image = random_image(32, 32)
    difference = logits(video_model, still(image, 8)) - logits(image_model, image)
    assert difference.abs().max() > 1e-2


def shuffle_by_loops(
    old: torch.Tensor, windows: tuple[int, int, int], region: tuple[int, int, int]
) -> torch.Tensor:
    """(nt, nh, nw, C) -> the same, by the words of `shuffle_index`: first in time, then in space."""
    (nt, nh, nw), (rt, rh, rw) = windows, region
    chunks = old.unflatten(-1, (rh * rw, rt, -1))  # (nt, nh, nw, chunk, sub-chunk, c)
    timed = chunks.clone()
    for t in range(nt):
        first = t // rt * rt
        count = min(rt, nt - first)
        for u in range(rt):
            timed[t, :, :, :, u] = chunks[first + (t - first + u) % count, :, :, :, u]
    new = timed.clone()
    for h in range(nh):
        for w in range(nw):
            for g in range(rh * rw):
                partner = (h // rh * rh + g // rw, w // rw * rw + g % rw)
                if partner[0] < nh and partner[1] < nw:
                    new[:, h, w, g] = timed[:, partner[0], partner[1], h % rh * rw + w % rw]
    return new.flatten(-3)


@pytest.mark.parametrize(
    ("windows", "region"),
    [
        ((1, 4, 4), (1, 2, 2)),
        ((1, 8, 4), (1, 4, 4)),
        ((4, 2, 2), (2, 2, 2)),
        ((5, 3, 5), (4, 2, 2)),
        ((3, 1, 1), (2, 1, 1)),
        ((2, 3, 1), (3, 4, 2)),
    ],
    ids=str,
)
def test_shuffle_by_loops(windows: tuple[int, int, int], region: tuple[int, int, int]) -> None:
    dim = 48
    index = shuffle_index(windows, region, dim)
    assert index is not None
    old = torch.arange(index.numel())
    assert torch.equal(index.sort().values, old)  # nothing is lost
    expected = shuffle_by_loops(old.view(*windows, dim), windows, region)
    assert torch.equal(old[index], expected.flatten())


def test_one_window_has_nobody_to_shuffle_with() -> None:
    assert shuffle_index((1, 1, 1), (2, 4, 4), 64) is None
    assert shuffle_index((3, 2, 2), (1, 1, 1), 64) is None


def test_every_region_starts_with_the_same_messengers() -> None:
    _, model = pair()
    torch.nn.init.normal_(model.msg_tokens)
    first = model._first_messengers(torch.zeros(1, 8, 8, 6, 32))  # windows (4, 4, 3) in regions of (2, 2, 2)
    assert first.shape == (1, 4, 4, 3, 32)
    for t, h, w in [(0, 0, 0), (1, 2, 1), (3, 3, 2)]:
        place = (t % 2) * 4 + (h % 2) * 2 + w % 2
        assert torch.equal(first[0, t, h, w], model.msg_tokens[0, place, 0])


def test_messengers_of_another_region_are_not_taken_for_an_images() -> None:
    """2 x 2 messengers are not those of one time step of a region of 1 x 4 x 2."""
    image, other = (vf.create_model("msg_tiny", region_size=((1, h, 2),) * 2) for h in (2, 4))
    with pytest.raises(ValueError, match="1 of another shape: msg_tokens"):
        vf.load_weights(other, image.state_dict())


def test_what_was_inflated_is_said() -> None:
    case = load_case(SMALL)
    info = vf.load_weights(MSGTransformer(**arguments(case, 8)[1]), case["state_dict"])
    assert info.source == "official"
    assert not info.missing
    assert not info.unexpected
    assert {"msg_tokens", "patch_embed.proj.weight"} <= set(info.inflated)
    assert "layers.0.downsample.reduction.weight" in info.inflated
    assert "layers.0.blocks.0.attn.position_bias.patches.table" in info.inflated
    assert not vf.load_weights(MSGTransformer(**arguments(case, None)[1]), case["state_dict"]).inflated


@pytest.mark.parametrize("published", MANIFESTS)
def test_published_sizes(published: str) -> None:
    """Parameters, names, shapes and GFLOPs of the image model; its weights fit the registered video model."""
    manifest = load_manifest("msg_transformer", published)
    image_arguments = official_arguments(manifest["kwargs"])
    with torch.device("meta"):
        image_model = MSGTransformer(**image_arguments)
        video = vf.create_model(MANIFESTS[published], num_classes=1000)
    check_published(manifest, image_model, video)
    flops = count_flops(image_model, manifest["input_shape"])["total"] / 1e9
    assert flops == pytest.approx(manifest["gflops"], rel=0.01)
    # What no shape tells.
    ours = vf.model_arguments(MANIFESTS[published])
    assert [r[1:] for r in ours["region_size"]] == [r[1:] for r in image_arguments["region_size"]]
    assert ours["window_size"][1:] == image_arguments["window_size"][1:]


def test_one_messenger_for_each_window_is_left() -> None:
    with torch.device("meta"):
        model = vf.create_model("msg_t")
        patches, messengers = model.forward_maps(torch.empty(1, 3, 16, 224, 224))
    assert patches.shape == (1, 8, 7, 7, 512)
    assert messengers.shape == (1, 2, 1, 1, 512)


def test_no_pixel_is_dropped() -> None:
    """Every stride rounds up: 21 pixels are 6 patches, the last one of 1, and 3 after the merge."""
    image_model, _ = pair()
    with torch.no_grad():
        features = image_model.forward_features(random_image(36, 21))
    assert features.shape == (2, 1, 5, 3, 64)


def test_layers_and_decay() -> None:
    with torch.device("meta"):
        model = vf.create_model("msg_t")
    names = {
        "msg_tokens": 0,
        "patch_embed.proj.weight": 0,
        "layers.0.blocks.1.norm1.weight": 2,
        "layers.0.downsample.norm.weight": 2,
        "layers.3.blocks.3.attn.position_bias.rel_pos_msg": 22,
        "norm.weight": 23,
    }
    assert {name: model.layer_id(name) for name in names} == names
    assert len(model.no_weight_decay()) == 1 + 2 * 22


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": (2, 2, 2)}, "one entry a stage"),
        ({"embed_dim": 96, "region_size": ((4, 4, 4),) * 4, "num_heads": (3,) * 4}, "a multiple of 64"),
        ({"merge_kernel": (2, 3, 3)}, "must be odd"),
        ({"num_frames": 0}, "must be at least 1"),
    ],
    ids=str,
)
def test_arguments_that_do_not_go_together(changes: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        vf.create_model("msg_t", **changes)


def test_cases_of_unknown_options_say_so() -> None:
    with pytest.raises(ValueError, match="ape=True"):
        official_arguments({"ape": True})
    with pytest.raises(ValueError, match="manip_type='other'"):
        official_arguments({"manip_type": "other"})
    with pytest.raises(ValueError, match="new_option"):
        official_arguments({"new_option": 1})
