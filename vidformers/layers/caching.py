"""What is computed once: functions of sizes, and functions of weights that have not changed since."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_Function = TypeVar("_Function", bound=Callable[..., Tensor | None])

# Of all functions of sizes together. The masks of a published model at its size are a few MiB.
MOST_BYTES_OF_SIZES = 256 * 2**20
# Of one bias. Looking a larger one up costs little beside the attention that it is for, and keeping it much:
# Video Swin-L at 384 pixels has 2.3 GiB of them.
MOST_BYTES_OF_WEIGHTS = 16 * 2**20

_of_sizes: "OrderedDict[Hashable, Tensor | None]" = OrderedDict()
_of_weights: "WeakKeyDictionary[nn.Module, tuple[Hashable, list[Tensor], Tensor]]" = WeakKeyDictionary()
_lock = threading.Lock()


def once_per_size(function: _Function) -> _Function:
    """Decorator: results are kept by their arguments (numbers, strings, sizes) and their device.

    For functions of sizes alone, whose results nobody changes in place. Where `device` is not given, under
    torch.compile, and where tensors only stand for others (FakeTensorMode), nothing is kept.
    """

    @wraps(function)
    def kept(*arguments: Any, device: torch.device | None = None, **named: Any) -> Tensor | None:
        if device is None or torch.compiler.is_compiling() or type(torch.empty(0)) is not Tensor:
            return function(*arguments, device=device, **named)
        key = (function, device, *map(_plain, arguments), *((k, _plain(v)) for k, v in sorted(named.items())))
        with _lock:
            if key in _of_sizes:
                _of_sizes.move_to_end(key)
                return _of_sizes[key]
        with torch.inference_mode(False):  # inference tensors would be of no use in training later on
            result = function(*arguments, device=device, **named)
        with _lock:
            _of_sizes[key] = result
            while sum(map(_num_bytes, _of_sizes.values())) > MOST_BYTES_OF_SIZES:
                _of_sizes.popitem(last=False)
        return result

    return kept  # type: ignore[return-value]


def once_per_weights(module: nn.Module, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
    """compute(), a function of the module's few parameters and `key`; the last result is kept.

    On the CPU without gradients, and as long as the parameters have the values that it was computed from.
    They are compared: version counters miss fused optimizers and what is written through `.data`. On a GPU
    comparing would be to wait for it, and computing is a matter of microseconds.
    """
    parameters = list(module.parameters())
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or not all(map(_is_plain, parameters)):
        return compute()
    key = (key, torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
    found = _of_weights.get(module)
    if found is not None and found[0] == key and all(map(_same, found[1], parameters)):
        return found[2]
    with torch.inference_mode(False), torch.no_grad():
        result = compute()
        if _num_bytes(result) <= MOST_BYTES_OF_WEIGHTS:
            _of_weights[module] = (key, [parameter.clone() for parameter in parameters], result)
    return result


def _is_plain(parameter: Tensor) -> bool:
    """Not on another device, sharded, fake, or many models' at once (torch.vmap)."""
    return (
        type(parameter) in (Tensor, nn.Parameter)
        and parameter.device.type == "cpu"
        and not torch._C._functorch.is_functorch_wrapped_tensor(parameter)
    )


def _same(those: Tensor, these: Tensor) -> bool:
    return those.dtype == these.dtype and torch.equal(those, these)


def _plain(argument: Any) -> Hashable:
    return tuple(argument) if isinstance(argument, Sequence) and not isinstance(argument, str) else argument


def _num_bytes(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.numel() * tensor.element_size()
