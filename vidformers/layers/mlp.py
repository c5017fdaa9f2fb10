"""The two-layer perceptron of a transformer block."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vidformers.layers.attention import runs_unseen
from vidformers.layers.autocasting import autocasts
from vidformers.layers.linear import is_watched, reads_as_weights

ROWS_AT_A_TIME = 2048  # their hidden activations, four times the width, stay in the processor's cache


class Mlp(nn.Module):
    """Linear, GELU (exact, or tanh where `act` is replaced by that), Linear; dropout after both.

    forward: (..., in_dim) -> (..., out_dim). On a CPU it works through some rows at a time, so that what is
    in between stays in the processor's cache; with gradients see `_TwoLayers`.
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
        if drops or not usual or is_watched(self.act, self.drop) or torch.compiler.is_compiling():
            return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
        if torch.is_grad_enabled() and not autocasts(x):
            weights = (self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)
            return _TwoLayers.apply(x, *weights, self.act.approximate)
        if not suits_rows(x):
            return self.fc2(self._hidden(x))
        out = x.new_empty(*x.shape[:-1], self.fc2.out_features)
        for part, rows in zip(rows_at_a_time(x), rows_at_a_time(out), strict=True):
            _linear(self._hidden(part), self.fc2.weight, self.fc2.bias, out=rows)
        return out

    def _hidden(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self.act(self.fc1(x))
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


class _TwoLayers(torch.autograd.Function):
    """Linear, GELU, Linear. Keeps what the first Linear gives, and computes the activation again in the
    backward pass: to write and read another tensor of that size costs more time than GELU."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_1: Tensor,
        bias_1: Tensor | None,
        weight_2: Tensor,
        bias_2: Tensor | None,
        approximate: str,
    ) -> Tensor:
        out = x.new_empty(*x.shape[:-1], weight_2.shape[0])
        hidden = [F.linear(part, weight_1, bias_1) for part in rows_at_a_time(x)]
        for part, rows in zip(hidden, rows_at_a_time(out), strict=True):
            _linear(F.gelu(part, approximate=approximate), weight_2, bias_2, out=rows)
        ctx.save_for_backward(x, weight_1, weight_2, *hidden)
        ctx.approximate = approximate
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_out: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_1, weight_2, *hidden = ctx.saved_tensors
        needs_x, needs_weight_1, needs_bias_1, needs_weight_2, needs_bias_2, _ = ctx.needs_input_grad
        of_x = x.new_empty(x.shape)
        # empty: the first part is not added to what is there
        of_weight_1, of_weight_2 = torch.empty_like(weight_1), torch.empty_like(weight_2)
        of_bias_1 = weight_1.new_zeros(len(weight_1))
        parts = (rows_at_a_time(x), hidden, rows_at_a_time(of_out), rows_at_a_time(of_x))
        for i, (part, hidden_part, of_rows, of_part) in enumerate(zip(*parts, strict=True)):
            if needs_weight_2:
                activation = F.gelu(hidden_part, approximate=ctx.approximate)
                of_weight_2.addmm_(of_rows.T, activation, beta=min(i, 1))
            if not (needs_x or needs_weight_1 or needs_bias_1):
                continue
            of_hidden = of_rows @ weight_2
            torch.ops.aten.gelu_backward.grad_input(
                of_hidden, hidden_part, approximate=ctx.approximate, grad_input=of_hidden
            )
            if needs_weight_1:
                of_weight_1.addmm_(of_hidden.T, part, beta=min(i, 1))
            if needs_bias_1:
                of_bias_1 += of_hidden.sum(dim=0)
            if needs_x:
                torch.mm(of_hidden, weight_1, out=of_part)
        return (
            of_x if needs_x else None,
            of_weight_1 if needs_weight_1 else None,
            of_bias_1 if needs_bias_1 else None,
            of_weight_2 if needs_weight_2 else None,
            of_out.flatten(0, -2).sum(dim=0) if needs_bias_2 else None,
            None,
        )


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, out: Tensor) -> None:
    if bias is None:
        torch.mm(x, weight.T, out=out)
    else:
        torch.addmm(bias, x, weight.T, out=out)
