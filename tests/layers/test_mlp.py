"""The MLP's two fast paths against its definition."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from vidformers.layers import mlp
from vidformers.layers.mlp import Mlp


def usual(layer: Mlp, x: torch.Tensor) -> torch.Tensor:
    return layer.fc2(layer.act(layer.fc1(x)))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("shape", [(3, 7, 6), (2, 2, 5, 4, 6), (0, 6)])
def test_gradients_are_those_of_gelu_and_linear(
    approximate: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlp, "ROWS_AT_A_TIME", 4)
    layer = Mlp(6, 24, 5).double()
    layer.act = nn.GELU(approximate)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    arguments = [x, *layer.parameters()]
    expected, out = usual(layer, x), layer(x)
    gradient = torch.randn_like(out)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-14)
    for ours, theirs in zip(
        torch.autograd.grad(out, arguments, gradient),
        torch.autograd.grad(expected, arguments, gradient),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_the_activation_is_not_kept_for_the_backward_pass() -> None:
    kept: list[tuple[int, ...]] = []
    layer = Mlp(8, 32, 8)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        layer(torch.randn(10, 8))
    assert kept.count((10, 32)) == 1


def test_without_gradients_rows_go_through_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "ROWS_AT_A_TIME", 4)
    layer, x = Mlp(6, 24, 5), torch.randn(2, 7, 6)
    rows: list[int] = []
    hidden = layer._hidden
    monkeypatch.setattr(layer, "_hidden", lambda part: rows.append(len(part)) or hidden(part))
    with torch.no_grad():
        out = layer(x)
    assert rows == [4, 4, 4, 2]
    torch.testing.assert_close(out, usual(layer, x), rtol=0, atol=1e-6)


def test_dropout_and_autocast_take_the_usual_path() -> None:
    layer, x = Mlp(6, 24, 5, dropout_rate=0.5), torch.randn(400, 6)
    assert (layer(x) == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)
    layer.eval()
    torch.testing.assert_close(layer(x), usual(layer, x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(out, usual(layer, x))
    out.float().sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


@pytest.mark.parametrize("frozen", ["fc1", "fc2", "bias", "all"])
@pytest.mark.parametrize("input_too", [False, True])
def test_frozen_parts_get_no_gradient(frozen: str, input_too: bool) -> None:
    layer, x = Mlp(6, 24, 5), torch.randn(3, 6, requires_grad=not input_too)
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(not (frozen == "all" or frozen in name))
    needed = [tensor for tensor in (x, *layer.parameters()) if tensor.requires_grad]
    out, expected = layer(x).sum(), usual(layer, x).sum()
    assert out.requires_grad == bool(needed)
    if needed:
        for ours, theirs in zip(
            torch.autograd.grad(out, needed), torch.autograd.grad(expected, needed), strict=True
        ):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["fc1", "act", "fc2"])
def test_who_watches_a_layer_sees_each_call(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "ROWS_AT_A_TIME", 4)
    layer, seen = Mlp(6, 24, 5), []
    getattr(layer, name).register_forward_hook(lambda module, inputs, output: seen.append(output.shape[:2]))
    layer(torch.randn(2, 7, 6))
    with torch.no_grad():
        layer(torch.randn(2, 7, 6))
    assert seen == [(2, 7)] * 2


def test_pruned_weights_stay_pruned() -> None:
    """torch.nn.utils.prune computes the weight in a hook before each call."""
    layer = Mlp(6, 24, 5)
    prune.l1_unstructured(layer.fc2, "weight", amount=0.5)
    layer(torch.randn(4, 6)).sum().backward()
    assert (layer.fc2.weight_orig.grad == 0).sum() == 60
    with torch.no_grad():
        layer.fc2.weight_orig.fill_(1)
    out = layer(torch.ones(4, 6))
    torch.testing.assert_close(out, usual(layer, torch.ones(4, 6)))
