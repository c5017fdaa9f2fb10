"""What may be done with a Linear besides calling it."""

from torch import nn


def reads_as_weights(layer: nn.Module) -> bool:
    """Whether a product with its weight and bias is all that calling it does.

    Not so where it has been replaced (quantised ones, adapters), is watched by hooks, or gets its weight from
    one at each call (torch.nn.utils.prune, weight_norm).
    """
    return type(layer) is nn.Linear and not layer._forward_hooks and not layer._forward_pre_hooks
