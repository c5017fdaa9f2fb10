"""Stochastic depth: whole branches of some samples, on average nothing changes, nothing at all in testing."""

import torch

from vidformers.layers.drop_path import DropPath
from vidformers.models import create_model


def test_a_branch_is_dropped_whole_for_some_samples_and_scaled_for_the_others() -> None:
    torch.manual_seed(0)
    out = DropPath(0.25)(torch.ones(4000, 3, 2))
    values = out.flatten(1)
    assert (values == values[:, :1]).all()
    torch.testing.assert_close(values.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert abs((values[:, 0] == 0).float().mean() - 0.25) < 0.03


def test_nothing_is_dropped_in_testing_or_at_rate_0() -> None:
    x = torch.randn(8, 3)
    assert DropPath(0.5).eval()(x) is x
    assert DropPath(0.0)(x) is x


def test_the_rate_rises_with_the_depth_of_the_block() -> None:
    model = create_model("mvit_tiny", drop_path_rate=0.3)
    rates = [module.drop_rate for module in model.modules() if isinstance(module, DropPath)]
    assert rates == sorted(rates) and min(rates) == 0.0 and max(rates) == 0.3
