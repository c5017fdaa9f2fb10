"""Stochastic depth (Huang et al. 2016) for residual branches."""

from torch import Tensor, nn


class DropPath(nn.Module):
    """Zeroes a residual branch for a random subset of samples while training; kept ones are scaled by 1/keep.

    torchvision.ops.StochasticDepth does the same, but models must import without torchvision.
    """

    def __init__(self, drop_rate: float):
        super().__init__()
        self.drop_rate = drop_rate

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_rate == 0.0 or not self.training:
            return x
        keep_rate = 1.0 - self.drop_rate
        keep = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep_rate)
        return x * keep.div_(keep_rate)

    def extra_repr(self) -> str:
        return f"drop_rate={self.drop_rate:.3f}"
