"""The testing protocol that a config describes, and the config that a checkpoint of a run carries."""

import warnings
from collections.abc import Mapping
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from vidformers.checkpoints.metadata import Protocol
from vidformers.config.defaults import OPEN_SECTIONS, get_defaults
from vidformers.config.pyslowfast import translate_pyslowfast
from vidformers.config.values import Tree, has, leaves, merge_into, put


def view_short_side(cfg: CfgNode, num_crops: int) -> int:
    """Pixels that the short side of a test video is scaled to before `num_crops` crops are taken."""
    # PySlowFast's rule: one crop is taken from the training scale, several from the crop size itself.
    size = cfg.DATA.TEST_CROP_SIZE
    return max(size, cfg.DATA.TRAIN_JITTER_SCALES[0]) if num_crops == 1 else size


def config_protocol(cfg: CfgNode) -> Protocol:
    """How `cfg` tests a video, as plain data."""
    data, test = cfg.DATA, cfg.TEST
    red, green, blue = data.MEAN
    red_std, green_std, blue_std = data.STD
    return Protocol(
        num_frames=data.NUM_FRAMES,
        sampling_rate=data.SAMPLING_RATE,
        target_fps=data.TARGET_FPS,
        temporal_sampling=data.TEMPORAL_SAMPLING,
        use_offset=data.USE_OFFSET_SAMPLING,
        num_temporal_views=test.NUM_ENSEMBLE_VIEWS,
        num_spatial_crops=test.NUM_SPATIAL_CROPS,
        short_side=view_short_side(cfg, test.NUM_SPATIAL_CROPS),
        crop_size=data.TEST_CROP_SIZE,
        resize_mode=data.RESIZE_MODE,
        ensemble_method=data.ENSEMBLE_METHOD,
        mean=(red, green, blue),
        std=(red_std, green_std, blue_std),
    )


def checkpoint_config(checkpoint: Mapping[str, Any]) -> CfgNode | None:
    """The config that a checkpoint of one of our runs was trained with; None of other checkpoints.

    Keys that this version does not have are passed over: the run may be older.
    """
    text = checkpoint.get("config")
    if "vidformers" not in checkpoint or not isinstance(text, str):
        return None
    schema = get_defaults()
    kept: Tree = {}
    for key, value in leaves(yaml.safe_load(text)):
        if has(schema, key) or key.rpartition(".")[0] in OPEN_SECTIONS:
            put(kept, key, value)
    return _resolved(kept)


def pyslowfast_config(checkpoint: Mapping[str, Any]) -> CfgNode | None:
    """The config, in our keys, that a checkpoint of PySlowFast carries; None where there is none, or one that
    this library does not support."""
    text = checkpoint.get("cfg")
    if not isinstance(text, str):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # settings of training that have no effect
            return _resolved(translate_pyslowfast(yaml.safe_load(text)))
    except (ValueError, TypeError, AttributeError, yaml.YAMLError):
        return None


def _resolved(tree: Tree) -> CfgNode:
    cfg = get_defaults()
    merge_into(cfg, tree, get_defaults(), open_sections=OPEN_SECTIONS)
    cfg.freeze()
    return cfg
