"""Models by name: every published size is a function that gives the constructor's arguments."""

import difflib
import fnmatch
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


def list_models(pattern: str = "*") -> list[str]:
    """Registered names that match a shell pattern, sorted."""
    _import_families()
    return sorted(name for name in _REGISTRY if fnmatch.fnmatchcase(name, pattern))


def model_arguments(name: str) -> dict[str, Any]:
    """Every constructor argument of a registered model with the value that it has there."""
    entry = _entry(name)
    return {**_defaults(entry.model_class), **entry.sizes}


def model_class(name: str) -> type[nn.Module]:
    """The class of a registered model."""
    return _entry(name).model_class


def create_model(name: str, **overrides: Any) -> nn.Module:
    """Builds a registered model with random weights; `overrides` replace any of its arguments.

    Names carry the architecture only: drop path, dropout and the like are 0 unless given (the recipes in
    configs/ give them). ValueError for an unknown name or argument, with the nearest spelling.
    """
    entry = _entry(name)
    _check_arguments(name, entry, overrides)
    return entry.model_class(**{**entry.sizes, **overrides})


def _entry(name: str) -> _Entry:
    _import_families()
    if name not in _REGISTRY:
        raise ValueError(f"no model is named {name!r}{_nearest(name, list(_REGISTRY))}; see list_models()")
    return _REGISTRY[name]


def _defaults(model_class: type[nn.Module]) -> dict[str, Any]:
    return {p.name: p.default for p in inspect.signature(model_class).parameters.values()}


def _check_arguments(name: str, entry: _Entry, arguments: dict[str, Any]) -> None:
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
