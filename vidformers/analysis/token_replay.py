"""A model's own code, run on the question which tokens feed which: the machinery of `attention_maps`.

What a linear map of tokens does to relevance is its transpose, and autograd is transposition. So the model is
run on a clip of ones in a mode in which every operation is replaced by the mixing of tokens that it stands
for: a Linear is the mean over channels, a norm or an activation is nothing at all, pooling is a mean,
attention is a given matrix. What only moves tokens (partition into windows, shifts, padding, merging, class
tokens, shuffled messengers) is run as it is written. The gradient of the output by the clip is then the map,
at the resolution of the pixels, for every family and without a line about any of them.

Values say whether a token is real: 1 at the start, 0 for padding. Every mean is over the real ones.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Of tokens they move, copy or look at, and do not calculate with.
_MOVES = {
    "__get__", "__getitem__", "chunk", "contiguous", "expand", "expand_as", "flatten", "flip", "float",
    "index_select", "movedim", "narrow", "permute", "repeat", "repeat_interleave", "reshape", "roll",
    "select", "split", "squeeze", "stack", "swapaxes", "to", "transpose", "type", "unbind", "unflatten",
    "unsqueeze", "view", "view_as", "new_empty", "new_full", "new_ones", "new_zeros", "empty_like",
    "full_like", "ones_like", "zeros_like",
}  # fmt: skip
# Each channel or token by itself.
_UNMIXED = {
    "batch_norm", "dropout", "gelu", "hardtanh", "layer_norm", "relu", "relu6", "sigmoid", "silu",
    "softplus", "tanh", "div", "div_", "true_divide", "__truediv__",
}  # fmt: skip
# Of the queries, in terms of the logits: the given matrices hold what becomes of them.
_OF_LOGITS = {"einsum"}
# The value of a token to which no relevance has come: it is no padding.
_NOTHING = 1e-30


class TokenReplay(TorchFunctionMode):
    """Within it operations on what needs a gradient mix tokens; `attend` stands in for `attention`.

    matrices: for each attention in the order of the calls (B, heads, Nq, Nk), not negative, or None for one
    that adds nothing. `residual` "mean" makes both parts of a sum count alike, and each attention a mean: so
    the rows of everything sum to one (rollout). "sum" adds: I + A.
    """

    def __init__(self, matrices: Sequence[Tensor | None], *, residual: str):
        super().__init__()
        self.matrices: Iterator[Tensor | None] = iter(matrices)
        self.sums = residual == "sum"
        self.attending = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.attending or not any(map(_carries, _tensors((*args, *kwargs.values())))):
            return func(*args, **kwargs)
        name = func.__name__
        if name in _MOVES:
            return func(*args, **kwargs)
        if name in _UNMIXED:
            return args[0]
        if name in _OF_LOGITS:
            return func(*[a.detach() if isinstance(a, Tensor) else a for a in args], **kwargs)
        rule = getattr(self, f"_{name.strip('_')}", None)
        if rule is not None:
            return rule(*args, **kwargs)
        result = func(*args, **kwargs)
        if any(True for _ in _tensors([result])):
            raise ValueError(
                f"there is no rule how {name} mixes tokens, which this model applies to them; use Grad-CAM "
                "(method gradcam), or add the rule to vidformers/analysis/token_replay.py"
            )
        return result

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        """The next of the matrices, in place of attention: (B, heads, Nq, d)."""
        self.attending = True
        try:
            matrix = next(self.matrices)
            if matrix is None:
                return (0 * v[:, :, :1] + _NOTHING).expand(*q.shape[:3], -1)
            assert matrix.shape == (*q.shape[:3], k.shape[2]), (matrix.shape, q.shape, k.shape)
            matrix = matrix.to(v.dtype)
            return matrix @ v + _NOTHING if self.sums else _mean(v, lambda x: matrix @ x)
        finally:
            self.attending = False

    # ---- sums and products

    def _add(self, a: Any, b: Any, **_: Any) -> Tensor:
        if not (_carries(a) and _carries(b)):
            carrier, other = (a, b) if _carries(a) else (b, a)
            return carrier.expand(torch.broadcast_shapes(carrier.shape, getattr(other, "shape", ())))
        return a + b if self.sums else _mean_of_both(a, b)

    _radd = _iadd = _maximum = _minimum = _add

    def _mul(self, a: Any, b: Any) -> Tensor:
        """A scale or a gate: the other factor is the tokens, the larger one if both come from them."""
        if _carries(a) and _carries(b):
            return a if a.numel() >= b.numel() else b
        carrier, other = (a, b) if _carries(a) else (b, a)
        return carrier.expand(torch.broadcast_shapes(carrier.shape, getattr(other, "shape", ())))

    _rmul = _mul

    # ---- channels

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        mixed = _mean(x, lambda y: y.mean(dim=-1, keepdim=True))
        return mixed.expand(*x.shape[:-1], weight.shape[0])

    def _cat(self, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
        # What is learned, such as a class token, is a token as real as the others.
        first = next(tensor for tensor in tensors if _carries(tensor))
        parts = [t if _carries(t) else torch.ones_like(t, dtype=first.dtype) for t in tensors]
        return torch.cat(parts, dim=dim)

    _concat = _cat

    # ---- places

    def _mean(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return _mean(x, lambda y: y.mean(*args, **kwargs))

    def _pad(
        self, x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
    ) -> Tensor:
        return F.pad(x, pad, mode=mode) if mode != "constant" else F.pad(x, pad)

    def _conv3d(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        """From the cells under the kernel: by `even_coverage` where it strides, else by the mean size of its
        weights."""
        kernel = weight.detach().abs().mean(dim=(0, 1))[None, None].to(x.dtype)
        share: Tensor | float = 1.0
        if stride not in (1, (1, 1, 1)):
            kernel = even_coverage(kernel.shape[2:], _each(3, stride)).to(kernel)[None, None]
            share = _shares(x, kernel, stride, padding, dilation)
        mixed = _mean(
            x,
            lambda y: F.conv3d(share * y.mean(dim=1, keepdim=True), kernel, None, stride, padding, dilation),
        )
        return mixed.expand(-1, weight.shape[0], -1, -1, -1)

    def _max_pool3d(
        self,
        x: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Tensor:
        """Evenly from the cells, whichever was the largest: over all places of the kernel."""
        dims = x.ndim - 2
        box = even_coverage(_each(dims, kernel_size), _each(dims, stride or kernel_size))
        return self._pool(x, box, stride or kernel_size, padding, ceil_mode, evenly=True)

    def _pool(
        self, x: Tensor, box: Tensor, stride: Any, padding: Any, ceil_mode: bool, *, evenly: bool
    ) -> Tensor:
        """From the cells under the kernel by the weights of `box`; `evenly`: every cell gives as much."""
        dims, kernel = x.ndim - 2, box.shape
        stride, padding = _each(dims, stride), _each(dims, padding)
        # All of the padding by hand: that of `ceil_mode` too, and convolutions take small maps.
        pads: list[int] = []
        for size, k, s, p in zip(x.shape[2:], kernel, stride, padding, strict=True):
            spare = size + 2 * p - k
            missing = -spare % s if ceil_mode else 0
            pads = [p, p + missing, *pads]
        convolve, weights = F.conv3d if dims == 3 else F.conv2d, box[None, None].to(x)
        padded = F.pad(x.detach()[:1, :1], pads)
        share = _shares(padded, weights, stride, 0, 1) if evenly else 1.0
        mixed = _mean(
            x, lambda y: convolve(share * F.pad(y.mean(dim=1, keepdim=True), pads), weights, None, stride)
        )
        return mixed.expand(-1, x.shape[1], *[-1] * dims)

    def _max_pool2d(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self._max_pool3d(x, *args, **kwargs)

    def _max_pool2d_with_indices(self, x: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return self._max_pool3d(x, *args, **kwargs), torch.empty(0)

    _max_pool3d_with_indices = _max_pool2d_with_indices

    def _avg_pool3d(
        self, x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        *_: Any,
    ) -> Tensor:  # fmt: skip
        box = torch.ones(_each(x.ndim - 2, kernel_size))
        return self._pool(x, box, stride or kernel_size, padding, ceil_mode, evenly=False)

    def _adaptive_avg_pool3d(self, x: Tensor, output_size: Any) -> Tensor:
        return _mean(x, lambda y: F.adaptive_avg_pool3d(y, output_size))


@contextmanager
def plainly_computed() -> Iterator[None]:
    """Within it a model does what it is, without the detours that save time or memory in training, which
    `TokenReplay` cannot follow: an autograd function of one's own is what its `forward` does, and nothing is
    put off to the backward pass (models leave that to compilers, where these trace them).
    """

    def apply(function: type[torch.autograd.Function], *args: Any) -> Any:
        takes_context = function.setup_context is torch.autograd.Function.setup_context
        return function.forward(*((_Forgetful(),) if takes_context else ()), *args)

    traced = mock.patch.object(torch.compiler, "is_compiling", return_value=True)
    with mock.patch.object(torch.autograd.Function, "apply", classmethod(apply)), traced:
        yield


class _Forgetful:
    """The context of a `forward` whose own backward will not run."""

    needs_input_grad = (False,) * 64

    def save_for_backward(self, *tensors: Tensor) -> None:
        pass

    mark_dirty = mark_non_differentiable = set_materialize_grads = save_for_forward = save_for_backward


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _carries(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _mean(x: Tensor, weighted_sum: Callable[[Tensor], Tensor]) -> Tensor:
    """A linear map whose weights are divided by their sum over the real tokens, those that are not 0."""
    with torch.no_grad():
        total = weighted_sum((x != 0).to(x.dtype))
    return weighted_sum(x) / torch.where(total > 0, total, torch.ones_like(total))


def _mean_of_both(a: Tensor, b: Tensor) -> Tensor:
    with torch.no_grad():
        total = (a != 0).to(a.dtype) + (b != 0).to(b.dtype)
    return (a + b) / total.clamp(min=1)


def even_coverage(kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Weights of the cells under a kernel, of its shape, with which every cell counts alike over all places
    of the kernel: 1 2 3 4 3 2 1 for 7 cells and a stride of 4. The same weight for all would give cells under
    two places twice what those under one have: a grid over the map that no model has learned. Where places do
    not overlap the weights are the same.
    """
    sides = [
        [min(i + 1, s, size - s + 1, size - i) if size > s else 1 for i in range(size)]
        for size, s in zip(kernel, stride, strict=True)
    ]
    weights = torch.ones(())
    for side in sides:
        weights = weights[..., None] * torch.tensor(side)
    return weights


def _shares(x: Tensor, kernel: Tensor, stride: Any, padding: Any, dilation: Any) -> Tensor:
    """What the cells of x (B, C, ...) are to be multiplied by, so that each gives 1 to all places of the
    kernel together; those at the border too, which fewer places reach."""
    convolve = F.conv3d if x.ndim == 5 else F.conv2d
    cells = torch.zeros_like(x[:1, :1]).detach().requires_grad_()
    with torch.enable_grad():
        total = convolve(cells, kernel, None, stride, padding, dilation).sum()
    (reached,) = torch.autograd.grad(total, cells)
    return torch.where(reached > 0, 1 / reached.clamp(min=1e-6), 0.0)


def _each(dims: int, value: Any) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value)
