"""PVT, PVTv2, CPVT and Twins against recorded outputs (official code, timm; CPVT's are derived)."""

import re
from typing import Any

import pytest
import torch
from torch import nn

import vidformers as vf
from tests.golden import build, find_cases, load_case
from tests.golden_families import cpvt, pvt, twins
from tests.models.parity import (
    check_case,
    check_moving_clip,
    check_published,
    load_manifest,
    logits,
    manifests,
    still,
)
from tests.models.tiny import tiny
from vidformers.analysis.complexity import count_flops
from vidformers.checkpoints import load_weights
from vidformers.models import CPVT, PVT, PVTv2, TwinsPCPVT, TwinsSVT
from vidformers.models.pvt import resize_plane

CASES = find_cases("pvt_v*/*.pt", "cpvt/*.pt", "twins_*/*.pt")
WITH_CLASS_TOKEN = [name for name in CASES if name.startswith(("pvt_v1", "cpvt/cpvt_cls"))]
SVT = [name for name in CASES if name.startswith("twins_svt")]
TWINS = [name for name in CASES if name.startswith("twins")]
ARGUMENTS = {"pvt_v1": pvt, "pvt_v2": pvt, "cpvt": cpvt, "twins_pcpvt": twins, "twins_svt": twins}
ONE_FRAME = ((1, 8, 8), (1, 4, 4), (1, 2, 2), (1, 1, 1))
# what makes a registered video model its image original
IMAGE_FORM: dict[str, dict[str, Any]] = {
    "pvt_v1": {"temporal_position": False},
    "pvt_v2": {"mlp_kernel": (1, 3, 3)},
    "twins_pcpvt": {"peg_kernel": (1, 3, 3)},
    "twins_svt": {"peg_kernel": (1, 3, 3), "window_sizes": ((1, 7, 7),) * 4},
}
MANIFESTS = [(family, name) for family in IMAGE_FORM for name in manifests(family)]
# Larger sizes have only more or wider blocks, and take seconds to count.
COUNTED = {"pvt_tiny", "pvt_v2_b0", "pvt_v2_b2_li", "twins_pcpvt_small", "twins_svt_small"}
NAMES = [name for name in vf.list_models() if name.startswith(("pvt", "cpvt", "twins"))]
TINY_NAMES = [name for name in NAMES if name.endswith("_tiny")]


def still_clip(case: dict[str, Any], num_frames: int) -> torch.Tensor:
    return still(case["input"], num_frames)


def video_model(case: dict[str, Any], num_frames: int, **changes: Any) -> nn.Module:
    model_class, arguments = ARGUMENTS[case["arch"]].arguments(case, num_frames)
    model = model_class(**{**arguments, **changes})
    load_weights(model, case["state_dict"])
    return model.eval()


@pytest.mark.parametrize("name", CASES)
def test_logits(name: str) -> None:
    check_case(name)


@pytest.mark.parametrize("num_frames", [1, 4, 7, 8])
@pytest.mark.parametrize("name", CASES)
def test_still_clip_gives_the_image_logits(name: str, num_frames: int) -> None:
    """7 tokens in time fill neither windows nor reductions of 2."""
    check_case(name, num_frames)


@pytest.mark.parametrize("num_frames", [1, 3, 5])
@pytest.mark.parametrize("name", CASES)
def test_still_clip_of_another_length(name: str, num_frames: int) -> None:
    """Than the model was made for: the last tubelet is not full, the only one included."""
    case = load_case(name)
    exact = logits(build(case, num_frames=8).double(), still_clip(case, num_frames).double())
    torch.testing.assert_close(exact, case["logits_fp64"], atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_zeros_after_the_last_frame_are_seen(name: str) -> None:
    """Negative control: so the tests above could fail."""
    case = load_case(name)
    model = build(case, num_frames=8)
    embed = next(module for module in model.modules() if hasattr(module, "time_padding"))
    assert embed.stride[0] == 2
    embed.time_padding = "zero"
    assert (logits(model, still_clip(case, 7)) - case["logits"]).abs().max() > 1e-2


@pytest.mark.parametrize("name", WITH_CLASS_TOKEN)
def test_class_token_beside_many_frames_is_seen(name: str) -> None:
    """Negative control: without the correction the class token loses its share of the attention."""
    case = load_case(name)
    model = video_model(case, 8, class_token_log_frames=False)
    assert (logits(model, still_clip(case, 8)) - case["logits"]).abs().max() > 1e-2


@pytest.mark.parametrize("name", SVT)
def test_visible_padding_in_time_is_seen(name: str) -> None:
    """Negative control. Hiding the padding in H and W too keeps still clips still, but is not timm's way."""
    case = load_case(name)
    assert (
        logits(video_model(case, 7, pad_mask="none"), still_clip(case, 7)) - case["logits"]
    ).abs().max() > 1e-2
    hidden = logits(video_model(case, 7, pad_mask="all"), still_clip(case, 7))
    padded = name.endswith("pad")
    assert ((hidden - case["logits"]).abs().max() > 1e-3) == padded
    torch.testing.assert_close(
        hidden, logits(video_model(case, 1, pad_mask="all"), still_clip(case, 1)), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("name", TWINS)
def test_faded_position_encoding_is_seen(name: str) -> None:
    """Negative control: kernels spread over time, as the official inflation of others does, meet zeros."""
    case = load_case(name)
    model = video_model(case, 4)
    with torch.no_grad():
        for peg in model.pos_block:
            peg.proj.weight.copy_(peg.proj.weight.mean(dim=2, keepdim=True))
    assert (logits(model, still_clip(case, 4)) - case["logits"]).abs().max() > 1e-2


@pytest.mark.parametrize("name", CASES)
def test_moving_clip_is_not_the_mean_of_its_frames(name: str) -> None:
    check_moving_clip(name)


@pytest.mark.parametrize("name", CASES)
def test_inflated_names(name: str) -> None:
    case = load_case(name)
    model_class, arguments = ARGUMENTS[case["arch"]].arguments(case, 8)
    info = load_weights(model_class(**arguments), case["state_dict"])
    assert not info.missing
    assert not info.unexpected
    assert not info.resized
    kinds = {re.sub(r"\.\d+", "", n).removesuffix(".weight").rpartition(".")[2] for n in info.inflated}
    expected = {
        "pvt_v1": {"proj", "sr", "pos_embed_temporal"},
        "pvt_v2": {"proj", "dwconv"} | (set() if arguments.get("linear") else {"sr"}),
        "cpvt": {"proj"},
        "twins_pcpvt": {"proj", "sr"},
        "twins_svt": {"proj", "sr"},
    }[case["arch"]]
    assert kinds == expected


@pytest.mark.parametrize(("family", "name"), MANIFESTS)
def test_published_checkpoints_fit(family: str, name: str) -> None:
    """Every name and shape of the published files, without their values."""
    content = load_manifest(family, name)
    registered = re.sub("_(tiny|small|medium|base|large)$", lambda found: found[0][:2], name)
    form = {"num_frames": 1, "tubelet_size": 1, "sr_ratios": ONE_FRAME, **IMAGE_FORM[family]}
    with torch.device("meta"):
        image = vf.create_model(registered, num_classes=1000, **form)
        video = vf.create_model(registered, num_classes=1000)
    check_published(content, image, video)
    if name in COUNTED:
        flops = count_flops(image, content["input_shape"])["total"]
        # fvcore counts more: linear attention's pooling, PVT's resizing of positions to their own size.
        more = 2e-3 if name.endswith("_li") or family == "pvt_v1" else 1e-4
        assert flops / 1e9 == pytest.approx(content["gflops"], abs=more)


def test_official_names_of_pvt_v2() -> None:
    case = load_case(next(name for name in CASES if name.startswith("pvt_v2")))
    official = {}
    for name, tensor in case["state_dict"].items():
        name = re.sub(r"^patch_embed\.", "patch_embed1.", name)
        name = re.sub(r"^stages\.(\d)\.downsample", lambda m: f"patch_embed{int(m[1]) + 1}", name)
        name = re.sub(r"^stages\.(\d)\.blocks", lambda m: f"block{int(m[1]) + 1}", name)
        name = re.sub(r"^stages\.(\d)\.norm", lambda m: f"norm{int(m[1]) + 1}", name)
        official[name.replace("mlp.dwconv.", "mlp.dwconv.dwconv.")] = tensor
    model = build(case)
    nn.init.zeros_(model.head.projection.weight)
    assert load_weights(model, official).source == "official"
    torch.testing.assert_close(logits(model, case["input"]), case["logits"], atol=1e-5, rtol=0)


def test_weights_of_a_relative_are_named() -> None:
    case = load_case(SVT[0])
    with pytest.raises(ValueError, match=r"but of a TwinsSVT \(timm\)"):
        load_weights(tiny("twins_pcpvt_s"), case["state_dict"])


@pytest.mark.parametrize("name", TINY_NAMES)
def test_own_weights_are_recognised(name: str) -> None:
    model, other = tiny(name), tiny(name)
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    info = load_weights(other, model.state_dict())
    assert (info.source, info.inflated, info.resized) == ("vidformers", [], [])
    torch.testing.assert_close(dict(other.named_parameters()), dict(model.named_parameters()))


def test_pvt_positions_of_another_size() -> None:
    """Resized when loaded they are what the model resizes when it is run."""
    case = load_case("pvt_v1/pvt_v1_a")
    larger = video_model(case, 1, image_size=(96, 128))
    image = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(logits(larger, image), logits(build(case), image), atol=1e-5, rtol=0)

    clip = torch.randn(1, 3, 7, 64, 64, generator=torch.Generator().manual_seed(0))
    model = build(case, num_frames=4)
    for embedding in model.pos_embed_temporal:
        nn.init.normal_(embedding)
    longer = build(case, num_frames=8)
    info = load_weights(longer, model.state_dict())
    assert "pos_embed_temporal.3" in info.resized
    torch.testing.assert_close(logits(longer, clip), logits(model, clip), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", TINY_NAMES)
def test_any_size_and_the_order_of_frames(name: str) -> None:
    model = tiny(name).eval()
    clip = torch.randn(1, 3, 5, 45, 70, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = model.forward_features(clip)
    assert features.shape[1] == 3
    assert features.shape[-1] == model.head.projection.in_features
    forwards, backwards = logits(model, clip[:, :, :4]), logits(model, clip[:, :, :4].flip(2))
    assert (forwards - backwards).abs().max() > 1e-4


@pytest.mark.parametrize("name", TINY_NAMES)
def test_training_options(name: str) -> None:
    model = tiny(name, drop_path_rate=0.5, dropout_rate=0.1, head_dropout_rate=0.1).train()
    clip = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    assert (model(clip) - model(clip)).abs().max() > 0
    rates = [m.drop_rate for m in model.modules() if hasattr(m, "drop_rate")]
    assert rates[-1] == 0.5
    assert rates == sorted(rates)
    assert rates[0] == 0
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.1}


@pytest.mark.parametrize("name", TINY_NAMES)
def test_without_biases_of_queries_keys_and_values(name: str) -> None:
    names = {n for n, _ in tiny(name, qkv_bias=False).named_parameters()}
    assert not [n for n in names if n.endswith((".qkv.bias", ".q.bias", ".kv.bias"))]
    assert [n for n in names if n.endswith("attn.proj.bias")]


@pytest.mark.parametrize("name", TINY_NAMES)
def test_wrong_input_is_explained(name: str) -> None:
    model = tiny(name)
    with pytest.raises(ValueError, match=r"expected a clip \(B, 3, T, H, W\)"):
        model(torch.zeros(1, 4, 2, 32, 32))
    with pytest.raises(ValueError, match="normalised float"):
        model(torch.zeros(1, 3, 2, 32, 32, dtype=torch.uint8))
    if name != "pvt_v2_tiny":  # whose padded convolutions take any size
        with pytest.raises(ValueError, match="too small: got frames of 32x7 pixels"):
            model(torch.zeros(1, 3, 2, 32, 7))
        with pytest.raises(ValueError, match=r"image_size=\(4, 4\) is too small; use at least"):
            tiny(name, image_size=4)


def test_wrong_arguments_are_explained() -> None:
    with pytest.raises(ValueError, match=r"drop_path_rate=1\.0 must be at least 0 and below 1"):
        PVT(drop_path_rate=1.0)
    with pytest.raises(ValueError, match=r"depths\[2\]=0 must be a number above 0"):
        PVTv2(depths=(1, 1, 0, 1))
    with pytest.raises(ValueError, match=r"sr_ratios\[0\]=8 must be three whole numbers"):
        TwinsPCPVT(sr_ratios=(8, 4, 2, 1))
    with pytest.raises(ValueError, match=r"window_sizes\[3\]=\(4, 7\) must be three whole numbers"):
        TwinsSVT(window_sizes=((4, 7, 7), (4, 7, 7), (4, 7, 7), (4, 7)))
    with pytest.raises(ValueError, match=r"mlp_ratios\[1\]=0 must be a number above 0"):
        PVT(mlp_ratios=(8, 0, 4, 4))
    with pytest.raises(ValueError, match=r"linear_pool_size=7 must be three whole numbers"):
        PVTv2(linear_pool_size=7)
    with pytest.raises(ValueError, match="embed_dim=100 is not divisible by num_heads=8; use embed_dim=96"):
        CPVT(embed_dim=100, num_heads=8)
    with pytest.raises(ValueError, match="depths has 3"):
        TwinsPCPVT(depths=(1, 1, 1))
    with pytest.raises(ValueError, match=r"embed_dims\[1\]=130 is not divisible by num_heads\[1\]=4"):
        TwinsSVT(embed_dims=(64, 130, 256, 512))
    with pytest.raises(ValueError, match="pad_mask='both' is not one of"):
        TwinsSVT(pad_mask="both")
    with pytest.raises(ValueError, match=r"use \(1, 1, 1\) there"):
        PVT(sr_ratios=((2, 8, 8), (2, 4, 4), (2, 2, 2), (2, 1, 1)))
    with pytest.raises(ValueError, match="odd sizes"):
        PVTv2(mlp_kernel=(2, 3, 3))
    with pytest.raises(ValueError, match="num_frames=0"):
        PVTv2(num_frames=0)
    with pytest.raises(ValueError, match="needs class_token=True"):
        CPVT(class_token=False, class_token_log_frames=True)
    with pytest.raises(ValueError, match="none of the blocks 0 to 11"):
        CPVT(peg_after_block=12)


@pytest.mark.parametrize("name", TINY_NAMES)
def test_layers_for_layer_wise_decay(name: str) -> None:
    """Each layer has parameters, and none that the input meets before those of a lower layer."""
    model = tiny(name)
    seen: list[int] = []
    place = f"stages.{len(model.stages) - 1}.norm" if name == "pvt_v2_tiny" else "norm"
    norm = model.get_submodule(place)
    owner = {id(p): model.layer_id(n) for n, p in model.named_parameters()}
    handles = [
        module.register_forward_pre_hook(
            lambda module, _: seen.extend(owner[id(p)] for p in module.parameters(recurse=False))
        )
        for module in model.modules()
        if module is not model
    ]
    model(torch.zeros(1, 3, 2, 32, 32))
    for handle in handles:
        handle.remove()
    assert seen == sorted(seen)
    assert {model.layer_id(n) for n, _ in norm.named_parameters(prefix=place)} == {model.num_layers + 1}
    assert set(seen) == set(range(model.num_layers + 2))


def test_no_weight_decay() -> None:
    """Positions, class tokens and positional encoding generators."""
    kinds = {name: {n.split(".")[0] for n in tiny(name).no_weight_decay()} for name in TINY_NAMES}
    assert kinds == {
        "cpvt_tiny": {"cls_token", "peg"},
        "pvt_tiny": {"cls_token", "pos_embed_class", "pos_embed_spatial", "pos_embed_temporal"},
        "pvt_v2_tiny": set(),
        "twins_pcpvt_tiny": {"pos_block"},
        "twins_svt_tiny": {"pos_block"},
    }


@pytest.mark.parametrize("name", TINY_NAMES)
def test_initialisation(name: str) -> None:
    torch.manual_seed(0)
    model = vf.create_model(name)
    for module_name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv3d | nn.LayerNorm):
            assert not module.bias.any(), module_name
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.2), module_name
        if isinstance(module, nn.Conv3d):
            fan_out = module.weight[0].numel() * module.out_channels / module.in_channels
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.2), module_name
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.startswith(("pos_embed", "cls_token")):
            assert 0.01 < parameter.std() < 0.03, parameter_name


@pytest.mark.parametrize("name", TINY_NAMES)
def test_features_are_the_normed_patches(name: str) -> None:
    model = tiny(name).eval()
    normed: list[torch.Tensor] = []
    norm = model.stages[-1].norm if name == "pvt_v2_tiny" else model.norm
    clip = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), norm.register_forward_hook(lambda _, __, out: normed.append(out)):
        features = model.forward_features(clip)
        whole = model(clip)
    tokens = features.flatten(1, 3)
    torch.testing.assert_close(normed[0][:, -tokens.shape[1] :], tokens, atol=0, rtol=0)
    pooled = normed[-1][:, 0] if name == "pvt_tiny" else normed[-1]
    if name.startswith(("pvt_v2", "twins")):
        pooled = tokens.mean(dim=1)
    torch.testing.assert_close(model.head(pooled), whole)


@pytest.mark.parametrize("place", [0, 2])
def test_place_of_the_positional_encoding_of_cpvt(place: int) -> None:
    """After that block, and past the class token."""
    model = tiny("cpvt_tiny", peg_after_block=place).eval()
    seen: dict[str, torch.Tensor] = {}
    model.blocks[place].register_forward_hook(lambda _, __, out: seen.update(block=out))
    model.peg.register_forward_hook(lambda _, inputs, out: seen.update(peg_in=inputs[0], peg_out=out))
    model.blocks[place + 1].register_forward_pre_hook(lambda _, inputs: seen.update(after=inputs[0]))
    logits(model, torch.randn(1, 3, 4, 32, 32))
    torch.testing.assert_close(seen["peg_in"], seen["block"][:, 1:], atol=0, rtol=0)
    torch.testing.assert_close(
        seen["after"], torch.cat([seen["block"][:, :1], seen["peg_out"]], dim=1), atol=0, rtol=0
    )
    assert model.layer_id("peg.proj.bias") == place + 1


@pytest.mark.parametrize("name", TINY_NAMES)
def test_checkpointing_computes_blocks_again(name: str) -> None:
    model = tiny(name, activation_checkpointing=True).train()
    calls: list[nn.Module] = []
    norms = [module for n, module in model.named_modules() if n.endswith("norm2")]
    for norm in norms:
        norm.register_forward_hook(lambda norm, *_: calls.append(norm))
    clip = torch.randn(1, 3, 2, 32, 32)
    model(clip).sum().backward()
    assert [calls.count(norm) for norm in norms] == [2] * len(norms)
    logits(model, clip)
    model.eval()(clip).sum().backward()
    assert [calls.count(norm) for norm in norms] == [4] * len(norms)


def test_pvt_positions_are_resized_bilinearly() -> None:
    """As the official code, not bicubically as others; corners are not aligned."""
    plane = torch.tensor([1.0, 2.0]).expand(2, 2).reshape(1, 4, 1)  # 2x2, growing along W
    resized = resize_plane(plane, (2, 2), (1, 4))
    torch.testing.assert_close(resized, torch.tensor([1.0, 1.25, 1.75, 2.0]).view(1, 4, 1))
