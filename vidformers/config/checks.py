"""Checks of a complete config: ranges of keys, and keys that must agree with each other or with the model."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from fvcore.common.config import CfgNode

from vidformers.config.defaults import CHOICES
from vidformers.config.values import get, nearest

_AT_LEAST_ONE = (
    "DATA.NUM_FRAMES",
    "DATA.SAMPLING_RATE",
    "DATA.TRAIN_CROP_SIZE",
    "DATA.TEST_CROP_SIZE",
    "DATA.MAX_FRAME_PIXELS",
    "DATA_LOADER.PREFETCH_MB",
    "TRAIN.BATCH_SIZE",
    "TRAIN.EVAL_PERIOD",
    "TRAIN.CHECKPOINT_PERIOD",
    "TRAIN.MICRO_BATCHES",
    "TEST.BATCH_SIZE",
    "TEST.NUM_ENSEMBLE_VIEWS",
    "TEST.NUM_SPATIAL_CROPS",
    "ABLATION.NUM_DRAWS",
    "AUG.NUM_SAMPLE",
    "AUG.RE_COUNT",
    "PRETRAIN.DECODER_DIM",
    "PRETRAIN.DECODER_HEADS",
    "SOLVER.MAX_EPOCH",
    "LOG_PERIOD",
)
_NOT_NEGATIVE = (
    "MODEL.NUM_CLASSES",
    "AUG.COLOR_JITTER",
    "MIXUP.ALPHA",
    "MIXUP.CUTMIX_ALPHA",
    "SOLVER.WARMUP_EPOCHS",
    "SOLVER.WARMUP_START_LR",
    "SOLVER.COSINE_END_LR",
    "SOLVER.MOMENTUM",
    "SOLVER.DAMPENING",
    "SOLVER.WEIGHT_DECAY",
    "ABLATION.TUBELET",
    "DATA.READ_TIMEOUT",
    "TRAIN.CHECKPOINT_STEPS",
    "TRAIN.KEEP_CHECKPOINTS",
    "PRETRAIN.DECODER_DEPTH",
    "DATA_LOADER.NUM_WORKERS",
    "RNG_SEED",
)
_POSITIVE = (
    "DATA.TARGET_FPS",
    "DATA.FRAMES_FPS",
    "SOLVER.BASE_LR",
    "SOLVER.CLIP_GRAD_VAL",
    "SOLVER.CLIP_GRAD_L2NORM",
)
_FRACTIONS = (
    "AUG.RE_PROB",
    "SOLVER.EMA_DECAY",
    "MIXUP.PROB",
    "MIXUP.SWITCH_PROB",
    "MIXUP.LABEL_SMOOTH_VALUE",
    "DATA.MAX_BAD_VIDEO_FRACTION",
    "PRETRAIN.MASK_RATIO",
)
# Lists of numbers: the lengths they may have.
_LENGTHS: Mapping[str, tuple[int, ...]] = {
    "DATA.TRAIN_JITTER_SCALES": (2,),
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": (0, 2),
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": (0, 2),
    "DATA.MEAN": (3,),
    "DATA.STD": (3,),
    "PRETRAIN.MASK_UNIT": (3,),
    "SOLVER.BETAS": (2,),
    "SOLVER.STEPS": (),
    "SOLVER.LRS": (),
}


def check_config(cfg: CfgNode, *, where: Callable[[str], str] = lambda key: "") -> None:
    """Raise ValueError for the first key whose value cannot work; `where(key)` follows its name."""

    def fail(key: str, problem: str) -> None:
        raise ValueError(f"{key} is {get(cfg, key)!r}{where(key)}; {problem}.")

    for key, choices in CHOICES.items():
        if get(cfg, key) not in choices:
            guess = nearest(get(cfg, key), list(choices))
            fail(key, f"wanted one of {', '.join(choices)}" + (f" (did you mean {guess}?)" if guess else ""))
    for key in _AT_LEAST_ONE:
        if get(cfg, key) < 1:
            fail(key, "wanted at least 1")
    for key in _NOT_NEGATIVE:
        if not 0 <= get(cfg, key) < math.inf:
            fail(key, "wanted 0 or more")
    for key in _POSITIVE:
        if get(cfg, key) is not None and not 0 < get(cfg, key) < math.inf:
            fail(key, "wanted more than 0" + (", or None for no clipping" if "CLIP" in key else ""))
    for key in _FRACTIONS:
        if not 0 <= get(cfg, key) <= 1:
            fail(key, "wanted a number from 0 to 1")
    for key, lengths in _LENGTHS.items():
        values = get(cfg, key)
        if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in values):
            fail(key, "wanted a list of numbers")
        if lengths and len(values) not in lengths:
            fail(key, f"wanted {' or '.join(str(length) for length in lengths)} numbers")
    if "://" in cfg.OUTPUT_DIR:  # appending and renaming, which object stores cannot do
        fail("OUTPUT_DIR", "wanted a folder; write there, and copy it to a store afterwards")
    if cfg.RNG_SEED >= 2**63:
        fail("RNG_SEED", "wanted a number below 2^63, which is what torch takes")
    _check_ablation(cfg, fail)
    _check_data(cfg, fail)
    _check_solver(cfg, fail)
    _check_model(cfg, fail, where)
    _check_pretraining(cfg, fail)


Fail = Callable[[str, str], None]


def _check_ablation(cfg: CfgNode, fail: Fail) -> None:
    names = cfg.ABLATION.PERTURBATIONS
    if not names or not all(isinstance(name, str) for name in names):
        fail("ABLATION.PERTURBATIONS", "wanted a list of names, such as ['shuffle', 'reverse']")
    if cfg.ABLATION.NUM_RESAMPLES < 100:
        fail("ABLATION.NUM_RESAMPLES", "wanted at least 100; 10000 for intervals to publish")


def _check_pretraining(cfg: CfgNode, fail: Fail) -> None:
    if not cfg.PRETRAIN.ENABLE:
        return
    for key, why in {
        "TEST.ENABLE": "pre-training makes no classifier that could be tested",
        "ABLATION.ENABLE": "pre-training makes no classifier that could be tested",
        "MIXUP.ENABLE": "pre-training has no labels to mix",
    }.items():
        if get(cfg, key):
            fail(key, f"PRETRAIN.ENABLE is True, and {why}; set it to False")
    if cfg.MODEL.FREEZE:
        fail("MODEL.FREEZE", "PRETRAIN.ENABLE is True, which trains all from random weights; set []")
    if any(not isinstance(size, int) or size < 1 for size in cfg.PRETRAIN.MASK_UNIT):
        fail("PRETRAIN.MASK_UNIT", "wanted three whole numbers (t, h, w) of at least 1")
    if cfg.TRAIN.CHECKPOINT_FILE_PATH:
        fail(
            "TRAIN.CHECKPOINT_FILE_PATH", 'PRETRAIN.ENABLE is True, which starts from random weights; set ""'
        )
    if cfg.SOLVER.LAYER_DECAY != 1:
        fail(
            "SOLVER.LAYER_DECAY", "PRETRAIN.ENABLE is True, which has one rate for all layers; set it to 1.0"
        )


def _check_data(cfg: CfgNode, fail: Fail) -> None:
    data, mixup = cfg.DATA, cfg.MIXUP
    if min(data.STD) <= 0:
        fail("DATA.STD", "wanted numbers above 0")
    short, long = data.TRAIN_JITTER_SCALES
    if not (0 < short <= long and short == int(short) and long == int(long)):
        fail("DATA.TRAIN_JITTER_SCALES", "wanted whole pixels, the smaller number first, such as [256, 320]")
    if bool(data.TRAIN_JITTER_SCALES_RELATIVE) != bool(data.TRAIN_JITTER_ASPECT_RELATIVE):
        fail(
            "DATA.TRAIN_JITTER_SCALES_RELATIVE",
            f"DATA.TRAIN_JITTER_ASPECT_RELATIVE is {data.TRAIN_JITTER_ASPECT_RELATIVE}: give both, such as "
            "[0.08, 1.0] and "
            "[0.75, 1.3333], or neither",
        )
    if data.TRAIN_JITTER_SCALES_RELATIVE:
        low, high = data.TRAIN_JITTER_SCALES_RELATIVE
        if not 0 < low <= high <= 1:
            fail(
                "DATA.TRAIN_JITTER_SCALES_RELATIVE",
                "wanted fractions of the frame's area, such as [0.08, 1.0]",
            )
        low, high = data.TRAIN_JITTER_ASPECT_RELATIVE
        if not 0 < low <= high:
            fail("DATA.TRAIN_JITTER_ASPECT_RELATIVE", "wanted aspect ratios, such as [0.75, 1.3333]")
    elif data.TRAIN_JITTER_MOTION_SHIFT:
        fail(
            "DATA.TRAIN_JITTER_MOTION_SHIFT",
            "it moves a random resized crop; set DATA.TRAIN_JITTER_SCALES_RELATIVE and "
            "DATA.TRAIN_JITTER_ASPECT_RELATIVE, such as [0.08, 1.0] and [0.75, 1.3333], or False",
        )
    elif short < data.TRAIN_CROP_SIZE:
        fail(
            "DATA.TRAIN_CROP_SIZE",
            f"it does not fit into frames whose short side is {short} pixels (DATA.TRAIN_JITTER_SCALES); use "
            "a smaller crop "
            "or larger scales",
        )
    if cfg.TEST.NUM_SPATIAL_CROPS == 1 and short < data.TEST_CROP_SIZE:
        fail(
            "DATA.TEST_CROP_SIZE",
            f"it does not fit into frames whose short side is {short} pixels (DATA.TRAIN_JITTER_SCALES[0], "
            "to which videos "
            "are resized for 1-crop testing); use a smaller crop or larger scales",
        )
    if cfg.AUG.AA_TYPE and not cfg.AUG.AA_TYPE.startswith("rand-"):
        fail(
            "AUG.AA_TYPE", 'wanted a RandAugment description such as rand-m7-n4-mstd0.5-inc1, or "" for none'
        )
    if mixup.ENABLE:
        if cfg.MODEL.LOSS_FUNC != "soft_cross_entropy":
            fail(
                "MIXUP.ENABLE",
                f"its targets are distributions, but MODEL.LOSS_FUNC is {cfg.MODEL.LOSS_FUNC!r}; set "
                "MODEL.LOSS_FUNC to "
                "soft_cross_entropy",
            )
        if mixup.PROB > 0 and mixup.ALPHA == mixup.CUTMIX_ALPHA == 0:
            fail(
                "MIXUP.ENABLE",
                "MIXUP.ALPHA and MIXUP.CUTMIX_ALPHA are both 0; set MIXUP.PROB to 0 for smoothing only",
            )


def _check_solver(cfg: CfgNode, fail: Fail) -> None:
    solver = cfg.SOLVER
    if solver.WARMUP_EPOCHS > solver.MAX_EPOCH:
        fail("SOLVER.WARMUP_EPOCHS", f"wanted at most SOLVER.MAX_EPOCH, which is {solver.MAX_EPOCH}")
    if solver.LR_POLICY == "cosine":
        if solver.COSINE_END_LR > solver.BASE_LR:
            fail("SOLVER.COSINE_END_LR", f"wanted at most SOLVER.BASE_LR, which is {solver.BASE_LR}")
        if solver.COSINE_AFTER_WARMUP and solver.WARMUP_EPOCHS == solver.MAX_EPOCH:
            fail(
                "SOLVER.WARMUP_EPOCHS",
                "it leaves no epoch of SOLVER.MAX_EPOCH for the cosine after the warm-up",
            )
    else:
        steps = list(solver.STEPS)
        if not steps or steps[0] != 0 or steps != sorted(set(steps)):
            fail("SOLVER.STEPS", "wanted rising epochs, the first one 0, such as [0, 20, 25]")
        if len(steps) != len(solver.LRS):
            fail("SOLVER.LRS", f"wanted one number for each of the {len(steps)} SOLVER.STEPS")
        if not all(0 <= rate < math.inf for rate in solver.LRS):
            fail("SOLVER.LRS", "wanted numbers of 0 or more, such as [1, 0.1, 0.01]")
    if not 0 < solver.LAYER_DECAY <= 1:
        fail("SOLVER.LAYER_DECAY", "wanted more than 0 and at most 1")
    if not all(0 <= beta < 1 for beta in solver.BETAS):
        fail("SOLVER.BETAS", "wanted numbers from 0 to below 1")
    if solver.CLIP_GRAD_VAL is not None and solver.CLIP_GRAD_L2NORM is not None:
        fail(
            "SOLVER.CLIP_GRAD_VAL",
            f"SOLVER.CLIP_GRAD_L2NORM is {solver.CLIP_GRAD_L2NORM}; set one of the two to None",
        )
    if (
        solver.OPTIMIZING_METHOD == "sgd"
        and solver.NESTEROV
        and (solver.MOMENTUM == 0 or solver.DAMPENING != 0)
    ):
        fail("SOLVER.NESTEROV", "it needs SOLVER.MOMENTUM above 0 and SOLVER.DAMPENING 0")


def _check_model(cfg: CfgNode, fail: Fail, where: Callable[[str], str]) -> None:
    # Imported here: reading a config is quick, and the models need torch.
    from vidformers.models.registry import list_models, model_arguments

    name = cfg.MODEL.NAME
    models = list_models()
    if name not in models:
        guess = nearest(name, models)
        fail("MODEL.NAME", f"did you mean {guess}?" if guess else f"the models are {', '.join(models)}")
    known = model_arguments(name)
    for key, value in cfg.MODEL.ARGS.items():
        dotted = f"MODEL.ARGS.{key}"
        if key not in known:
            guess = nearest(key, list(known))
            raise ValueError(
                f"Unknown key {dotted}{where(dotted)}; "
                + (f"did you mean MODEL.ARGS.{guess}?" if guess else f"{name} takes {', '.join(known)}.")
            )
        if not _same_kind(value, known[key]):
            fail(dotted, f"wanted a value like {name}'s default, {known[key]!r}")

    arguments = {**known, **cfg.MODEL.ARGS}
    for argument, key in (
        ("num_frames", "DATA.NUM_FRAMES"),
        ("image_size", "DATA.TRAIN_CROP_SIZE"),
        ("num_classes", "MODEL.NUM_CLASSES"),
    ):
        if argument in cfg.MODEL.ARGS and cfg.MODEL.ARGS[argument] != get(cfg, key):
            fail(
                f"MODEL.ARGS.{argument}",
                f"{key} is {get(cfg, key)}; leave {argument} out, and the model is built for {key}",
            )
    stride = arguments.get("patch_stride")
    if isinstance(stride, (list, tuple)) and len(stride) == 3:
        _check_divisible(cfg, "DATA.NUM_FRAMES", stride[0], "temporal patch stride", fail)
        for key in ("DATA.TRAIN_CROP_SIZE", "DATA.TEST_CROP_SIZE"):
            _check_divisible(cfg, key, math.lcm(stride[1], stride[2]), "spatial patch stride", fail)


def _same_kind(value: Any, default: Any) -> bool:
    """Whether an argument can be meant: a number for a number, and so on. A None default takes anything."""
    if default is None or value is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, str) or isinstance(value, str):
        return isinstance(default, str) and isinstance(value, str)
    if isinstance(default, (list, tuple)):
        return isinstance(value, (list, tuple))
    return isinstance(value, (int, float, list, tuple))  # (height, width) can stand for a size


def _check_divisible(cfg: CfgNode, key: str, stride: int, what: str, fail: Fail) -> None:
    size = get(cfg, key)
    if size % stride:
        below, above = size - size % stride, size - size % stride + stride
        use = f"{below} or {above}" if below else str(above)
        raise ValueError(
            f"{key}={size} is not divisible by the {what} {stride} of {cfg.MODEL.NAME}; use {use}."
        )
