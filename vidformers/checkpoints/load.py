"""`load_weights`: any known checkpoint into a model."""

import json
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from vidformers.checkpoints.families import FAMILIES
from vidformers.checkpoints.family import Family, Source
from vidformers.checkpoints.fitting import fitting_models
from vidformers.checkpoints.metadata import OF_TRAINING, Metadata, metadata_of, of_size
from vidformers.checkpoints.read import find_state_dict, read_checkpoint
from vidformers.models.registry import model_arguments

_SHOWN = 5  # names of each kind in an error
_CLASSIFIER = "head.projection.weight"
_SIZES = ("num_frames", "image_size")

logger = logging.getLogger(__name__)


@dataclass(repr=False)
class LoadInfo:
    """What `load_weights` did, by parameter names of the model (`unexpected`: of the checkpoint, converted).

    `source` is "vidformers" or the project whose names were recognised ("slowfast", "torchvision", ...).
    `matched` are all names that were loaded, those in `resized` (position tables of another input size) and
    `inflated` (image to video) too; `missing` kept the values they had. `class_names` are those in the
    checkpoint, in the order of its labels; None if it has none, as those of other projects. `multi_label`:
    the checkpoint says that a video has a set of classes, so that probabilities are a sigmoid a class.
    `metadata`: all that a checkpoint of a run of ours, or a converted file, says of itself; else None.
    """

    source: str
    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    inflated: list[str] = field(default_factory=list)
    class_names: list[str] | None = None
    multi_label: bool = False
    metadata: Metadata | None = None

    def __repr__(self) -> str:
        """Counts, and the first names of what was not found or not used: a notebook shows it."""
        shown = [f"{len(self.matched)} matched"]
        for name in ("missing", "unexpected"):
            names = getattr(self, name)
            shown.append(f"{len(names)} {name}" + (f" ({_some(names)})" if names else ""))
        shown += [f"{len(self.resized)} resized", f"{len(self.inflated)} inflated"]
        if self.class_names:
            shown.append(f"{len(self.class_names)} class names ({_some(self.class_names)})")
        return f"<LoadInfo: {self.source} names, {', '.join(shown)}>"


def load_weights(
    model: nn.Module, path_or_state_dict: str | os.PathLike[str] | Mapping[str, Any], *, strict: bool = True
) -> LoadInfo:
    """Loads published weights, or this library's own, recognised by their names.

    Which projects' weights a model takes is in `checkpoints/families.py`. A derived class takes those of its
    base class; of DataParallel, DistributedDataParallel and torch.compile wrappers the inner model is loaded,
    and the names in the result are its own.

    Takes a path (also an address that iopath knows, or a folder of `save_pretrained`), a checkpoint
    dictionary or a bare state dict. Of a run of ours averaged weights (SOLVER.EMA_DECAY) go before the last.
    Weights for another input size are interpolated, and image weights inflated so that a clip of equal
    frames gives what the image model gives (with a class token, only if the model has
    class_token_log_frames=True).

    strict=True: every parameter must be found and every entry used. strict=False, for fine-tuning: a head of
    another class count keeps its values and is in `missing`; other missing or unexpected names are listed in
    the result and logged as a warning.

    What a checkpoint of a run of ours, or a converted file, says of its classes (names, `multi_label`) and of
    its testing protocol goes into `model.metadata`, where `create_model` made the model. A model of another
    clip length or image size than that of the checkpoint keeps its own.

    Raises ValueError for what is no checkpoint, names of an unknown source, a model on the meta device,
    shapes that cannot be fitted, and with strict=True for missing or unexpected names; it names the first of
    them and the registered model that the weights do fit. The model is then left as it was.
    FileNotFoundError and ValueError as `read_checkpoint`.
    """
    given = path_or_state_dict
    is_path = isinstance(given, str | os.PathLike)
    where = str(given) if is_path else "the checkpoint"
    checkpoint = read_checkpoint(os.fspath(given)) if isinstance(given, str | os.PathLike) else given
    if not isinstance(checkpoint, Mapping):
        hint = "; give its state_dict()" if isinstance(given, nn.Module) else ""
        raise ValueError(
            f"load_weights takes a path, a checkpoint or a state dict, not a {type(given).__name__}{hint}"
        )
    model = _inner(model)
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError("the model is on the meta device; call model.to_empty(device='cpu') first")
    class_name = next((c.__name__ for c in type(model).__mro__ if c.__name__ in FAMILIES), None)
    if class_name is None:
        raise ValueError(
            f"load_weights knows no weights for a {type(model).__name__}; use model.load_state_dict"
        )
    target = model.state_dict()
    try:
        state = find_state_dict(checkpoint)
        # Our own pre-training has names like VideoMAE's, not those of the model that it trains a part of.
        if "vidformers" in checkpoint and "encoder.patch_embed.proj.weight" not in state:
            source, converted = "vidformers", state
        else:
            source, converted = to_our_names(state, class_name, set(target))
        adapted = FAMILIES[class_name].adapt(converted, model)
    except ValueError as error:
        raise ValueError(f"{where} cannot be loaded into {class_name}: {error}") from None
    info = LoadInfo(
        source=source,
        class_names=_class_names(checkpoint),
        multi_label=checkpoint.get("multi_label") is True,
        metadata=_metadata(checkpoint, where),
    )
    misfits = []
    for name, tensor in adapted.state.items():
        if name not in target:
            info.unexpected.append(name)
        elif target[name].is_floating_point() and not tensor.is_floating_point():
            misfits.append(f"{name} (of {tensor.dtype}: quantized?)")
        elif tensor.shape == target[name].shape:
            info.matched.append(name)
        elif not strict and name.startswith("head.") and tensor.shape[1:] == target[name].shape[1:]:
            pass  # another class count: found missing below
        else:
            shapes = f"{tuple(tensor.shape)} in the checkpoint, {tuple(target[name].shape)} in the model"
            misfits.append(f"{name} ({shapes})")
    loaded = set(info.matched)
    misfit_names = {misfit.partition(" ")[0] for misfit in misfits}
    found = loaded | misfit_names
    # Files from before PyTorch 0.4.1, and converted ones, lack batch norms' counters, which change no result.
    info.missing = [n for n in target if n not in found and not n.endswith(".num_batches_tracked")]
    info.resized = [name for name in adapted.resized if name in loaded]
    info.inflated = [name for name in adapted.inflated if name in loaded]

    if misfits or not loaded or (strict and (info.missing or info.unexpected)):
        only_head = not info.unexpected and all(n.startswith("head.") for n in (*misfits, *info.missing))
        if strict and only_head and info.missing:
            advice = "Weights without a classifier load with strict=False, which keeps the model's"
        elif strict and only_head:
            advice = "Build it with the checkpoint's num_classes, or use strict=False to keep a new head"
        else:
            advice = its_model(info.metadata) or _advice(_fitting(state, class_name))
        raise ValueError(f"{_explain(where, model, info, misfits)}. {advice}.")
    if not strict and (info.missing or info.unexpected):
        logger.warning(
            "%s: %d parameters of the model not found (%s), %d entries not used (%s)",
            where,
            len(info.missing),
            _some(info.missing),
            len(info.unexpected),
            _some(info.unexpected),
        )
    with torch.no_grad():
        for name in info.matched:
            target[name].copy_(adapted.state[name])
    reset_buffers = getattr(model, "reset_buffers", None)
    if callable(reset_buffers):  # a model built on the meta device has had no values in them so far
        reset_buffers()
    _note_metadata(model, info, where)
    return info


def _metadata(checkpoint: Mapping[str, Any], where: str) -> Metadata | None:
    """What the checkpoint says of itself; what cannot be understood is logged, and no reason not to load."""
    from vidformers.engine.protocol import own_metadata  # of a run that is its config

    try:
        return own_metadata(checkpoint, where)
    except ValueError as error:
        logger.warning("%s; the model keeps its testing protocol", error)
        return None


def _note_metadata(model: nn.Module, info: LoadInfo, where: str) -> None:
    """What the checkpoint says of its protocol, and if its classifier was loaded of its classes, in the
    model's metadata."""
    metadata, said = metadata_of(model), info.metadata
    if metadata is None:
        return
    if said and said.protocol:
        theirs, ours = _clip_size(said), _clip_size(metadata)
        own = {name: ours[name] for name in _SIZES if ours[name] != theirs[name]}
        metadata = replace(
            metadata, protocol=of_size(said.protocol, own.get("num_frames"), own.get("image_size"))
        )
        if unasked := [name for name in own if theirs[name] and name not in metadata.model_arguments]:
            logger.warning(
                "%s is of a model with %s; this one has its default, %s, and is tested with that: make it "
                "with the former for the same answers",
                where,
                ", ".join(f"{name}={theirs[name]}" for name in unasked),
                ", ".join(f"{name}={ours[name]}" for name in unasked),
            )
    if _CLASSIFIER in info.matched:
        names = info.class_names
        labels = tuple(names) if names and len(names) == getattr(model, "num_classes", None) else None
        metadata = replace(metadata, labels=labels, multi_label=info.multi_label)
    model.metadata = metadata  # type: ignore[assignment]


def _clip_size(metadata: Metadata) -> dict[str, Any]:
    """num_frames and image_size that a model is made with; None where it has no such argument."""
    known = model_arguments(metadata.model_name) | metadata.model_arguments
    return {name: known.get(name) for name in _SIZES}


def its_model(metadata: Metadata | None) -> str | None:
    """The model that a checkpoint says it is of, for an error; None if it does not say it."""
    if metadata is None:
        return None
    left_out = {"num_classes", *_SIZES, *OF_TRAINING}
    arguments = {name: value for name, value in metadata.model_arguments.items() if name not in left_out}
    as_lists = json.loads(json.dumps(arguments))  # which YAML files and command lines take as they are
    return (
        f'It says that it is of MODEL.NAME {metadata.model_name} MODEL.ARGS "{as_lists}"; set these, or in '
        "Python use vidformers.from_pretrained(file)"
    )


def _class_names(checkpoint: Mapping[str, Any]) -> list[str] | None:
    names = checkpoint.get("class_names")
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _inner(model: nn.Module) -> nn.Module:
    """The model itself, without wrappers whose state dict has prefixed names."""
    while True:
        compiled = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(compiled, nn.Module):
            model = compiled
        else:
            return model


def to_our_names(
    state: dict[str, Tensor], class_name: str, own_names: Collection[str] = ()
) -> tuple[str, dict[str, Tensor]]:
    """(source, state dict in our names) of weights for `class_name`, whose own names are `own_names`.

    ValueError, naming the family that the weights are of where that can be told, if no source fits.
    """
    source = _recognise(state, FAMILIES[class_name])
    if source is not None:
        return source.name, source.convert(state)
    if own_names and all(name in own_names for name in state):
        return "vidformers", state
    message = f"its parameter names (the first are {_some(list(state))}) are not those of a {class_name}"
    known, fitting = _known(state, class_name), _fitting(state, class_name)
    if known:
        other, source = known[0]
        raise ValueError(f"{message}, but of a {other} ({source.name}). {_advice(fitting)}")
    if fitting:
        raise ValueError(f"{message}. {_advice(fitting)}")
    sources = [source.name for source in FAMILIES[class_name].sources]
    raise ValueError(
        f"{message} of {' or '.join([*sources, 'this library'])}, so it is a checkpoint of another model; "
        "give one of the model that you build"
    )


def _advice(fitting: Sequence[str]) -> str:
    if fitting:
        more = f" or {len(fitting) - _SHOWN} more" if len(fitting) > _SHOWN else ""
        return f"This checkpoint fits {' or '.join(fitting[:_SHOWN])}{more}"
    return "It fits no registered model either; build it with the arguments that it was trained with"


def _fitting(state: Mapping[str, Tensor], class_name: str) -> list[str]:
    """Registered models that the checkpoint fits: of `class_name` if there are any, else of another class."""
    shapes = {name: torch.empty(tensor.shape, device="meta") for name, tensor in state.items()}
    known = _known(state, class_name)
    for other, source in known:
        if fitting := fitting_models(source.convert(shapes), {other}):
            return fitting
    # Our own names do not tell the family.
    ours = not known and "head.projection.weight" in state
    return fitting_models(shapes, FAMILIES.keys()) if ours else []


def _known(state: Mapping[str, Tensor], class_name: str) -> list[tuple[str, Source]]:
    """The classes whose weights these can be by their names, the likeliest first, and the source of each."""
    found = [(other, source) for other, family in FAMILIES.items() if (source := _recognise(state, family))]
    # PySlowFast's names are a common form that several families share: the others tell more.
    return sorted(found, key=lambda pair: (pair[0] != class_name, pair[1].name == "slowfast"))


def _recognise(state: Mapping[str, Tensor], family: Family) -> Source | None:
    return next((source for source in family.sources if source.matches(state)), None)


def _explain(where: str, model: nn.Module, info: LoadInfo, misfits: Sequence[str]) -> str:
    parts = []
    if misfits:
        parts.append(f"{len(misfits)} of another shape: {_some(misfits)}")
    if info.missing:
        parts.append(f"{len(info.missing)} missing from it: {_some(info.missing)}")
    if info.unexpected:
        parts.append(f"{len(info.unexpected)} that the model does not have: {_some(info.unexpected)}")
    return (
        f"{where} ({info.source} names) does not fit {type(model).__name__}: {len(info.matched)} parameters "
        f"match; {'; '.join(parts)}"
    )


def _some(names: Sequence[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
