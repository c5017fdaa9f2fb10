"""Parameters and multiply-adds of a model."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidformers.layers.attention import by_definition

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
        with torch.no_grad(), by_definition():
            counts = _count_on_meta(model, example) if parameter.is_meta else _count_by_fvcore(model, example)
    finally:
        model.train(was_training)
    return {"total": sum(counts.values()), "by_operator": dict(counts)}


def _count_by_fvcore(model: nn.Module, example: Tensor) -> Counter[str]:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(model, example)
    # fvcore counts the two products only where they are separate operators.
    analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_flops)
    # Its own rule is the same, and refuses tensors of six dimensions.
    analysis.set_op_handle("aten::layer_norm", _layer_norm_flops)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    return Counter({name: int(count) for name, count in analysis.by_operator().items()})


def _attention_flops(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    query, key, value = (tensor.type().sizes() for tensor in inputs[:3])
    *batch, num_queries, dim = query
    return Counter(matmul=math.prod(batch) * num_queries * key[-2] * (dim + value[-1]))


def count_by_module(model: nn.Module, input_shape: Sequence[int]) -> tuple[dict[str, int], dict[str, int]]:
    """Multiply-adds and activations of each module of a model on the meta device, "" being the model itself.

    A module counts what is in it. Multiply-adds are those of `count_flops`. Activations are the elements that
    convolutions, Linears and matrix products put out, both products of an attention among them: fvcore's
    definition.
    """
    from torch.utils.flop_counter import FlopCounterMode, flop_registry

    activations = dict.fromkeys(flop_registry, _output_elements)
    counters = [_meta_counter(), FlopCounterMode(display=False, custom_mapping=activations)]
    example = torch.zeros(tuple(input_shape), device="meta", dtype=next(model.parameters()).dtype)
    was_training = model.training
    model.eval()
    try:
        for counter in counters:
            with torch.no_grad(), by_definition(), counter:
                model(example)
    finally:
        model.train(was_training)
    flops, elements = (_by_owner(counter.get_flop_counts()) for counter in counters)
    # The counter takes a multiply-add for two.
    return {name: count // 2 for name, count in flops.items()}, elements


def _by_owner(counts: dict[str, dict[Any, int]]) -> dict[str, int]:
    """Counts of each module and of lists of modules, which are not called and which the counter passes over.

    counts: by "MViT.blocks.0" and operator, each with those of the modules that it calls.
    """
    called = {name.partition(".")[2]: sum(of.values()) for name, of in counts.items() if name != "Global"}
    owned: Counter[str] = Counter()
    for name, count in called.items():
        # Up to the module that calls this one it is counted there already.
        owners = [name]
        while owners[-1]:
            owners.append(owners[-1].rpartition(".")[0])
            if owners[-1] in called:
                owners.pop()
                break
        owned.update(dict.fromkeys(owners, count))
    return dict(owned)


def _output_elements(*_: Any, out_shape: Sequence[int], **__: Any) -> int:
    return math.prod(out_shape)


def _layer_norm_flops(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter(layer_norm=_FLOPS_PER_NORMED_ELEMENT * math.prod(inputs[0].type().sizes()))


def _meta_counter() -> Any:
    from torch.utils.flop_counter import FlopCounterMode

    norms = {
        torch.ops.aten.native_layer_norm: _norm_flops,
        torch.ops.aten._native_batch_norm_legit_no_training: _batch_norm_flops,
    }
    return FlopCounterMode(display=False, custom_mapping=norms)


def _count_on_meta(model: nn.Module, example: Tensor) -> Counter[str]:
    with _meta_counter() as counter:
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
