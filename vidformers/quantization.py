"""Linears in 8-bit integers, for inference on the CPU."""

import copy
import warnings

import torch
from torch import nn

from vidformers.layers.position_bias import DynamicBias


def quantize_int8(model: nn.Module) -> nn.Module:
    """A copy of the model in eval mode whose Linears multiply 8-bit integers (dynamic quantisation).

    Weights are rounded once, with a scale an output channel; activations as they come, with a scale a tensor.
    Everything else stays as it is: convolutions, norms, attention's products. On the CPU only, in float32,
    and without gradients. docs/export_and_weights.md says what it costs and brings.

    Raises ValueError for a model on another device.
    """
    devices = {parameter.device.type for parameter in model.parameters()}
    if devices != {"cpu"}:
        raise ValueError(f"got a model on {', '.join(sorted(devices))}; wanted the CPU; try model.cpu()")
    # In torch 2.13 still there, though named deprecated for torchao, which is another 10 MB to install.
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    # Not the small networks of relative positions: they compute a table and not activations.
    chosen = {
        f"{name}.{part}" if name else part: per_channel_dynamic_qconfig
        for name, module in model.named_modules()
        if not isinstance(module, DynamicBias)
        for part, child in module.named_children()
        if isinstance(child, nn.Linear)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return quantize_dynamic(copy.deepcopy(model).eval(), chosen, dtype=torch.qint8, inplace=True)
