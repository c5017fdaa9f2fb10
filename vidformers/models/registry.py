"""Models by name: every published size is a function that gives the constructor's arguments."""

import difflib
import fnmatch
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class _Entry:
    model_class: type[nn.Module]
    sizes: dict[str, Any]


_REGISTRY: dict[str, _Entry] = {}


def register_model(
    model_class: type[nn.Module],
) -> Callable[[Callable[[], dict[str, Any]]], Callable[[], dict[str, Any]]]:
    """Decorator: registers a model of `model_class` under the name of the decorated function.

    The function takes nothing and returns the arguments in which this size differs from the defaults::

        @register_model(MViT)
        def mvit_b_16x4() -> dict[str, Any]:
            return {"num_frames": 16}
    """

    def register(sizes: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
        name = sizes.__name__
        if name in _REGISTRY:
            raise ValueError(f"a model named {name!r} is registered already")
        entry = _Entry(model_class, sizes())
        _check_arguments(name, entry, entry.sizes)
        _REGISTRY[name] = entry
        return sizes

    return register


def list_models(pattern: str | Sequence[str] = "*", *, exclude: str | Sequence[str] = ()) -> list[str]:
    """Registered names that match a shell pattern, or one of several, and none of `exclude`; sorted."""
    _import_families()
    return sorted(name for name in _REGISTRY if _matches(name, pattern) and not _matches(name, exclude))


def _matches(name: str, patterns: str | Sequence[str]) -> bool:
    given = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in given)


def model_arguments(name: str) -> dict[str, Any]:
    """Every constructor argument of a registered model with the value that it has there."""
    entry = _entry(name)
    return {**_defaults(entry.model_class), **entry.sizes}


def model_class(name: str) -> type[nn.Module]:
    """The class of a registered model."""
    return _entry(name).model_class


def create_model(name: str, *, weights: str | os.PathLike[str] | None = None, **overrides: Any) -> nn.Module:
    """Builds a registered model, its weights random or of a file; `overrides` replace any of its arguments.

    Names carry the architecture only: drop path, dropout and the like are 0 unless given (the recipes in
    configs/ give them).

    weights: any file that `load_weights` takes. One of tools/convert_checkpoint.py also brings the arguments
    that its model was built with (under `overrides`), and must be of this name. If `num_classes` is given, a
    classifier for another number of classes is left out and starts at random.

    The model is in training mode, as torch makes modules: call `.eval()` to predict (`from_pretrained` does).
    `model.metadata` says how the model was made and, from such a file or a run of ours, its protocol and
    classes (`checkpoints.metadata.Metadata`).

    Raises ValueError for an unknown name or argument, with the nearest spelling, and for weights of another
    model; and what `load_weights` raises.
    """
    from vidformers.checkpoints.metadata import Metadata, read_metadata

    entry = _entry(name)
    metadata = read_metadata(weights) if weights is not None else None
    if weights is not None and metadata is not None and metadata.model_name == name:
        check_size(name, metadata.model_arguments, weights)
    if metadata is None:
        metadata = Metadata(model_name=name)
    if metadata.model_name != name:
        raise ValueError(
            f"{weights} holds weights of {metadata.model_name!r}, not of {name!r}; "
            f"use create_model({metadata.model_name!r}, weights=...)"
        )
    arguments = {**metadata.model_arguments, **overrides}
    _check_arguments(name, entry, arguments)
    model = entry.model_class(**{**entry.sizes, **arguments})
    model.metadata = replace(metadata, model_arguments=arguments)  # type: ignore[assignment]
    if weights is not None and not load_fitting(model, weights, new_classifier="num_classes" in overrides):
        model.metadata = replace(model.metadata, labels=None, multi_label=False)  # type: ignore[type-var]
    return model


# Numbers that a model may have besides those in its file: tables that it computes.
_COMPUTED = 1 << 28
# Bytes that a safetensors file needs at least to name a tensor and its place.
_NAMED = 40
# No argument of a model is a larger number: a depth, a width, a size in frames or pixels.
_LARGEST = 100_000


def check_size(name: str, arguments: Mapping[str, Any], weights: str | os.PathLike[str]) -> None:
    """Raise ValueError if a model that a weights file describes is larger than the file can fill: the
    description of ten characters would ask for all memory. Nothing is allocated for it."""
    from torch.nn.modules.module import (
        register_module_buffer_registration_hook,
        register_module_parameter_registration_hook,
    )

    from vidformers.checkpoints.read import num_bytes

    size = num_bytes(os.fspath(weights))
    numbers = tensors = 0
    refusal = (
        f"{weights} was refused because it says that it is of a {name} with {dict(arguments)}, which its "
        f"{size:,} bytes cannot fill; convert the original again with tools/convert_checkpoint.py"
    )
    waiting = list(arguments.values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | tuple):
            waiting.extend(value)
        elif isinstance(value, int | float) and not abs(value) <= _LARGEST:
            raise ValueError(refusal)

    def count(module: nn.Module, tensor_name: str, tensor: torch.Tensor | None) -> None:
        nonlocal numbers, tensors
        if tensor is not None:
            numbers, tensors = numbers + tensor.numel(), tensors + 1
        if numbers > size + _COMPUTED or tensors > size / _NAMED + 1000:
            raise ValueError(refusal)

    entry = _entry(name)
    _check_arguments(name, entry, arguments)
    hooks = [
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
    ]
    try:
        with torch.device("meta"):
            entry.model_class(**{**entry.sizes, **arguments})
    finally:
        for hook in hooks:
            hook.remove()


def load_fitting(model: nn.Module, weights: str | os.PathLike[str], *, new_classifier: bool) -> bool:
    """`load_weights`, all but perhaps the classifier with `new_classifier`: whether that was loaded too."""
    from vidformers.checkpoints.load import load_weights

    info = load_weights(model, weights, strict=not new_classifier)
    others = [n for n in (*info.missing, *info.unexpected) if not n.startswith("head.")]
    if others:
        raise ValueError(
            f"{weights} ({info.source}) does not fit the model: {len(others)} parameters besides the "
            f"classifier are missing or left over, such as {', '.join(others[:5])}; give the arguments "
            "that it was trained with"
        )
    return not info.missing


def _entry(name: str) -> _Entry:
    _import_families()
    if name not in _REGISTRY:
        raise ValueError(f"no model is named {name!r}{_nearest(name, list(_REGISTRY))}; see list_models()")
    return _REGISTRY[name]


def _defaults(model_class: type[nn.Module]) -> dict[str, Any]:
    return {p.name: p.default for p in inspect.signature(model_class).parameters.values()}


def _check_arguments(name: str, entry: _Entry, arguments: Mapping[str, Any]) -> None:
    known = _defaults(entry.model_class)
    for argument in arguments:
        if argument not in known:
            family = entry.model_class.__name__
            raise ValueError(
                f"{name} ({family}) has no argument {argument!r}{_nearest(argument, list(known))}"
            )


def _nearest(word: str, candidates: list[str]) -> str:
    near = difflib.get_close_matches(word, candidates, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _import_families() -> None:
    # Registration happens on import, and the family modules import this one.
    import vidformers.models  # noqa: F401
