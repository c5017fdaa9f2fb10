"""GG-Transformer against its definition, written with loops: there is no official code to compare with."""

from typing import Any

import pytest
import torch

from tests.models.parity import check_any_size, logits, still
from vidformers.analysis.complexity import count_flops, count_parameters
from vidformers.checkpoints import load_weights
from vidformers.layers.partition import clip_group
from vidformers.models import GGTransformer, create_model
from vidformers.models.gg_transformer import GlanceGaze

DIM, HEADS = 8, 2
# (T, H, W) and the tokens of a group: divisible, not divisible, and shorter than the group.
SIZES = [((4, 6, 6), (2, 3, 3)), ((5, 7, 6), (2, 3, 4)), ((1, 5, 8), (4, 2, 3))]


def glance_gaze(group: tuple[int, int, int], kernel: tuple[int, int, int] = (3, 5, 3)) -> GlanceGaze:
    torch.manual_seed(0)
    return GlanceGaze(DIM, HEADS, glance=group, gaze_kernel=kernel, dropout_rate=0.0).double()


def positions(size: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [(t, h, w) for t in range(size[0]) for h in range(size[1]) for w in range(size[2])]


def seen_together(
    p: tuple[int, ...], q: tuple[int, ...], size: tuple[int, ...], group: tuple[int, ...]
) -> bool:
    """Whether the distance of two tokens is a multiple of the group's interval along each axis."""
    intervals = [-(-n // min(g, n)) for n, g in zip(size, group, strict=True)]
    return all((a - b) % i == 0 for a, b, i in zip(p, q, intervals, strict=True))


def by_definition(module: GlanceGaze, x: torch.Tensor, group: tuple[int, ...]) -> torch.Tensor:
    """proj(softmax(q k / sqrt(d)) v over the token's group + the kernel's sum of the values around it)."""
    size = tuple(x.shape[:3])
    q, k, v = module.glance.qkv(x).chunk(3, dim=-1)
    weight, bias = module.gaze.weight[:, 0], module.gaze.bias
    kernel = weight.shape[1:]
    out = torch.zeros_like(x)
    for p in positions(size):
        members = [m for m in positions(size) if seen_together(p, m, size, group)]
        glanced = []
        for head in range(HEADS):
            part = slice(head * DIM // HEADS, (head + 1) * DIM // HEADS)
            scores = torch.stack([(q[p][part] * k[m][part]).sum() for m in members])
            shares = torch.softmax(scores / (DIM // HEADS) ** 0.5, dim=0)
            glanced.append(sum(share * v[m][part] for share, m in zip(shares, members, strict=True)))
        gazed = bias.clone()
        for tap in positions(kernel):
            near = tuple(a + b - length // 2 for a, b, length in zip(p, tap, kernel, strict=True))
            if all(0 <= a < n for a, n in zip(near, size, strict=True)):
                gazed = gazed + weight[(slice(None), *tap)] * v[near]
        out[p] = module.glance.proj(torch.cat(glanced) + gazed)
    return out


@pytest.mark.parametrize(("size", "group"), SIZES)
def test_equals_its_definition(size: tuple[int, int, int], group: tuple[int, int, int]) -> None:
    module = glance_gaze(group)
    x = torch.randn(2, *size, DIM, dtype=torch.float64)
    with torch.no_grad():
        found = module(x)
        for b in range(2):
            torch.testing.assert_close(found[b], by_definition(module, x[b], group), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("size", "group"), SIZES)
def test_receptive_field(size: tuple[int, int, int], group: tuple[int, int, int]) -> None:
    """A token depends on its glance group and on its gaze neighbourhood, and on nothing else."""
    module = glance_gaze(group, kernel=(3, 3, 3))
    x = torch.randn(1, *size, DIM, dtype=torch.float64, requires_grad=True)
    out = module(x)
    for p in positions(size)[:: max(len(positions(size)) // 7, 1)]:
        (gradient,) = torch.autograd.grad(out[(0, *p)].square().sum(), x, retain_graph=True)
        seen = {q for q in positions(size) if gradient[(0, *q)].abs().max() > 0}
        glance = {q for q in positions(size) if seen_together(p, q, size, group)}
        gaze = {q for q in positions(size) if max(abs(a - b) for a, b in zip(p, q, strict=True)) <= 1}
        assert seen == glance | gaze
        assert len(glance) <= torch.tensor(clip_group(group, size)).prod()


def test_a_glance_covers_the_map() -> None:
    """Groups have one token in each of t x h x w equal parts, and every token is in one group."""
    size, group = (4, 6, 6), (2, 3, 3)
    for p in [(0, 0, 0), (3, 1, 4)]:
        members = [q for q in positions(size) if seen_together(p, q, size, group)]
        parts = {tuple(a * g // n for a, g, n in zip(q, group, size, strict=True)) for q in members}
        assert len(members) == len(parts) == 18


def randomised(model: GGTransformer, seed: int = 1) -> GGTransformer:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model.double().eval()


IMAGE = {"num_frames": 1, "patch_size": (1, 4, 4), "glance": (1, 4, 4), "gaze_frames": 1}


@pytest.mark.parametrize("num_frames", [1, 4, 5, 7, 8])
@pytest.mark.parametrize(
    "video", [{}, {"patch_size": (1, 4, 4), "glance": (3, 4, 4)}, {"gaze_frames": 5, "glance": (2, 4, 4)}]
)
def test_still_clip_gives_the_image_logits(video: dict[str, Any], num_frames: int) -> None:
    """Image weights of this library inflate; 37 pixels fill neither a patch nor a group."""
    image_model = randomised(create_model("gg_tiny", **IMAGE))
    image = torch.randn(2, 3, 37, 64, dtype=torch.float64)
    model = create_model("gg_tiny", num_frames=num_frames, **video).double().eval()
    info = load_weights(model, image_model.state_dict())
    assert info.source == "vidformers"
    assert "stages.0.blocks.0.attn.gaze.weight" in info.inflated
    found = logits(model, still(image, num_frames))
    torch.testing.assert_close(found, logits(image_model, image), atol=1e-9, rtol=0)


def test_moving_clip() -> None:
    model = randomised(create_model("gg_tiny", num_frames=8))
    clip = torch.randn(1, 3, 8, 64, 64, dtype=torch.float64)
    shuffled = clip[:, :, torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])]
    assert (logits(model, clip) - logits(model, shuffled)).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "millions", "gflops"), [("gg_t", 28, 4.5), ("gg_s", 50, 8.7)])
def test_the_papers_numbers(name: str, millions: int, gflops: float) -> None:
    form = {"num_frames": 1, "patch_size": (1, 4, 4), "glance": (1, 7, 7), "gaze_frames": 1}
    with torch.device("meta"):
        model = create_model(name, **form, num_classes=1000)
    assert round(count_parameters(model) / 1e6) == millions
    assert count_flops(model, (1, 3, 224, 224))["total"] / 1e9 == pytest.approx(gflops, rel=0.02)


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 37, 50), (9, 64, 30)])
def test_any_size(size: tuple[int, int, int]) -> None:
    check_any_size(create_model("gg_tiny"), size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gaze_sides": (4, 3, 3)}, r"gaze_sides=\(4, 3, 3\) and gaze_frames=3 must be odd"),
        ({"gaze_sides": (3, 3)}, "one entry a stage"),
        ({"num_heads": (1, 2, 5)}, "not divisible by"),
        ({"glance": (0, 4, 4)}, "glance must be at least 1 along each axis"),
    ],
)
def test_impossible_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("gg_tiny", **arguments)


def test_other_weights_say_so() -> None:
    with pytest.raises(ValueError, match="not those of a GGTransformer"):
        load_weights(create_model("gg_tiny"), {"conv1.weight": torch.zeros(1)})


def test_layer_ids() -> None:
    model = create_model("gg_tiny")
    assert model.layer_id("patch_embed.proj.bias") == 0
    assert model.layer_id("stages.0.blocks.0.attn.gaze.weight") == 1
    assert model.layer_id("stages.1.merge.reduction.weight") == 2
    assert model.layer_id("norm.weight") == 4 == model.num_layers + 1
    assert not model.no_weight_decay()
