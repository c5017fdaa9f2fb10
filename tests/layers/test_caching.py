"""Masks, indices and position biases are computed once, and never those of other weights or sizes."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vidformers.layers import caching
from vidformers.layers.caching import once_per_size
from vidformers.layers.partition import group_mask
from vidformers.layers.position_bias import DynamicBias, PositionBias, TableBias

CPU = torch.device("cpu")
GROUP = (2, 3, 2)


class Counted(TableBias):
    def __init__(self) -> None:
        super().__init__((2, 3, 3), 2)
        self.calls = 0

    def look_up(self, group: object) -> Tensor:
        self.calls += 1
        return super().look_up(group)


@pytest.fixture
def bias() -> Counted:
    torch.manual_seed(0)
    return Counted()


def fresh(bias: PositionBias) -> Tensor:
    """What the bias is now, by other tensors of the same values."""
    other = copy.deepcopy(bias)
    with torch.no_grad():
        return other.look_up(GROUP)


def test_it_is_looked_up_once(bias: Counted) -> None:
    with torch.no_grad():
        first = bias(GROUP)
        assert bias(list(GROUP)) is first and bias.calls == 1
        with torch.inference_mode():
            assert bias(GROUP) is first
        assert bias((1, 3, 2)).shape == (2, 6, 6) and bias.calls == 2
        assert not torch.equal(bias(GROUP), bias.table.new_zeros(()).expand_as(first))


def test_with_gradients_nothing_is_kept(bias: Counted) -> None:
    with torch.no_grad():
        bias(GROUP)
    bias(GROUP).sum().backward()
    assert bias.calls == 2 and bias.table.grad is not None and bias.table.grad.abs().sum() > 0


def test_what_inference_mode_keeps_can_be_used_outside(bias: Counted) -> None:
    with torch.inference_mode():
        bias(GROUP)
    with torch.no_grad():
        kept = bias(GROUP)
    assert bias.calls == 1 and not kept.is_inference()
    x = torch.ones(1, requires_grad=True)
    (x * kept).sum().backward()


def load(bias: Counted) -> None:
    bias.load_state_dict({"table": torch.randn_like(bias.table)})


def assign(bias: Counted) -> None:
    bias.load_state_dict({"table": torch.randn_like(bias.table)}, assign=True)


def replace(bias: Counted) -> None:
    bias.table = nn.Parameter(torch.randn_like(bias.table))


def replace_values(bias: Counted) -> None:
    bias.table.data = torch.randn_like(bias.table)


def write_past_autograd(bias: Counted) -> None:
    bias.table.data.mul_(0.9)


def in_inference_mode(bias: Counted) -> None:
    with torch.inference_mode():
        bias.table.add_(1)


def sgd(bias: Counted) -> None:
    train(bias, torch.optim.SGD(bias.parameters(), lr=0.1))


def adamw(bias: Counted) -> None:
    train(bias, torch.optim.AdamW(bias.parameters(), lr=0.1))


def fused(bias: Counted) -> None:
    train(bias, torch.optim.AdamW(bias.parameters(), lr=0.1, fused=True))


def train(bias: Counted, optimizer: torch.optim.Optimizer) -> None:
    bias(GROUP).square().sum().backward()
    optimizer.step()


def average(bias: Counted) -> None:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    averaged = AveragedModel(bias, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    averaged.update_parameters(bias)
    with torch.no_grad():
        averaged.module(GROUP)
        bias.table.add_(1)
        averaged.update_parameters(bias)
        torch.testing.assert_close(averaged.module(GROUP), fresh(averaged.module))


@pytest.mark.parametrize(
    "change",
    [
        load,
        assign,
        replace,
        replace_values,
        write_past_autograd,
        in_inference_mode,
        sgd,
        adamw,
        fused,
        average,
    ],
)
def test_new_values_are_seen(bias: Counted, change: Callable[[Counted], None]) -> None:
    """Also those that no version counter tells of: fused optimizers, `.data`."""
    with torch.no_grad():
        before = bias(GROUP)
    change(bias)
    with torch.no_grad():
        after = bias(GROUP)
    assert not torch.equal(before, after)
    assert torch.equal(after, fresh(bias))


def test_types_and_devices(bias: Counted) -> None:
    with torch.no_grad():
        single = bias(GROUP)
        double = bias.double()(GROUP)
        assert double.dtype == torch.float64
        torch.testing.assert_close(double.float(), single)
        assert bias.to("meta")(GROUP).is_meta


def test_a_network_under_autocast() -> None:
    network = DynamicBias(8, 2)
    with torch.no_grad():
        single = network(GROUP)
        with torch.autocast("cpu", torch.bfloat16):
            assert network(GROUP).dtype == torch.bfloat16
        assert network(GROUP).dtype == torch.float32
        network.pos2[2].bias.add_(1)
        assert not torch.equal(network(GROUP), single)


def test_copies_have_their_own(bias: Counted) -> None:
    with torch.no_grad():
        bias(GROUP)
        twin, pickled = copy.deepcopy(bias), pickle.loads(pickle.dumps(bias))
        assert len(pickle.dumps(bias)) < len(pickle.dumps(Counted())) + 100, "nothing kept is written"
        for other in (twin, pickled):
            other.table.add_(1)
            assert not torch.equal(other(GROUP), bias(GROUP))
            assert torch.equal(other(GROUP), fresh(other))


def test_the_weights_of_many_models_at_once(bias: Counted) -> None:
    """torch.func.vmap over parameters: tensors that only stand for others are not kept."""
    tables = torch.stack([bias.table.detach(), bias.table.detach() + 1])

    def run(table: Tensor) -> Tensor:
        return torch.func.functional_call(bias, {"table": table}, (GROUP,))

    with torch.no_grad():
        both = torch.vmap(run)(tables)
        assert torch.equal(both[1], both[0] + 1)
        assert torch.equal(bias(GROUP), both[0])


def test_a_large_one_is_not_kept(bias: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "MOST_BYTES_OF_WEIGHTS", 100)
    with torch.no_grad():
        assert bias(GROUP) is not bias(GROUP)


def test_masks_are_kept_by_their_arguments() -> None:
    arguments = {"shift": (0, 1, 1), "pad_mask": "all"}
    first = group_mask((2, 5, 6), (2, 3, 3), device=CPU, **arguments)
    assert group_mask(torch.Size((2, 5, 6)), [2, 3, 3], device=CPU, **arguments) is first
    other = group_mask((2, 5, 6), (2, 3, 3), device=CPU, **{**arguments, "pad_mask": "none"})
    assert first is not None and other is not None and not torch.equal(first, other)
    again = group_mask((2, 5, 6), (2, 3, 3), **arguments)
    assert again is not first and torch.equal(again, first)
    meta = group_mask((2, 5, 6), (2, 3, 3), device=torch.device("meta"), **arguments)
    assert meta is not None and meta.is_meta


def test_the_oldest_goes_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    @once_per_size
    def ones(size: int, *, device: torch.device | None = None) -> Tensor:
        calls.append(size)
        return torch.ones(size, device=device)

    monkeypatch.setattr(caching, "_of_sizes", type(caching._of_sizes)())
    monkeypatch.setattr(caching, "MOST_BYTES_OF_SIZES", 100)
    for size in (10, 11, 10, 12, 10, 11):
        assert ones(size, device=CPU).shape == (size,)
    assert calls == [10, 11, 12, 11], "11 had not been asked for as lately as 10"


def test_fake_tensors_are_not_kept() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        group_mask((2, 7, 6), (2, 3, 3), device=CPU)
    mask = group_mask((2, 7, 6), (2, 3, 3), device=CPU)
    assert type(mask) is Tensor
