"""The testing protocol that a config describes, and what a checkpoint says of itself by the config in it."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from vidformers.checkpoints.metadata import Metadata, Protocol, bounded
from vidformers.checkpoints.read import read_checkpoint
from vidformers.config.defaults import OPEN_SECTIONS, get_defaults
from vidformers.config.pyslowfast import translate_pyslowfast
from vidformers.config.values import Tree, has, leaves, merge_into, put
from vidformers.engine.model import model_kwargs


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

    Keys that this version does not have are passed over: the run may be older. ValueError for a text that is
    no config.
    """
    text = checkpoint.get("config")
    if "vidformers" not in checkpoint or not isinstance(text, str):
        return None
    schema = get_defaults()
    kept: Tree = {}
    try:
        for key, value in leaves(yaml.load(text, _Flat)):
            if has(schema, key) or key.rpartition(".")[0] in OPEN_SECTIONS:
                put(kept, key, value)
        return _resolved(kept)
    except (ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        told = " ".join(str(error).split())[:200]
        raise ValueError(f"its config cannot be understood ({told})") from None


class _Flat(yaml.SafeLoader):
    """Without repeated parts that hold others: thirty such lines of a stranger have a thousand million
    leaves."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        repeated = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if repeated and not isinstance(node, yaml.ScalarNode):
            assert node is not None
            if not all(isinstance(part, yaml.ScalarNode) for part in node.value):
                raise ValueError("it repeats parts that hold others")
        return node


def config_metadata(cfg: CfgNode, labels: Sequence[str] | None = None) -> Metadata:
    """What `cfg` says of the model that it trains. Raises ValueError for a model that is not registered, and
    a protocol by which no video can be tested."""
    return Metadata(
        model_name=cfg.MODEL.NAME,
        model_arguments=model_kwargs(cfg),
        protocol=None if cfg.PRETRAIN.ENABLE else bounded(config_protocol(cfg)),
        labels=None if labels is None else tuple(labels),
        multi_label=cfg.MODEL.LOSS_FUNC == "bce_logit",
    )


def own_metadata(checkpoint: Mapping[str, Any], where: str) -> Metadata | None:
    """What a checkpoint of a run of ours, or a file with metadata that `read_checkpoint` has read, says of
    itself; None of other checkpoints. Raises ValueError, naming `where`, for what cannot be understood."""
    header = checkpoint.get("metadata")
    if isinstance(header, Metadata):
        return header
    names = checkpoint.get("class_names")
    try:
        cfg = checkpoint_config(checkpoint)
        return None if cfg is None else config_metadata(cfg, names if isinstance(names, list) else None)
    except ValueError as error:
        raise ValueError(f"what {where} says of itself cannot be understood: {error}") from None


def run_metadata(path: str) -> Metadata | None:
    """What a checkpoint of a run says of itself: of ours, or of PySlowFast; None where it says nothing.
    Raises as `read_checkpoint` and `own_metadata`."""
    checkpoint = read_checkpoint(path)
    theirs = pyslowfast_config(checkpoint)
    return own_metadata(checkpoint, path) or (config_metadata(theirs) if theirs else None)


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
