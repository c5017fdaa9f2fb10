"""The two-layer perceptron of a transformer block."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidformers.layers.attention import runs_unseen
from vidformers.layers.autocasting import autocasts
from vidformers.layers.linear import is_watched, reads_as_weights

ROWS_AT_A_TIME = 2048  # their hidden activations, four times the width, stay in the processor's cache


class Mlp(nn.Module):
    """Linear, GELU (exact, or tanh where `act` is replaced by that), Linear; dropout after both.

    forward: (..., in_dim) -> (..., out_dim). Without gradients on a CPU, it works through the rows in chunks,
    so that the hidden activations are never written to memory; with gradients see `gelu_linear`.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, dropout_rate: float = 0.0):
        super().__init__()
        self.fc1 = nn.Linear(in_dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, out_dim)
        self.drop = nn.Dropout(dropout_rate)

    def forward(self, x: Tensor) -> Tensor:
        drops = self.training and self.drop.p > 0
        usual = reads_as_weights(self.fc1) and reads_as_weights(self.fc2) and type(self.act) is nn.GELU
        if drops or not usual or is_watched(self.act) or torch.compiler.is_compiling():
            return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
        if torch.is_grad_enabled():
            return gelu_linear(self.fc1(x), self.fc2.weight, self.fc2.bias, self.act.approximate)
        if not suits_rows(x):
            return self.fc2(self._hidden(x))
        out = x.new_empty(*x.shape[:-1], self.fc2.out_features)
        for rows, part in zip(rows_at_a_time(out), rows_at_a_time(x), strict=True):
            if self.fc2.bias is None:
                torch.mm(self._hidden(part), self.fc2.weight.T, out=rows)
            else:
                torch.addmm(self.fc2.bias, self._hidden(part), self.fc2.weight.T, out=rows)
        return out

    def _hidden(self, x: Tensor) -> Tensor:
        # In place: the first touch of fresh memory costs more than GELU.
        return torch.ops.aten.gelu_(self.fc1(x), approximate=self.act.approximate)


def suits_rows(x: Tensor) -> bool:
    """Whether x (..., width) is better worked on some rows at a time, and may be: without gradients."""
    if torch.is_grad_enabled() or x.device.type != "cpu" or autocasts(x) or not runs_unseen():
        return False
    return x.numel() > x.shape[-1] * ROWS_AT_A_TIME


def rows_at_a_time(x: Tensor) -> Sequence[Tensor]:
    """(..., width) -> views (rows, width); on a CPU of so few rows that what comes of them stays in cache."""
    rows = x.flatten(0, -2)
    return rows.split(ROWS_AT_A_TIME) if x.device.type == "cpu" else [rows]


def gelu_linear(hidden: Tensor, weight: Tensor, bias: Tensor | None, approximate: str = "none") -> Tensor:
    """F.linear(F.gelu(hidden), weight, bias), whose backward pass computes the activation again.

    That keeps one tensor of hidden's size less in memory, which costs more time to write and read than GELU.
    """
    if not torch.is_grad_enabled() or autocasts(hidden):
        return F.linear(F.gelu(hidden, approximate=approximate), weight, bias)
    return _GeluLinear.apply(hidden, weight, bias, approximate)


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, approximate: str) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.approximate = approximate
        out = hidden.new_empty(*hidden.shape[:-1], weight.shape[0])
        for rows, part in zip(rows_at_a_time(out), rows_at_a_time(hidden), strict=True):
            torch.mm(F.gelu(part, approximate=approximate), weight.T, out=rows)
        return out if bias is None else out.add_(bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        of_output = gradients[0].flatten(0, -2)
        of_hidden = of_weight = of_bias = None
        if ctx.needs_input_grad[1]:
            of_weight = torch.zeros_like(weight)
            for rows, part in zip(rows_at_a_time(of_output), rows_at_a_time(hidden), strict=True):
                of_weight.addmm_(rows.T, F.gelu(part, approximate=ctx.approximate))
        if ctx.needs_input_grad[2]:
            of_bias = of_output.sum(dim=0)
        if ctx.needs_input_grad[0]:
            of_hidden = (of_output @ weight).view_as(hidden)
            # In place: writing to fresh memory of this size takes longer than the arithmetic.
            torch.ops.aten.gelu_backward.grad_input(
                of_hidden, hidden, approximate=ctx.approximate, grad_input=of_hidden
            )
        return of_hidden, of_weight, of_bias, None
