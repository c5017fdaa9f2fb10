"""The model of a config."""

from collections.abc import Sequence
from typing import Any

from fvcore.common.config import CfgNode
from torch import nn

from vidformers.data.records import VideoList, check_labels
from vidformers.engine.logs import say
from vidformers.models.registry import create_model, model_arguments


def model_kwargs(cfg: CfgNode) -> dict[str, Any]:
    """Arguments for `create_model(cfg.MODEL.NAME, ...)`: MODEL.ARGS, and what other keys say about the model.

    A model that takes `num_frames`, `image_size` or `num_classes` is built for DATA.NUM_FRAMES,
    DATA.TRAIN_CROP_SIZE and MODEL.NUM_CLASSES, unless MODEL.ARGS gives them.
    """
    known = model_arguments(cfg.MODEL.NAME)
    from_config = {
        "num_frames": cfg.DATA.NUM_FRAMES,
        "image_size": cfg.DATA.TRAIN_CROP_SIZE,
        "num_classes": cfg.MODEL.NUM_CLASSES,
    }
    kwargs = {name: value for name, value in from_config.items() if name in known}
    kwargs.update({name: _tuples(value) for name, value in cfg.MODEL.ARGS.items()})
    return kwargs


def build_model(cfg: CfgNode) -> nn.Module:
    """The model of `cfg` with random weights. Raises ValueError for arguments that cannot work."""
    if not cfg.MODEL.NUM_CLASSES:
        raise ValueError(
            "MODEL.NUM_CLASSES is 0, which tools/run_net.py replaces by the number of classes of the videos; "
            "to build a model without videos, set it to the number of classes"
        )
    return create_model(cfg.MODEL.NAME, **model_kwargs(cfg))


def with_num_classes(cfg: CfgNode, lists: Sequence[VideoList]) -> CfgNode:
    """`cfg` with the number of classes of the first of `lists` where MODEL.NUM_CLASSES is 0, which is said.

    Raises ValueError if a label of another list does not fit.
    """
    if cfg.MODEL.NUM_CLASSES:
        return cfg
    names = lists[0].class_names
    highest = max(max((record.label, *(record.labels or ()))) for record in lists[0].records)
    count = len(names) if names else highest + 1
    for videos in lists:
        check_labels(videos.records, count, source=videos.source)
    say(f"MODEL.NUM_CLASSES is {count}, the number of classes of {lists[0].source}.")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.NUM_CLASSES = count
    cfg.freeze()
    return cfg


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value
