"""What a weights file says of itself: its model, how clips are taken from a video, and the classes.

In a .safetensors file it is JSON under the key "vidformers" of the header, which is read without the weights.
A model that `create_model` made carries the same as `model.metadata`.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from torch import Tensor, nn

KEY = "vidformers"
# Arguments that are of the recipe, and not of the model: whoever trains on gives his own.
OF_TRAINING = (
    "drop_path_rate",
    "dropout_rate",
    "head_dropout_rate",
    "head_init_scale",
    "activation_checkpointing",
    "reversible_backward",
)
_MOST_VALUES = 1 << 34


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Which frames and which pixels of a video are tested (docs/protocol.md), named as `TestVideos` does.

    A clip is `num_frames` frames, `sampling_rate` apart at `target_fps` frames a second; there are
    `num_temporal_views` clips x `num_spatial_crops` crops of `crop_size` pixels after the short side was
    scaled to `short_side`. Pixels in 0..1 lose `mean` and are divided by `std`, red, green and blue.
    """

    num_frames: int
    sampling_rate: int
    target_fps: float = 30.0
    temporal_sampling: str = "slowfast"
    use_offset: bool = True
    num_temporal_views: int
    num_spatial_crops: int
    short_side: int
    crop_size: int
    resize_mode: str = "uint8"
    ensemble_method: str = "sum"
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """`create_model(model_name, **model_arguments)` is the model.

    `protocol`, `labels` (class names in the order of the logits) and `source` (the project whose names the
    weights had before, as in `LoadInfo`) are None where they are not known. `multi_label`: a video has a set
    of classes, so that probabilities are a sigmoid a class; else a softmax over all of them.
    """

    model_name: str
    model_arguments: dict[str, Any] = field(default_factory=dict)
    protocol: Protocol | None = None
    labels: tuple[str, ...] | None = None
    source: str | None = None
    multi_label: bool = False

    def __post_init__(self) -> None:
        # JSON has lists only: so that what is read equals what was written.
        object.__setattr__(self, "model_arguments", _tuples(self.model_arguments))


def metadata_of(model: nn.Module) -> Metadata | None:
    """What is known of a model: None if `create_model` did not make it."""
    found = getattr(model, "metadata", None)
    return found if isinstance(found, Metadata) else None


def class_probabilities(logits: Tensor, *, multi_label: bool) -> Tensor:
    """Logits (B, K) -> probabilities float32 (B, K): of each class for itself, or of one class of all."""
    return logits.float().sigmoid() if multi_label else logits.float().softmax(dim=1)


def of_size(protocol: Protocol, num_frames: Any, image_size: Any) -> Protocol:
    """The protocol with clips of `num_frames` frames and `image_size` pixels, the short side in proportion;
    what is not a whole number (a model need not have it) changes nothing."""
    if isinstance(num_frames, int):
        protocol = replace(protocol, num_frames=num_frames)
    if isinstance(image_size, int) and image_size != protocol.crop_size:
        short_side = round(protocol.short_side * image_size / protocol.crop_size)
        protocol = replace(protocol, crop_size=image_size, short_side=short_side)
    return protocol


def to_json(metadata: Metadata) -> str:
    """All of it as JSON. Raises TypeError for model arguments that are not plain data."""
    return json.dumps(asdict(metadata))


def to_header(metadata: Metadata) -> dict[str, str]:
    """The header of a .safetensors file. Raises as `to_json`."""
    return {"format": "pt", KEY: to_json(metadata)}


def from_header(header: Mapping[str, str] | None, where: str) -> Metadata | None:
    """Metadata of a header, None where it has none; ValueError, naming the file, if they are broken."""
    if not header or KEY not in header:
        return None
    try:
        given = json.loads(header[KEY])
        if not isinstance(given.get("multi_label", False), bool):
            raise ValueError(f"multi_label is {given['multi_label']!r}; wanted true or false")
        protocol = given.get("protocol")
        labels = given.get("labels")
        known = {f.name for f in fields(Metadata)} - {"model_arguments", "protocol", "labels"}
        return Metadata(
            model_arguments=given.get("model_arguments", {}),
            protocol=None if protocol is None else bounded(Protocol(**_tuples(protocol))),
            labels=None if labels is None else tuple(map(str, labels)),
            **{name: given[name] for name in known if name in given},
        )
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"the metadata of {where} cannot be understood ({error}); they were written by a later version, "
            "or by hand: convert the original again with tools/convert_checkpoint.py"
        ) from None


def bounded(protocol: Protocol) -> Protocol:
    """The protocol, if a video can be tested so: a file of a stranger may ask for a million views.

    ValueError else.
    """
    counts = [
        getattr(protocol, name)
        for name in ("num_frames", "num_temporal_views", "num_spatial_crops", "short_side", "crop_size")
    ]
    if not all(isinstance(count, int) and 1 <= count <= 10_000 for count in counts):
        raise ValueError(f"its protocol has {counts}; wanted whole numbers from 1 to 10000")
    # Of frames twice as wide as high; the crops share them.
    if (values := math.prod(counts[:2]) * 6 * protocol.short_side**2) > _MOST_VALUES:
        raise ValueError(f"by its protocol the frames of one video take {values / 1e9:.0f} GB")
    return protocol


def read_metadata(path: str | os.PathLike[str]) -> Metadata | None:
    """Metadata of a weights file; None for other files than .safetensors, and where there are none.

    Reads the header alone. FileNotFoundError and ValueError as `read_checkpoint`.
    """
    from vidformers.checkpoints.read import read_header, weights_file

    path = weights_file(os.fspath(path))
    return from_header(read_header(path), path) if path.endswith(".safetensors") else None


def _tuples(value: Any) -> Any:
    """Lists, at any depth, as tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
