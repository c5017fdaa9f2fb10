"""A model with all that it needs to answer for a video: weights, testing protocol, class names."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fvcore.common.config import CfgNode
from torch import nn

from vidformers.checkpoints import load_weights
from vidformers.checkpoints.load import to_our_names
from vidformers.checkpoints.metadata import Metadata, Protocol, metadata_of, of_size
from vidformers.checkpoints.read import WEIGHTS_FILES, find_state_dict, read_checkpoint
from vidformers.config import load_config
from vidformers.config.named import CONFIGS
from vidformers.config.values import nearest
from vidformers.data.records import read_label_file
from vidformers.engine.model import model_kwargs
from vidformers.engine.protocol import (
    config_metadata,
    config_protocol,
    own_metadata,
    pyslowfast_config,
)
from vidformers.engine.published import published_config
from vidformers.models import create_model, list_models, model_arguments, model_class
from vidformers.models.registry import check_size

# Of a model that nothing more is known of: the protocol of the MViT recipes.
DEFAULT_FRAMES, DEFAULT_CROP = 16, 224
_CLASSIFIER = "head.projection.weight"


@dataclass(frozen=True)
class ReadyModel:
    """class_names: in the order of the logits; None if nobody says them.
    multi_label: its outputs are a sigmoid a class. notes: sentences for people on what was chosen and why."""

    model: nn.Module
    name: str
    num_classes: int
    protocol: Protocol
    class_names: list[str] | None
    multi_label: bool
    notes: tuple[str, ...]


def ready_model(
    model: nn.Module | str | os.PathLike[str] | None,
    *,
    weights: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
) -> ReadyModel:
    """The model to predict with, as `Predictor` describes its arguments. Raises ValueError and
    FileNotFoundError that say what is missing or does not fit."""
    if isinstance(model, nn.Module):
        ready = _of_module(model, weights)
    else:
        name = None if model is None else os.fspath(model)
        if name is not None and (name.endswith(WEIGHTS_FILES) or os.path.isdir(name)):
            if weights is not None:
                raise ValueError(
                    f"got two weights files, {name} as the model and {weights}; give one of them"
                )
            name, weights = None, name
        ready = _of_weights(name, weights)
    names = ready.class_names if labels is None else _given_labels(labels)
    if names is not None and len(names) != ready.num_classes:
        where = labels if isinstance(labels, str | os.PathLike) else "the labels"
        raise ValueError(
            f"{where} names {len(names)} classes, but {ready.name} has {ready.num_classes}; give the names "
            "of the classes that it was trained with, one for each, in their order"
        )
    if names is None:
        note = f"No class names are known: classes are numbered from 0 to {ready.num_classes - 1}."
        ready = replace(ready, notes=(*ready.notes, note))
    return replace(ready, class_names=names)


def _given_labels(labels: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    return read_label_file(os.fspath(labels)) if isinstance(labels, str | os.PathLike) else list(labels)


def _of_module(model: nn.Module, weights: str | os.PathLike[str] | None) -> ReadyModel:
    """A model that the caller has built."""
    info = load_weights(model, weights) if weights is not None else None
    metadata = metadata_of(model) or (info.metadata if info else None)
    classifier = model.state_dict(keep_vars=True).get(_CLASSIFIER)
    if classifier is None:
        raise ValueError(
            f"{type(model).__name__} has no classifier (head.projection); give a model of create_model"
        )
    labels = metadata.labels if metadata else None
    class_names = (info.class_names if info else None) or (list(labels) if labels else None)
    name = metadata.model_name if metadata else type(model).__name__
    notes: tuple[str, ...] = ()
    if metadata and metadata.protocol:
        protocol = metadata.protocol
    else:
        protocol, notes = _protocol_by_name(metadata)
    multi_label = any(known.multi_label for known in (metadata, info) if known)
    return ReadyModel(model, name, classifier.shape[0], protocol, class_names, multi_label, notes)


def _of_weights(name: str | None, weights: str | os.PathLike[str] | None) -> ReadyModel:
    """A model by its name, its YAML file, or what the weights say of themselves."""
    if weights is None:
        known = f"{name} would have random weights" if name else "no model is given"
        raise ValueError(
            f"{known}; give the file of its weights (--weights x.pyth): of a run of yours, "
            "output/.../checkpoints/best.pyth (docs/fine_tuning.md), or published ones (docs/predict.md says "
            "where they are)"
        )
    path = os.fspath(weights)
    checkpoint = read_checkpoint(path)
    theirs = pyslowfast_config(checkpoint)
    # A name that is given goes before what PySlowFast's config says: it stands for the published testing.
    said = own_metadata(checkpoint, path) or (config_metadata(theirs) if theirs and not name else None)
    is_told = said is not None
    asked = _config_of(name) if name else None
    asked_name = asked.MODEL.NAME if asked else name
    if said is None:
        if asked_name is None:
            raise ValueError(
                f"{path} does not say which model it is of; give its name or its YAML file (--model), one of "
                f"{', '.join(list_models('*x*'))}"
            )
        arguments = model_kwargs(asked) if asked else {}
        arguments["num_classes"] = _num_classes(checkpoint, asked_name, path)
        said = Metadata(model_name=asked_name, model_arguments=arguments)
    elif asked_name not in (None, said.model_name):
        raise ValueError(
            f"{path} holds a {said.model_name}, but {asked_name} was asked for; leave the model out: the "
            "weights say it themselves"
        )
    if is_told:
        check_size(said.model_name, said.model_arguments, path)
    model = create_model(said.model_name, **said.model_arguments)
    info = load_weights(model, checkpoint)
    protocol = said.protocol
    notes: tuple[str, ...] = ()
    if asked and (protocol is None or _is_yaml(str(name))):  # a file asked for by its path is meant
        protocol = config_protocol(asked)
    elif protocol is None:
        protocol, notes = _protocol_by_name(said)
    recipe = asked if _is_yaml(str(name)) else theirs
    multi_label = said.multi_label if recipe is None else recipe.MODEL.LOSS_FUNC == "bce_logit"
    made = metadata_of(model)
    assert made is not None
    labels = None if info.class_names is None else tuple(info.class_names)
    # Whoever saves, exports or explains this model finds it there.
    model.metadata = replace(made, protocol=protocol, labels=labels, multi_label=multi_label)  # type: ignore[assignment]
    return ReadyModel(
        model,
        said.model_name,
        int(model.state_dict(keep_vars=True)[_CLASSIFIER].shape[0]),
        protocol,
        info.class_names,
        multi_label,
        notes,
    )


def _num_classes(checkpoint: Mapping[str, Any], name: str, path: str) -> int:
    """Number of classes of the classifier in weights for the registered model `name`."""
    state = find_state_dict(checkpoint)
    if _CLASSIFIER not in state:
        # Of a family whose published names another one shares, the class decides.
        try:
            _, state = to_our_names(state, model_class(name).__name__)
        except ValueError as error:
            raise ValueError(f"{path} cannot be loaded into {name}: {error}") from None
    if _CLASSIFIER not in state:
        raise ValueError(
            f"{path} holds no classifier, so there are no classes to predict; give weights that were trained "
            "with labels (docs/fine_tuning.md trains a classifier on a folder of videos)"
        )
    return int(state[_CLASSIFIER].shape[0])


def _is_yaml(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _config_of(name: str) -> CfgNode | None:
    """The config that `name` is the path or the name of, or that of the registered model `name`; None for a
    registered model that has none."""
    if _is_yaml(name):
        return load_config(name)
    models = list_models()
    if name in models:
        published = published_config(name)
        return published[1] if published else None
    files = {path.stem: path for path in CONFIGS.glob("*.yaml")}
    if name not in files:
        guess = nearest(name, [*models, *files])
        raise ValueError(
            f"no model and no file of configs/ is named {name!r}"
            + (f"; did you mean {guess}?" if guess else "; see `vidformers.list_models()`")
        )
    return load_config(files[name])


def _protocol_by_name(metadata: Metadata | None) -> tuple[Protocol, tuple[str, ...]]:
    """The protocol of the YAML file named like the model, else the usual one; and a note that says so."""
    arguments: dict[str, Any] = {}
    published = None
    if metadata:
        arguments = {**model_arguments(metadata.model_name), **metadata.model_arguments}
        published = published_config(metadata.model_name)
    if published:
        file_name, cfg = published
        protocol = config_protocol(cfg)
        note = f"Clips and views are those of {file_name}."
    else:
        protocol = Protocol(
            num_frames=DEFAULT_FRAMES,
            sampling_rate=4,
            num_temporal_views=5,
            num_spatial_crops=1,
            short_side=256,
            crop_size=DEFAULT_CROP,
        )
        name = metadata.model_name if metadata else "this model"
        note = (
            f"Neither the weights nor a file of configs/ say how {name} is tested; the usual protocol is "
            "assumed."
        )
    return of_size(protocol, arguments.get("num_frames"), arguments.get("image_size")), (note,)
