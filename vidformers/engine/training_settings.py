"""The settings that have a say in training: what differs from a checkpoint's, and what config.yaml keeps."""

from pathlib import Path

from fvcore.common.config import CfgNode

from vidformers.config import load_config
from vidformers.config.defaults import OPEN_SECTIONS
from vidformers.config.values import leaves, put
from vidformers.engine.checkpoint import list_checkpoints

# All others have a say, so that a new key is among them.
WITHOUT_A_SAY = (
    "TEST", "ABLATION", "DATA_LOADER", "TENSORBOARD", "DEVICE", "OUTPUT_DIR", "LOG_PERIOD", "TRAIN.ENABLE",
    "TRAIN.AUTO_RESUME", "TRAIN.CHECKPOINT_PERIOD", "TRAIN.CHECKPOINT_STEPS", "TRAIN.KEEP_CHECKPOINTS",
    "DATA.INDEX_CACHE", "DATA.MAX_BAD_VIDEO_FRACTION", "DATA.USE_OFFSET_SAMPLING", "DATA.TEST_CROP_SIZE",
    "DATA.RESIZE_MODE", "DATA.ENSEMBLE_METHOD",
)  # fmt: skip


def changed_settings(old: CfgNode, new: CfgNode) -> dict[str, str]:
    """Keys with a say in training that differ, each with a text `KEY old -> new`."""
    before, after = _training(old), _training(new)
    return {
        key: f"{key} {before.get(key, 'unset')} -> {after.get(key, 'unset')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    }


def with_training_of(trained: CfgNode, cfg: CfgNode) -> CfgNode:
    """`cfg` with all that has a say in training as `trained` has it."""
    result = cfg.clone()
    result.defrost()
    result.MODEL.ARGS = trained.MODEL.ARGS.clone()
    for key, value in _training(trained).items():
        put(result, key, value)
    result.freeze()
    return result


def settings_without_training(cfg: CfgNode) -> CfgNode:
    """What config.yaml says after a command without training: `cfg`, and where OUTPUT_DIR has the weights of
    a training, the settings of that as the present config.yaml has them."""
    output = Path(cfg.OUTPUT_DIR)
    if not list_checkpoints(output / "checkpoints"):
        return cfg
    try:
        return with_training_of(load_config(output / "config.yaml"), cfg)
    except (OSError, ValueError):
        return cfg  # it was deleted or spoilt, or has keys that are gone


def _training(cfg: CfgNode) -> dict[str, object]:
    return {
        key: value
        for key, value in leaves(cfg)
        if key not in OPEN_SECTIONS  # without anything in it
        and not any(key == name or key.startswith(f"{name}.") for name in WITHOUT_A_SAY)
    }
