"""Initialisations that several published projects share; each goes through all layers of a model."""

import torch
from torch import nn


@torch.no_grad()
def reset_pyramid(model: nn.Module) -> None:
    """As PVTv2 and Twins: Linears 0.02 wide, convolutions by their fan-out, biases 0; and LayerNorms."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Conv3d):
            fan_out = module.out_channels * module.weight[0, 0].numel() // module.groups
            nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        if isinstance(module, nn.Linear | nn.Conv3d | nn.LayerNorm) and module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.no_grad()
def reset_slowfast(model: nn.Module) -> None:
    """As PySlowFast and Hiera: Linears and convolutions 0.02 wide, and biases of 0.02 but in convolutions."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv3d):
            nn.init.trunc_normal_(module.weight, std=0.02)
        if isinstance(module, nn.Conv3d) and module.bias is not None:
            bound = module.weight[0].numel() ** -0.5
            nn.init.uniform_(module.bias, -bound, bound)
        if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
            nn.init.constant_(module.bias, 0.02)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)


@torch.no_grad()
def reset_swin(model: nn.Module) -> None:
    """As Swin and its descendants: Linears 0.02 wide with biases of 0, every other layer by its default."""
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif reset is not None and module is not model:
            reset()
