"""Checkpoint files to dictionaries of tensors, without running anything that a file may contain."""

import importlib.util
import pickle
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# Where the projects at hand put the weights: PySlowFast, ours, mmaction2 and timm, DDP wrappers.
_STATE_KEYS = ("model_state", "model", "state_dict", "module")
# What DistributedDataParallel and torch.compile put before every name.
_WRAPPERS = ("module.", "_orig_mod.")


def read_checkpoint(path: str) -> dict[str, Any]:
    """Reads a PyTorch or .safetensors file, local or at any address that iopath knows, onto the CPU.

    FileNotFoundError if there is none; ValueError, with what to do, if it is not a checkpoint or holds Python
    objects, which are refused because loading them can run any code.
    """
    from vidformers.data.paths import path_manager

    path = str(path)
    manager = path_manager()
    if not manager.isfile(path):
        what = "is a folder, not a checkpoint file" if manager.isdir(path) else "does not exist"
        raise FileNotFoundError(f"{path} {what}; give the path of a .pth, .pyth, .pt or .safetensors file")
    if path.endswith(".safetensors"):
        return _read_safetensors(manager.get_local_path(path))
    with manager.open(path, "rb") as file:
        try:
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(_why_unreadable(path, error)) from None
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}, wanted a dictionary of tensors")
    return dict(checkpoint)


def find_state_dict(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The name -> tensor dictionary in a checkpoint, or the checkpoint itself if it is one."""
    for key in _STATE_KEYS:
        inner = checkpoint.get(key)
        if isinstance(inner, Mapping) and any(isinstance(value, Tensor) for value in inner.values()):
            return _unwrapped(inner)
    if not any(isinstance(value, Tensor) for value in checkpoint.values()):
        raise ValueError(
            f"no weights found: none of the keys {', '.join(_STATE_KEYS)} holds tensors, nor does the "
            f"checkpoint itself (its keys: {', '.join(map(str, list(checkpoint)[:8])) or 'none'})"
        )
    return _unwrapped(checkpoint)


def _unwrapped(state: Mapping[str, Any]) -> dict[str, Tensor]:
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    return tensors


def _read_safetensors(path: str) -> dict[str, Any]:
    if importlib.util.find_spec("safetensors") is None:
        raise ValueError(f"reading {path} needs the safetensors package: pip install safetensors")
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error})") from None


def _why_unreadable(path: str, error: Exception) -> str:
    message = str(error)
    if isinstance(error, pickle.UnpicklingError) and "Unsupported global" in message:
        objects = message.split("Unsupported global: GLOBAL ")[-1].split(" ")[0]
        return (
            f"{path} was refused because it holds Python objects besides tensors ({objects}), and loading "
            "those can run any code. If you trust its origin, open it once with torch.load(path, "
            "weights_only=False), save only its state dict with torch.save, and give that file instead"
        )
    return (
        f"{path} is not a readable PyTorch checkpoint ({type(error).__name__}); it may be incomplete, a web "
        "page saved by a failed download, or another kind of file"
    )
