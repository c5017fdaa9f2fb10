"""Reversible MViT: PySlowFast's outputs and gradients, and a backward pass that keeps no activations."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vidformers as vf
from tests.golden import build, find_cases, load_case
from tests.golden_json import load_json
from tests.models.parity import logits, still
from vidformers.analysis.complexity import count_flops
from vidformers.models import RevMViT

CASES = find_cases("slowfast/rev_*.pt")
IMAGES = [name for name in CASES if "image" in name]
PUBLISHED = {
    "rev_mvit_b_16x4": "Kinetics__REV_MVIT_B_16x4_CONV",
    "rev_mvit_b_16": "ImageNet__REV_MVIT_B_16_CONV",
    "rev_vit_s": "ImageNet__REV_VIT_S",
    "rev_vit_b": "ImageNet__REV_VIT_B",
}


def small(**overrides: Any) -> RevMViT:
    sizes = {"embed_dim": 8, "image_size": 32, "num_frames": 4, "num_classes": 5}
    torch.manual_seed(0)
    model = vf.create_model("rev_mvit_tiny", **{**sizes, **overrides})
    # The initial weights are so small that most branches would hardly be seen.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def clip(batch: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(batch, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1)).to(dtype)


def step(model: nn.Module, x: Tensor, seed: int = 3) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and all gradients, the input's too."""
    x = x.clone().requires_grad_()
    torch.manual_seed(seed)
    out = model(x)
    out.square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return out.detach(), {"input": x.grad, **gradients}


@pytest.mark.parametrize("name", CASES)
def test_logits_and_features(name: str) -> None:
    case = load_case(name)
    model = build(case)
    seen: dict[str, Tensor] = {}
    model.norm.register_forward_hook(lambda _, __, out: seen.update(features=out))
    torch.testing.assert_close(logits(model, case["input"]), case["logits"], atol=1e-5, rtol=0)
    torch.testing.assert_close(seen["features"], case["features"], atol=1e-5, rtol=0)
    with torch.no_grad():
        features = model.forward_features(case["input"])
    assert list(features.shape[1:4]) == case["block_shapes"][-1]
    torch.testing.assert_close(features.flatten(1, 3), case["features"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("reversible", [True, False])
def test_gradient_norms(name: str, reversible: bool) -> None:
    case = load_case(name)
    model = build(case).double()
    model.rev_backbone.reversible_backward = reversible
    x = case["input"].double().requires_grad_()
    (model(x) * case["grad_out"].double()).sum().backward()
    assert x.grad.norm().item() == pytest.approx(float(case["grad_input_norm"]), rel=1e-9)
    norms = {n: p.grad.norm().item() for n, p in model.named_parameters()}
    assert norms == {n: pytest.approx(float(v), rel=1e-9, abs=1e-11) for n, v in case["grad_norms"].items()}


@pytest.mark.parametrize("num_frames", [1, 3, 4])
@pytest.mark.parametrize("name", IMAGES)
def test_still_clip_gives_the_image_logits(name: str, num_frames: int) -> None:
    case = load_case(name)
    got = logits(build(case, num_frames=num_frames), still(case["input"], num_frames))
    torch.testing.assert_close(got, case["logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_size(name: str) -> None:
    content = load_json(f"manifests/slowfast/{PUBLISHED[name]}.json")
    with torch.device("meta"):
        model = vf.create_model(name)
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    if len(content["input_shape"]) == 4:  # an image model's stem has no time axis there
        assert shapes["patch_embed.proj.weight"].pop(2) == 1
    assert shapes == content["state_dict"]
    assert sum(p.numel() for p in model.parameters()) == content["num_params"]
    gflops = count_flops(model, tuple(content["input_shape"]))["total"] / 1e9
    assert gflops == pytest.approx(content["gflops_per_view"], rel=0.02)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"drop_path_rate": 0.5},
        {"drop_path_rate": 0.3, "dropout_rate": 0.2, "pre_q_fusion": "ln+concat_linear_2_0.1"},
        {
            "pool_first": True,
            "separate_qkv": True,
            "pre_q_fusion": "concat",
            "respath_fusion": "concat_linear",
        },
        {
            "rel_pos_spatial": True,
            "rel_pos_temporal": True,
            "residual_pooling": True,
            "respath_fusion": "avg",
        },
        {"pre_q_fusion": "max", "respath_fusion": "min", "mean_pooling": True, "position_embedding": "joint"},
        {"pre_q_fusion": "add", "pool_mode": "avg", "norm_stem": True, "buffer_layers": (0, 1, 3, 4)},
        {"pool_mode": "conv_unshared", "pool_first": True, "position_embedding": "sincos", "embed_dim": 16},
    ],
    ids=str,
)
@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_those_of_ordinary_autograd(options: dict[str, Any], training: bool) -> None:
    """Stochastic depth and dropout included: both passes draw the same numbers."""
    x = clip(4, torch.float64)
    want, got = (
        step(small(**options, reversible_backward=reversible).double().train(training), x)
        for reversible in (False, True)
    )
    torch.testing.assert_close(got[0], want[0], rtol=0, atol=1e-13)
    torch.testing.assert_close(got[1], want[1], rtol=1e-8, atol=1e-10)
    if options.get("drop_path_rate"):
        other, _ = step(small(**options).double().train(training), x, seed=4)
        assert torch.allclose(other, got[0]) != training


def test_gradients_in_float32_and_under_autocast() -> None:
    x = clip()
    for enabled, tolerance in ((False, 1e-4), (True, 0.02)):
        gradients = []
        for reversible in (True, False):
            model = small(drop_path_rate=0.3, reversible_backward=reversible, position_embedding="none")
            torch.manual_seed(3)
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                out = model(x)
            out.float().square().sum().backward()  # outside autocast, as it should be
            gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        assert (gradients[0] - gradients[1]).norm() < tolerance * gradients[1].norm()


def saved_bytes(model: nn.Module, x: Tensor) -> tuple[int, int]:
    """Number and bytes of the tensors kept for the backward pass, without the parameters."""
    parameters = {p.data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in parameters:
            kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(x)
    out.sum().backward()
    return len(kept), sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def deep(depth: int, **options: Any) -> RevMViT:
    return small(depth=depth, drop_path_rate=0.2, dropout_rate=0.1, **options).train()


def test_kept_activations_do_not_grow_with_depth() -> None:
    assert saved_bytes(deep(6), clip()) == saved_bytes(deep(18), clip())
    shallow, ordinary = (saved_bytes(deep(d, reversible_backward=False), clip()) for d in (6, 18))
    assert ordinary[0] > 1.5 * shallow[0] and ordinary[1] > 1.3 * shallow[1]


def test_the_callers_random_numbers() -> None:
    """None are drawn in evaluation or in a backward pass; one per run of reversible blocks in training."""
    model, x = small(drop_path_rate=0.5, dropout_rate=0.1), clip()
    before = torch.get_rng_state()
    model.eval()(x).sum().backward()
    assert torch.equal(torch.get_rng_state(), before)
    out = model.train()(x)
    after = torch.get_rng_state()
    assert not torch.equal(after, before)
    out.sum().backward()
    assert torch.equal(torch.get_rng_state(), after)
    assert not torch.equal(model(x), out)
    torch.set_rng_state(before)
    assert torch.equal(model(x), out)


def test_a_sample_loses_both_branches_or_none() -> None:
    block = small(drop_path_rate=0.9).rev_backbone.layers[4].train()
    x = torch.randn(64, 4, 32)
    first, second = block(x, x, (1, 2, 2), seed=7)
    lost = [(stream == x).all(dim=(1, 2)) for stream in (first, second)]
    assert torch.equal(*lost) and 0 < lost[0].sum() < 64


def test_fusions() -> None:
    norm = small(pre_q_fusion="ln+concat_linear_2").rev_backbone.layers[1].pre_q_fuse.fuse_fn[0]
    assert norm.eps == 1e-5
    assert small().norm.eps == 1e-6
    layer = small(pre_q_fusion="concat_linear_3_0.5").rev_backbone.layers[1]
    assert (layer.pre_q_fuse.fuse_fn.fc1.out_features, layer.pre_q_fuse.fuse_fn.drop.p) == (48, 0.5)
    assert isinstance(layer.res_proj, nn.Identity)  # 2 * 8 channels in, 16 out
    assert small(respath_fusion="avg").head.projection.in_features == 32


def test_frozen_parameters_and_changes_before_the_backward_pass() -> None:
    model = small()
    for parameter in model.rev_backbone.layers[2].G.parameters():
        parameter.requires_grad_(False)
    _, gradients = step(model, clip())
    without = {name for name, gradient in gradients.items() if gradient is None}
    assert without == {
        f"rev_backbone.layers.2.G.{n}" for n, _ in model.rev_backbone.layers[2].G.named_parameters()
    }
    for change in (lambda: model.eval(), lambda: nn.init.zeros_(model.rev_backbone.layers[0].F.norm.bias)):
        loss = model.train()(clip()).sum()
        change()
        with pytest.raises(RuntimeError, match="reversible_backward=False"):
            loss.backward()


def test_other_sizes() -> None:
    model = small().eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 7, 40, 36)).shape == (1, 5)
        assert model.forward_features(torch.zeros(1, 3, 6, 40, 48)).shape == (1, 3, 3, 3, 64)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"buffer_layers": (1,)}, r"add 3 to buffer_layers=\(1,\)"),
        ({"buffer_layers": (1, 3, 5)}, "from 0 to 4"),
        ({"res_path": "max"}, "use 'conv'"),
        ({"pre_q_fusion": "mean"}, "pre_q_fusion='mean' is not one of"),
        ({"respath_fusion": "concat_linear_x"}, "respath_fusion='concat_linear_x' is not one of"),
        ({"pool_mode": "conv_unshared"}, "needs pool_first=True"),
        ({"num_heads": 3}, "multiples of 3"),
    ],
)
def test_arguments_that_do_not_go_together(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**wrong)


def test_no_class_token() -> None:
    with pytest.raises(TypeError, match="class_token"):
        RevMViT(class_token=True)
