"""The model of a config."""

from typing import Any

from fvcore.common.config import CfgNode
from torch import nn

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
    return create_model(cfg.MODEL.NAME, **model_kwargs(cfg))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value
