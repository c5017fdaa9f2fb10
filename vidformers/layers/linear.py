"""What may be done with a layer besides calling it."""

from torch import nn
from torch.nn.modules import module as every_module


def is_watched(*layers: nn.Module) -> bool:
    """Whether hooks see what goes through one of the layers, or change it; or a function that has been put
    in the place of its `forward`, as accelerate does."""
    if every_module._global_forward_hooks or every_module._global_forward_pre_hooks:
        return True
    return any(
        layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer) for layer in layers
    )


def reads_as_weights(layer: nn.Module) -> bool:
    """Whether a product with its weight and bias is all that calling it does.

    Not so where it has been replaced (quantised ones, adapters), is watched by hooks, or gets its weight from
    one at each call (torch.nn.utils.prune, weight_norm).
    """
    return type(layer) is nn.Linear and not is_watched(layer)
