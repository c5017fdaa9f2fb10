"""Checkpoint files to dictionaries of tensors, without running anything that a file may contain."""

import importlib.util
import os
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vidformers.checkpoints.metadata import from_header

PRETRAINED = "model.safetensors"  # in a folder of `save_pretrained`
WEIGHTS_FILES = (".pyth", ".pth", ".pt", ".bin", ".ckpt", ".safetensors")
# Where the projects at hand put the weights: PySlowFast, ours, mmaction2 and timm, DDP wrappers, PyTorch's
# tutorials; moving averages (timm's) where there is nothing else.
_STATE_KEYS = (
    *("model_state", "model", "state_dict", "module", "model_state_dict"),
    *("model_ema", "state_dict_ema"),
)
# What DistributedDataParallel, torch.compile, and classes that hold a model (Lightning's) put before every
# name.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "net.")
# How a pickle names what it is to call; torch's unpickler allows this, and any number as its argument.
_MAKES_BYTES = b"\nbytearray\n"


def read_checkpoint(path: str) -> dict[str, Any]:
    """Reads a PyTorch or .safetensors file, local or at any address that iopath knows, onto the CPU; of a
    folder of `save_pretrained` the weights in it.

    FileNotFoundError if there is none; ValueError, with what to do, if it cannot be fetched, is not a
    checkpoint, unpacks to more than it is, or holds Python objects, which are refused because loading them
    can run any code.
    """
    path = weights_file(str(path))
    local = _fetch(path)
    if path.endswith(".safetensors"):
        return _read_safetensors(local)
    refuse_bombs(local, path)
    with open(local, "rb") as file:
        try:
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(_why_unreadable(path, error)) from None
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}, wanted a dictionary of tensors")
    _check_tensors(checkpoint, os.path.getsize(local), path)
    return dict(checkpoint)


def weights_file(path: str) -> str:
    """`path`, or the file of weights in the folder that it is. FileNotFoundError, that says what to give, for
    a folder that is not of `save_pretrained`."""
    if not os.path.isdir(path):
        return path
    file = os.path.join(path, PRETRAINED)
    if os.path.isfile(file):
        return file
    advice = "give the path of a .pth, .pyth, .pt or .safetensors file"
    inside = [os.path.join(path, *names) for names in (("checkpoints", "best.pyth"), ("best.pyth",))]
    if best := next((name for name in inside if os.path.isfile(name)), None):
        advice = f"give {best}"
    elif os.path.isfile(os.path.join(path, "run.pyth")) and os.path.isfile(os.path.join(path, ".metadata")):
        advice = (
            f"it is a sharded one: make a file of it, python tools/export_checkpoint.py {path} weights.pyth"
        )
    raise FileNotFoundError(f"{path} is a folder, not a checkpoint file; {advice}")


def refuse_bombs(local: str, path: str) -> None:
    """Raise ValueError if a PyTorch file would take more memory than it is: one that says that it unpacks to
    more (torch stores, and never compresses), or that has a bytearray made, of any length, by 20 bytes."""
    try:
        with zipfile.ZipFile(local) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            size = os.path.getsize(local)
            if unpacked > size:
                raise ValueError(
                    f"{path} was refused because its {size:,} bytes say that they unpack to {unpacked:,}, "
                    "which no file of torch.save does. If you trust its origin, load it with torch and save "
                    "it again"
                )
            pickles = [entry for entry in archive.infolist() if entry.filename.endswith(".pkl")]
            makes_bytes = any(_MAKES_BYTES in archive.read(entry) for entry in pickles)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error):
        with open(local, "rb") as file:  # the format before PyTorch 1.6; or torch will say so
            begin, makes_bytes = b"", False
            while not makes_bytes and (part := file.read(1 << 24)):
                makes_bytes = _MAKES_BYTES in begin + part
                begin = part[-len(_MAKES_BYTES) :]
    if makes_bytes:
        raise ValueError(
            f"{path} was refused because it holds a bytearray, which weights have no need of and which can "
            "ask for any amount of memory. If you trust its origin, load it with torch, and save only its "
            "state dict"
        )


def _check_tensors(tree: Mapping[Any, Any], size: int, path: str) -> None:
    """Raise ValueError for a tensor larger than the file that it came from, or without numbers of its own."""
    waiting: list[Any] = [tree]
    seen: set[int] = set()  # a pickle may hold a list in itself, or the same one a thousand million times
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
        elif isinstance(value, Tensor):
            if value.layout != torch.strided or value.is_meta or value.is_quantized:
                raise ValueError(
                    f"{path} was refused because a tensor in it is sparse, quantized or without values "
                    f"({value.layout}, {value.dtype}, {value.device}); wanted ordinary ones: save it again "
                    "with .to_dense() or .dequantize()"
                )
            if value.numel() * value.element_size() > size:
                raise ValueError(
                    f"{path} was refused because a tensor in it says that it is {tuple(value.shape)}, more "
                    f"than the {size:,} bytes of the file hold. If you trust its origin, save it again with "
                    "contiguous tensors"
                )


def num_bytes(path: str) -> int:
    """The size of a weights file, wherever it is. Raises as `read_checkpoint`."""
    return os.path.getsize(_fetch(weights_file(path)))


def _fetch(path: str) -> str:
    """Path of a local copy, or of the file itself."""
    from vidformers.data.paths import path_manager

    manager = path_manager()
    scheme, separator, _ = path.partition("://")
    known = any(path.startswith(prefix) for prefix in manager._path_handlers)
    if separator and not known and not os.path.exists(path):
        raise ValueError(
            f"{path} is at an address that nothing here can read ({scheme}://); download it and give the "
            "path of the file, or register a handler with iopath.common.file_io.g_pathmgr.register_handler"
        )
    try:
        is_file = manager.isfile(path)
    except NotImplementedError:  # iopath cannot ask web servers
        is_file = True
    if not is_file:
        what = "is a folder, not a checkpoint file" if manager.isdir(path) else "does not exist"
        raise FileNotFoundError(f"{path} {what}; give the path of a .pth, .pyth, .pt or .safetensors file")
    try:
        return str(manager.get_local_path(path))
    except OSError as error:
        raise ValueError(f"{path} could not be fetched ({error}); download it and give the file") from None


def find_state_dict(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The name -> tensor dictionary in a checkpoint, or the checkpoint itself if it is one.

    Of a run of ours the averaged weights, where it has them: those that it validated and tested.
    """
    for key in ("ema", *_STATE_KEYS) if "vidformers" in checkpoint else _STATE_KEYS:
        inner = checkpoint.get(key)
        if isinstance(inner, Mapping) and any(isinstance(value, Tensor) for value in inner.values()):
            return _unwrapped(inner)
    if not any(isinstance(value, Tensor) for value in checkpoint.values()):
        raise ValueError(
            f"no weights found: none of the keys {', '.join(_STATE_KEYS)} holds tensors, nor does the "
            f"checkpoint itself (its keys: {', '.join(map(str, list(checkpoint)[:8])) or 'none'})"
        )
    return _unwrapped(checkpoint)


def _unwrapped(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    for name in tensors:
        if not isinstance(name, str):
            raise ValueError(f"its tensors are not under names of parameters; one is under {name!r}")
    while wrapper := next((w for w in _WRAPPERS if all(name.startswith(w) for name in tensors)), ""):
        tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    return tensors


def read_header(path: str) -> dict[str, str]:
    """The text in the header of a .safetensors file, by its keys. Raises as `read_checkpoint`."""
    return _from_safetensors(_fetch(path), _header)


def _read_safetensors(path: str) -> dict[str, Any]:
    checkpoint: dict[str, Any] = _from_safetensors(path, _tensors)
    metadata = from_header(_from_safetensors(path, _header), path)
    if metadata is not None:  # our own file, so marked as the checkpoint of a run is
        checkpoint["vidformers"] = metadata.source
        checkpoint["metadata"] = metadata
        checkpoint["class_names"] = None if metadata.labels is None else list(metadata.labels)
        checkpoint["multi_label"] = metadata.multi_label
    return checkpoint


def _tensors(file: Any) -> dict[str, Tensor]:
    names = file.keys()  # no dictionary: it cannot be iterated over
    return {name: file.get_tensor(name) for name in names}


def _header(file: Any) -> dict[str, str]:
    return file.metadata() or {}


def _from_safetensors(path: str, read: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    if importlib.util.find_spec("safetensors") is None:
        raise ValueError(f"reading {path} needs the safetensors package: pip install safetensors")
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return read(file)
    except Exception as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error})") from None


def _why_unreadable(path: str, error: Exception) -> str:
    # torch has two such messages, one for what it could be told to allow and one for what never is.
    refused = re.search(r"(?i)unsupported global(?:: global)? ([\w.]+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and refused:
        return (
            f"{path} was refused because it holds Python objects besides tensors ({refused[1]}), and loading "
            "those can run any code. If you trust its origin, open it once with torch.load(path, "
            "weights_only=False), save only its state dict with torch.save, and give that file instead"
        )
    return (
        f"{path} is not a readable PyTorch checkpoint ({type(error).__name__}); it may be incomplete, a web "
        "page saved by a failed download, or another kind of file"
    )
