"""The blocks of one stage, in order."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class Stage(nn.Module):
    """`merge`, if any, then `blocks`, each recomputed in the backward pass with `activation_checkpointing`.

    All of them map one tensor to one tensor.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], *, merge: nn.Module | None = None, activation_checkpointing: bool
    ):
        super().__init__()
        self.merge = merge
        self.blocks = nn.ModuleList(blocks)
        self.activation_checkpointing = activation_checkpointing

    def forward(self, x: Tensor) -> Tensor:
        if self.merge is not None:
            x = self.merge(x)
        for block in self.blocks:
            if self.activation_checkpointing and self.training and torch.is_grad_enabled():
                x = _recomputed(block, x)
            else:
                x = block(x)
        return x


def _recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """block(x), whose second run in the backward pass leaves batch norms' running statistics alone."""
    return checkpoint(
        block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _frozen_statistics(block))
    )


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
