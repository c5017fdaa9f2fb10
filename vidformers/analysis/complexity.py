"""Parameters and multiply-adds of a model."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidformers.layers.rel_pos import unfolded

# fvcore's rules for norms with affine parameters, in eval mode, so that both counters below agree.
_FLOPS_PER_NORMED_ELEMENT = 5
_FLOPS_PER_BATCH_NORMED_ELEMENT = 2
# PyTorch's names of operators, as its counter sees them, -> fvcore's.
_FVCORE_NAMES = {
    "convolution": "conv",
    "addmm": "linear",
    "mm": "linear",
    "bmm": "matmul",
    "baddbmm": "matmul",
}
_FVCORE_NAMES |= {"native_layer_norm": "layer_norm", "_native_batch_norm_legit_no_training": "batch_norm"}


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, frozen ones included."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_flops(model: nn.Module, input_shape: Sequence[int]) -> dict[str, Any]:
    """Multiply-adds of one forward pass in eval mode; one multiply-add counts once, as fvcore and papers do.

    `input_shape` includes the batch: (1, 3, 16, 224, 224). Returns "total" and "by_operator", in single
    multiply-adds (divide by 1e9 for the GFLOPs of papers). Convolutions, linear layers, matrix products,
    attention, and 5 an element of each norm (2 of a batch norm) are counted; softmax, activations, pooling
    and sums are not.

    A model on the meta device is counted without computing anything, in seconds whatever its size; one with
    values by running it once under fvcore, whose tracing does not work on the meta device.
    """
    parameter = next(model.parameters())
    example = torch.zeros(tuple(input_shape), device=parameter.device, dtype=parameter.dtype)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), unfolded():
            counts = _count_on_meta(model, example) if parameter.is_meta else _count_by_fvcore(model, example)
    finally:
        model.train(was_training)
    return {"total": sum(counts.values()), "by_operator": dict(counts)}


def _count_by_fvcore(model: nn.Module, example: Tensor) -> Counter[str]:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(model, example)
    # fvcore counts the two products only where they are separate operators.
    analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_flops)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    return Counter({name: int(count) for name, count in analysis.by_operator().items()})


def _attention_flops(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    query, key, value = (tensor.type().sizes() for tensor in inputs[:3])
    *batch, num_queries, dim = query
    return Counter(matmul=math.prod(batch) * num_queries * key[-2] * (dim + value[-1]))


def _count_on_meta(model: nn.Module, example: Tensor) -> Counter[str]:
    from torch.utils.flop_counter import FlopCounterMode

    norms = {
        torch.ops.aten.native_layer_norm: _norm_flops,
        torch.ops.aten._native_batch_norm_legit_no_training: _batch_norm_flops,
    }
    with FlopCounterMode(display=False, custom_mapping=norms) as counter:
        model(example)
    counts: Counter[str] = Counter()
    for operator, flops in counter.get_flop_counts()["Global"].items():
        name = str(operator).rpartition(".")[2]
        counts[_FVCORE_NAMES.get(name, name)] += flops // 2  # it counts a multiply-add as two
    return counts


def _norm_flops(input_shape: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * _FLOPS_PER_NORMED_ELEMENT * math.prod(input_shape)


def _batch_norm_flops(input_shape: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * _FLOPS_PER_BATCH_NORMED_ELEMENT * math.prod(input_shape)
