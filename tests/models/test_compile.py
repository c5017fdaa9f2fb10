"""torch.compile takes every family as one graph, forwards and backwards, and again for another size."""

from typing import Any

import pytest
import torch
from torch import nn

import vidformers as vf
from tests.models.tiny import REPRESENTATIVES, tiny, tiny_clip

# Tracing takes as long as there are blocks.
GROWTH = ((1, 2.0), (3, 2.0))
FEW_BLOCKS: dict[str, dict[str, Any]] = {
    "Hiera": {"stages": (1, 1, 1, 1)},
    "MViT": {
        "depth": 4,
        "dim_mul": GROWTH,
        "head_mul": GROWTH,
        "pool_q_stride": ((0, 1, 1, 1), (1, 1, 2, 2), (2, 1, 1, 1), (3, 1, 2, 2)),
    },
    "CPVT": {"depth": 2},
    "VisionTransformer": {"depth": 2},
    # The reversible backward pass is no graph.
    "RevMViT": {"reversible_backward": False},
}


def small(name: str, **overrides: Any) -> nn.Module:
    family, arguments = vf.model_class(name).__name__, vf.model_arguments(name)
    few = FEW_BLOCKS.get(family, {})
    if "depths" in arguments and not few and family not in ("Swin", "ShuffleTransformer"):
        few = {"depths": (2, *(1 for _ in arguments["depths"][1:]))}
    return tiny(name, **{**few, **overrides})


# One for each class: the others go through code that a compiler takes alike.
NAMES = list({vf.model_class(name): name for name in reversed(REPRESENTATIVES)}.values())


def compiled(model: nn.Module, backend: str) -> nn.Module:
    torch._dynamo.reset()
    return torch.compile(model, backend=backend, fullgraph=True)  # type: ignore[return-value]


def logits_and_gradients(
    model: nn.Module, of: nn.Module, clip: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Of a training step in which every random choice is that of the seed; `of` has the parameters."""
    of.zero_grad()
    torch.manual_seed(2)
    logits = model(clip)
    logits.square().sum().backward()
    return logits.detach(), {n: p.grad.clone() for n, p in of.named_parameters() if p.grad is not None}


def test_every_family_is_here() -> None:
    classes = [{vf.model_class(name) for name in names} for names in (vf.list_models(), REPRESENTATIVES)]
    assert classes[0] == classes[1]


@pytest.mark.parametrize("name", NAMES)
def test_one_graph_in_training(name: str) -> None:
    """With stochastic depth, whose draws are part of the graph."""
    rate = 0.0 if name.startswith("rev") else 0.3  # draws in another order, see below
    model, clip = small(name, drop_path_rate=rate).double().train(), tiny_clip(name).double()
    expected = logits_and_gradients(model, model, clip)
    found = logits_and_gradients(compiled(model, "eager"), model, clip)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["mvit_tiny", "swin_tiny"])
def test_one_graph_for_every_size(name: str) -> None:
    """More clips, fewer frames, larger and oblong images: compiled again, in seconds."""
    model, clip = small(name).double().eval(), tiny_clip(name).double()
    graph = compiled(model, "eager")
    other = torch.randn(3, 3, 2, 64, 40, dtype=torch.float64)
    with torch.no_grad():
        for x in (clip, other):
            torch.testing.assert_close(graph(x), model(x))


@pytest.mark.parametrize(("name", "backend"), [("maxvit_tiny", "aot_eager"), ("vit_tiny", "inductor")])
def test_graphs_of_the_backward_pass_give_the_same(name: str, backend: str) -> None:
    """Traced backwards too, with running statistics; and as generated code."""
    model, clip = small(name).train(), tiny_clip(name)
    expected = logits_and_gradients(model, model, clip)
    found = logits_and_gradients(compiled(model, backend), model, clip)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_the_reversible_backward_pass_is_left_as_it_is() -> None:
    """Graphs end before and begin after it: the step is right, if in several graphs."""
    model = tiny("rev_mvit_tiny", drop_path_rate=0.3).double().train()
    clip = tiny_clip("rev_mvit_tiny").double()
    expected = logits_and_gradients(model, model, clip)
    torch._dynamo.reset()
    found = logits_and_gradients(torch.compile(model, backend="eager"), model, clip)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)


def test_stochastic_depth_of_reversible_blocks_in_one_graph() -> None:
    """A clip loses both branches of a block or none, with or without a seed."""
    from vidformers.layers.reversible import ReversibleBlock

    model, clip = small("rev_mvit_tiny", drop_path_rate=0.5).train(), tiny_clip("rev_mvit_tiny")
    logits_and_gradients(compiled(model, "eager"), model, clip)
    block = [layer for layer in model.rev_backbone.layers if isinstance(layer, ReversibleBlock)][-1]
    grid, dim = block.F.attn.query_grid, block.F.norm.normalized_shape[0]
    x = torch.randn(64, grid[0] * grid[1] * grid[2], dim)
    for seed in (None, 3):
        first, second = block(x, x, grid, seed)
        lost = [(after == x).all(dim=(1, 2)) for after in (first, second)]
        assert torch.equal(*lost) and 0 < lost[0].sum() < 64
