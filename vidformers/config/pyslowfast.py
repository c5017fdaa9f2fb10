"""PySlowFast's YAML files for transformer classifiers, translated to this library's keys. The only place that
knows them.

Facts about PySlowFast (key names, defaults, what its code does with them) are those of its repository of
March 2026. A key it knows falls into one of these kinds:
 * translated: has a counterpart here;
 * not supported here: an error unless it has the value that turns it off;
 * without effect in PySlowFast or here: accepted; one warning lists those that were set to something;
 * irrelevant to the results (NUM_GPUS, BN.*, ...): accepted silently.
"""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vidformers.config.values import Tree, get, has, merge_into, put

# PySlowFast's keys with its own defaults: a file counts on those of the keys it leaves out.
PYSLOWFAST_DEFAULTS: Tree = {
    "TASK": "",
    "NUM_GPUS": 1,
    "NUM_SHARDS": 1,
    "SHARD_ID": 0,
    "OUTPUT_DIR": ".",
    "RNG_SEED": 1,
    "LOG_PERIOD": 10,
    "LOG_MODEL_INFO": True,
    "DIST_BACKEND": "nccl",
    "INIT_METHOD": "tcp://localhost:9999",
    "MODEL": {
        "MODEL_NAME": "SlowFast",
        "ARCH": "slowfast",
        "NUM_CLASSES": 400,
        "LOSS_FUNC": "cross_entropy",
        "HEAD_ACT": "softmax",
        "DROPOUT_RATE": 0.5,
        "DROPCONNECT_RATE": 0.0,
        "FC_INIT_STD": 0.01,
        "ACT_CHECKPOINT": False,
        "DETACH_FINAL_FC": False,
        "FP16_ALLREDUCE": False,
        "FROZEN_BN": False,
        "SINGLE_PATHWAY_ARCH": [],
        "MULTI_PATHWAY_ARCH": [],
    },
    "MVIT": {
        "MODE": "conv",
        "POOL_FIRST": False,
        "SEPARATE_QKV": False,
        "QKV_BIAS": True,
        "CLS_EMBED_ON": True,
        "USE_MEAN_POOLING": False,
        "PATCH_KERNEL": [3, 7, 7],
        "PATCH_STRIDE": [2, 4, 4],
        "PATCH_PADDING": [2, 4, 4],
        "PATCH_2D": False,
        "EMBED_DIM": 96,
        "NUM_HEADS": 1,
        "DEPTH": 16,
        "MLP_RATIO": 4.0,
        "NORM": "layernorm",
        "NORM_STEM": False,
        "DIM_MUL": [],
        "HEAD_MUL": [],
        "DIM_MUL_IN_ATT": False,
        "POOL_Q_STRIDE": [],
        "POOL_KV_STRIDE": [],
        "POOL_KV_STRIDE_ADAPTIVE": [],
        "POOL_KVQ_KERNEL": [],
        "USE_ABS_POS": True,
        "SEP_POS_EMBED": False,
        "USE_FIXED_SINCOS_POS": False,
        "REL_POS_SPATIAL": False,
        "REL_POS_TEMPORAL": False,
        "REL_POS_ZERO_INIT": False,
        "RESIDUAL_POOLING": False,
        "DROPPATH_RATE": 0.1,
        "DROPOUT_RATE": 0.0,
        "ZERO_DECAY_POS_CLS": True,
        "HEAD_INIT_SCALE": 1.0,
        "LAYER_SCALE_INIT_VALUE": 0.0,
        "REV": {
            "ENABLE": False,
            "RESPATH_FUSE": "concat",
            "BUFFER_LAYERS": [],
            "RES_PATH": "conv",
            "PRE_Q_FUSION": "avg",
        },
    },
    "DATA": {
        "PATH_TO_DATA_DIR": "",
        "PATH_PREFIX": "",
        "PATH_LABEL_SEPARATOR": " ",
        "NUM_FRAMES": 8,
        "SAMPLING_RATE": 8,
        "TARGET_FPS": 30.0,
        "USE_OFFSET_SAMPLING": False,
        "TRAIN_JITTER_FPS": 0.0,
        "TRAIN_CROP_SIZE": 224,
        "TEST_CROP_SIZE": 256,
        "TRAIN_JITTER_SCALES": [256, 320],
        "TRAIN_JITTER_SCALES_RELATIVE": [],
        "TRAIN_JITTER_ASPECT_RELATIVE": [],
        "TRAIN_JITTER_MOTION_SHIFT": False,
        "INV_UNIFORM_SAMPLE": False,
        "RANDOM_FLIP": True,
        "MEAN": [0.45, 0.45, 0.45],
        "STD": [0.225, 0.225, 0.225],
        "INPUT_CHANNEL_NUM": [3, 3],
        "REVERSE_INPUT_CHANNEL": False,
        "DECODING_BACKEND": "torchvision",
        "DECODING_SHORT_SIZE": 256,
        "MULTI_LABEL": False,
        "ENSEMBLE_METHOD": "sum",
        "IN_VAL_CROP_RATIO": 0.875,
        "IN22K_TRAINVAL": False,
        "TRAIN_CROP_NUM_TEMPORAL": 1,
        "TRAIN_CROP_NUM_SPATIAL": 1,
        "DUMMY_LOAD": False,
    },
    "TRAIN": {
        "ENABLE": True,
        "DATASET": "kinetics",
        "BATCH_SIZE": 64,
        "EVAL_PERIOD": 10,
        "CHECKPOINT_PERIOD": 10,
        "AUTO_RESUME": True,
        "MIXED_PRECISION": False,
        "CHECKPOINT_FILE_PATH": "",
        "CHECKPOINT_TYPE": "pytorch",
        "CHECKPOINT_INFLATE": False,
        "CHECKPOINT_EPOCH_RESET": False,
        "CHECKPOINT_CLEAR_NAME_PATTERN": [],
        "CHECKPOINT_IN_INIT": False,
        "KILL_LOSS_EXPLOSION_FACTOR": 0.0,
    },
    "TEST": {
        "ENABLE": True,
        "DATASET": "kinetics",
        "BATCH_SIZE": 8,
        "NUM_ENSEMBLE_VIEWS": 10,
        "NUM_SPATIAL_CROPS": 3,
        "NUM_TEMPORAL_CLIPS": [],
        "CHECKPOINT_FILE_PATH": "",
        "CHECKPOINT_TYPE": "pytorch",
        "SAVE_RESULTS_PATH": "",
    },
    "AUG": {
        "ENABLE": False,
        "NUM_SAMPLE": 1,
        "AA_TYPE": "rand-m9-mstd0.5-inc1",
        "INTERPOLATION": "bicubic",
        "COLOR_JITTER": 0.4,
        "RE_PROB": 0.25,
        "RE_MODE": "pixel",
        "RE_COUNT": 1,
        "RE_SPLIT": False,
        "GEN_MASK_LOADER": False,
    },
    "MIXUP": {
        "ENABLE": False,
        "ALPHA": 0.8,
        "CUTMIX_ALPHA": 1.0,
        "PROB": 1.0,
        "SWITCH_PROB": 0.5,
        "LABEL_SMOOTH_VALUE": 0.1,
    },
    "SOLVER": {
        "BASE_LR": 0.1,
        "BASE_LR_SCALE_NUM_SHARDS": False,
        "LR_POLICY": "cosine",
        "STEPS": [],
        "LRS": [],
        "MAX_EPOCH": 300,
        "WARMUP_EPOCHS": 0.0,
        "WARMUP_START_LR": 0.01,
        "WARMUP_FACTOR": 0.1,
        "COSINE_END_LR": 0.0,
        "COSINE_AFTER_WARMUP": False,
        "GAMMA": 0.1,
        "STEP_SIZE": 1,
        "OPTIMIZING_METHOD": "sgd",
        "MOMENTUM": 0.9,
        "NESTEROV": True,
        "DAMPENING": 0.0,
        "BETAS": [0.9, 0.999],
        "WEIGHT_DECAY": 1e-4,
        "ZERO_WD_1D_PARAM": False,
        "LAYER_DECAY": 1.0,
        "CLIP_GRAD_VAL": None,
        "CLIP_GRAD_L2NORM": None,
        "LARS_ON": False,
    },
    "DATA_LOADER": {"NUM_WORKERS": 8, "PIN_MEMORY": True, "ENABLE_MULTI_THREAD_DECODE": False},
    # Sections that a transformer classifier's file may hold; only the keys that would switch them on matter.
    "MASK": {"ENABLE": False},
    "DETECTION": {"ENABLE": False},
    "MULTIGRID": {"LONG_CYCLE": False, "SHORT_CYCLE": False},
    "DEMO": {"ENABLE": False},
    "TENSORBOARD": {"ENABLE": False},
    "CONTRASTIVE": {},
    "BN": {},
    "AVA": {},
    "VIS_MASK": {},
    "BENCHMARK": {},
    "NONLOCAL": {},
    "RESNET": {},
    "SLOWFAST": {},
    "X3D": {},
    "PREFETCH": {"NUM_LOADERS": 0},
}

_OPEN_SECTIONS = frozenset(
    {"MASK", "DETECTION", "MULTIGRID", "DEMO", "TENSORBOARD", "CONTRASTIVE", "BN", "AVA"}
    | {"VIS_MASK", "BENCHMARK", "NONLOCAL", "RESNET", "SLOWFAST", "X3D"}
)

# Keys whose default is None in PySlowFast, or for which its files write None to leave them out.
_NONE_IS_DEFAULT: Mapping[str, tuple[str, ...]] = {
    "MVIT": ("POOL_KV_STRIDE_ADAPTIVE", "POOL_KVQ_KERNEL"),
    "AUG": ("COLOR_JITTER",),
}

# Not supported unless at the default value, which turns each of them off: key -> what it is.
_UNSUPPORTED: Mapping[str, str] = {
    "MASK.ENABLE": "masked pre-training",
    "AUG.GEN_MASK_LOADER": "masked pre-training",
    "DETECTION.ENABLE": "action detection",
    "MULTIGRID.LONG_CYCLE": "multigrid training",
    "MULTIGRID.SHORT_CYCLE": "multigrid training",
    "DEMO.ENABLE": "the demo",
    "DATA.TRAIN_JITTER_FPS": "random frame rates",
    "DATA.TRAIN_CROP_NUM_TEMPORAL": "several clips of a video in a training batch",
    "DATA.TRAIN_CROP_NUM_SPATIAL": "several crops of a clip in a training batch",
    "DATA.DUMMY_LOAD": "training on one repeated batch",
    "DATA.IN_VAL_CROP_RATIO": "another crop ratio of ImageNet testing",
    "TRAIN.CHECKPOINT_TYPE": "a Caffe2 checkpoint",
    "TEST.CHECKPOINT_TYPE": "a Caffe2 checkpoint",
    "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN": "renaming of checkpoint entries",
    "TRAIN.KILL_LOSS_EXPLOSION_FACTOR": "stopping on loss explosions",
    "SOLVER.LARS_ON": "LARS",
}

# Accepted, and named in the warning when set to something else than their default.
_IGNORED: Mapping[str, str] = {
    "DATA.DECODING_SHORT_SIZE": "PySlowFast does not use it either",
    "DATA.IN22K_TRAINVAL": "PySlowFast does not use it either",
    "SOLVER.WARMUP_FACTOR": "PySlowFast does not use it either",
    "SOLVER.STEP_SIZE": "PySlowFast does not use it either",
    "AUG.RE_SPLIT": "PySlowFast does not use it either",
    "MVIT.LAYER_SCALE_INIT_VALUE": "PySlowFast builds no layer scale from it either",
    "MODEL.FP16_ALLREDUCE": "gradients are exchanged in full precision",
    "TRAIN.CHECKPOINT_IN_INIT": "2D weights are inflated as CHECKPOINT_INFLATE does",
    "TEST.SAVE_RESULTS_PATH": "results are in OUTPUT_DIR",
    "PREFETCH.NUM_LOADERS": "unknown to PySlowFast's released code too",
}

# PySlowFast reads the frames of these datasets with OpenCV, blue first; those of the others red first.
_BLUE_FIRST_DATASETS = ("ssv2", "charades", "ava")

# Same name and meaning on both sides.
_SAME_NAME = (
    *("OUTPUT_DIR", "RNG_SEED", "LOG_PERIOD", "MODEL.NUM_CLASSES", "MODEL.LOSS_FUNC"),
    *(f"DATA.{key}" for key in ("PATH_TO_DATA_DIR", "PATH_PREFIX", "PATH_LABEL_SEPARATOR")),
    *(f"DATA.{key}" for key in ("NUM_FRAMES", "SAMPLING_RATE", "TARGET_FPS", "USE_OFFSET_SAMPLING")),
    *(f"DATA.{key}" for key in ("TRAIN_CROP_SIZE", "TEST_CROP_SIZE", "TRAIN_JITTER_SCALES", "RANDOM_FLIP")),
    *(f"DATA.{key}" for key in ("TRAIN_JITTER_SCALES_RELATIVE", "TRAIN_JITTER_ASPECT_RELATIVE")),
    *("DATA.TRAIN_JITTER_MOTION_SHIFT", "DATA.INV_UNIFORM_SAMPLE"),
    *("DATA.ENSEMBLE_METHOD", "DATA.MEAN", "DATA.STD"),
    *(f"TRAIN.{key}" for key in ("ENABLE", "DATASET", "BATCH_SIZE", "EVAL_PERIOD", "CHECKPOINT_PERIOD")),
    *(f"TRAIN.{key}" for key in ("AUTO_RESUME", "CHECKPOINT_FILE_PATH")),
    *(
        f"TEST.{key}"
        for key in ("ENABLE", "DATASET", "BATCH_SIZE", "NUM_ENSEMBLE_VIEWS", "NUM_SPATIAL_CROPS")
    ),
    "TEST.CHECKPOINT_FILE_PATH",
    *(f"AUG.{key}" for key in ("ENABLE", "NUM_SAMPLE", "AA_TYPE", "INTERPOLATION", "RE_PROB", "RE_MODE")),
    "AUG.RE_COUNT",
    *(f"MIXUP.{key}" for key in PYSLOWFAST_DEFAULTS["MIXUP"]),
    *(
        f"SOLVER.{key}"
        for key in ("BASE_LR", "WARMUP_START_LR", "COSINE_END_LR", "LR_POLICY", "STEPS", "LRS")
    ),
    *(f"SOLVER.{key}" for key in ("MAX_EPOCH", "WARMUP_EPOCHS", "COSINE_AFTER_WARMUP", "OPTIMIZING_METHOD")),
    *(f"SOLVER.{key}" for key in ("MOMENTUM", "NESTEROV", "DAMPENING", "BETAS", "WEIGHT_DECAY")),
    *(f"SOLVER.{key}" for key in ("ZERO_WD_1D_PARAM", "LAYER_DECAY", "CLIP_GRAD_VAL", "CLIP_GRAD_L2NORM")),
    *("DATA_LOADER.NUM_WORKERS", "DATA_LOADER.PIN_MEMORY", "TENSORBOARD.ENABLE"),
)

Where = Callable[[str], str]


def _nowhere(key: str) -> str:
    return ""


def is_pyslowfast(tree: Mapping[str, Any]) -> bool:
    """Whether a key tree is PySlowFast's rather than ours: it has an MVIT section, MODEL_NAME or ARCH."""
    model = tree.get("MODEL")
    return "MVIT" in tree or (isinstance(model, Mapping) and ("MODEL_NAME" in model or "ARCH" in model))


def knows_key(key: str) -> bool:
    """Whether PySlowFast has the dotted key (for sections that are not checked: any key below them)."""
    return has(PYSLOWFAST_DEFAULTS, key) or key.partition(".")[0] in _OPEN_SECTIONS


def translate_pyslowfast(
    tree: Mapping[str, Any], *, ignored: Sequence[str] = (), where: Where = _nowhere
) -> Tree:
    """PySlowFast's key tree -> ours, with PySlowFast's defaults for the keys it leaves out.

    The model becomes MODEL.NAME "mvit" or "rev_mvit", with every constructor argument in MODEL.ARGS. One
    warning lists all settings that have no effect here, `ignored` first. `where(key)` is appended to a key in
    errors, as " (file, line n)".

    Raises ValueError for unknown keys (with the nearest name), wrong types, and what this library does not
    support.
    """
    full = _resolve(tree, where)
    notes = list(ignored)
    _check_model_name(tree, where)
    for key, what in _UNSUPPORTED.items():
        if get(full, key) != get(PYSLOWFAST_DEFAULTS, key):
            raise ValueError(
                f"{key} is {get(full, key)!r}{where(key)}: {what} is not supported yet; the only value "
                "supported is "
                f"{get(PYSLOWFAST_DEFAULTS, key)!r}."
            )
    for key, why in _IGNORED.items():
        if get(full, key) != get(PYSLOWFAST_DEFAULTS, key):
            notes.append(f"{key} {get(full, key)!r} ({why})")
    if full["CONTRASTIVE"]:
        notes.append("CONTRASTIVE (its model is not the one of this file)")

    if full["MVIT"]["REV"]["ENABLE"] and full["MVIT"]["CLS_EMBED_ON"]:
        # Such is the official Kinetics file. PySlowFast refuses it; its published weights have no such token.
        notes.append("MVIT.CLS_EMBED_ON True (with MVIT.REV.ENABLE no class token: it is left out)")

    ours: Tree = {}
    for key in _SAME_NAME:
        put(ours, key, copy.deepcopy(get(full, key)))
    reversible = full["MVIT"]["REV"]["ENABLE"]
    arguments = (rev_mvit_arguments if reversible else mvit_arguments)(tree, where=where)
    # These three follow from DATA and MODEL.NUM_CLASSES, so that overriding those keys changes the model too.
    for name in ("num_frames", "image_size", "num_classes"):
        del arguments[name]
    ours["MODEL"]["NAME"] = "rev_mvit" if reversible else "mvit"
    ours["MODEL"]["ARGS"] = arguments
    _translate_data(full, ours, where)
    _translate_augmentation(full, ours, notes)
    _translate_run(full, ours, notes, where)
    if notes:
        warnings.warn(f"Settings of this PySlowFast config without effect: {'; '.join(notes)}.", stacklevel=2)
    return ours


def mvit_arguments(tree: Mapping[str, Any], *, where: Where = _nowhere) -> dict[str, Any]:
    """Constructor arguments of `vidformers.models.MViT` for a PySlowFast key tree, with PySlowFast's defaults
    applied.

    Raises ValueError for a tree that PySlowFast could not build either, and for reversible models.
    """
    full = _resolve(tree, where)
    mvit, model, data = full["MVIT"], full["MODEL"], full["DATA"]
    if mvit["REV"]["ENABLE"]:
        raise ValueError(
            f"MVIT.REV.ENABLE is True{where('MVIT.REV.ENABLE')}: this is a RevMViT, see rev_mvit_arguments."
        )
    if mvit["NORM"] != "layernorm":
        raise ValueError(f"MVIT.NORM is {mvit['NORM']!r}{where('MVIT.NORM')}; only 'layernorm' exists.")
    if data["INPUT_CHANNEL_NUM"][:1] != [3]:
        raise ValueError(
            f"DATA.INPUT_CHANNEL_NUM is {data['INPUT_CHANNEL_NUM']}{where('DATA.INPUT_CHANNEL_NUM')}; clips "
            "have 3 "
            "channels, so wanted [3]."
        )

    kernel, stride, padding = (mvit[key] for key in ("PATCH_KERNEL", "PATCH_STRIDE", "PATCH_PADDING"))
    axes = 2 if mvit["PATCH_2D"] else 3
    for key in ("PATCH_KERNEL", "PATCH_STRIDE", "PATCH_PADDING"):
        if len(mvit[key]) != axes:
            raise ValueError(
                f"MVIT.{key} is {mvit[key]}{where(f'MVIT.{key}')}; with MVIT.PATCH_2D {mvit['PATCH_2D']} it "
                "needs "
                f"{axes} numbers."
            )
    if mvit["PATCH_2D"]:  # an image is a clip of one frame
        kernel, stride, padding = [1, *kernel], [1, *stride], [0, *padding]

    return {
        "num_frames": 1 if mvit["PATCH_2D"] else data["NUM_FRAMES"],
        "image_size": data["TRAIN_CROP_SIZE"],
        "in_channels": 3,
        "num_classes": model["NUM_CLASSES"],
        "patch_kernel": tuple(kernel),
        "patch_stride": tuple(stride),
        "patch_padding": tuple(padding),
        "embed_dim": mvit["EMBED_DIM"],
        "depth": mvit["DEPTH"],
        "num_heads": mvit["NUM_HEADS"],
        "mlp_ratio": mvit["MLP_RATIO"],
        "qkv_bias": mvit["QKV_BIAS"],
        "dim_mul": _rows(full, "MVIT.DIM_MUL", 2, where),
        "head_mul": _rows(full, "MVIT.HEAD_MUL", 2, where),
        "dim_mul_in_attention": mvit["DIM_MUL_IN_ATT"],
        "pool_mode": mvit["MODE"],
        "pool_first": mvit["POOL_FIRST"],
        "separate_qkv": mvit["SEPARATE_QKV"],
        "pool_kvq_kernel": tuple(mvit["POOL_KVQ_KERNEL"]) or None,
        "pool_q_stride": _rows(full, "MVIT.POOL_Q_STRIDE", 4, where),
        "pool_kv_stride": ()
        if mvit["POOL_KV_STRIDE_ADAPTIVE"]  # which overwrites POOL_KV_STRIDE
        else _rows(full, "MVIT.POOL_KV_STRIDE", 4, where),
        "pool_kv_stride_adaptive": tuple(mvit["POOL_KV_STRIDE_ADAPTIVE"]) or None,
        "residual_pooling": mvit["RESIDUAL_POOLING"],
        "class_token": mvit["CLS_EMBED_ON"],
        "mean_pooling": mvit["USE_MEAN_POOLING"],
        "position_embedding": _position_embedding(mvit, where),
        "norm_stem": mvit["NORM_STEM"],
        "rel_pos_spatial": mvit["REL_POS_SPATIAL"],
        "rel_pos_temporal": mvit["REL_POS_TEMPORAL"],
        "rel_pos_zero_init": mvit["REL_POS_ZERO_INIT"],
        "drop_path_rate": mvit["DROPPATH_RATE"],
        "dropout_rate": mvit["DROPOUT_RATE"],
        "head_dropout_rate": model["DROPOUT_RATE"],
        "head_init_scale": mvit["HEAD_INIT_SCALE"],
        "activation_checkpointing": model["ACT_CHECKPOINT"],
    }


def rev_mvit_arguments(tree: Mapping[str, Any], *, where: Where = _nowhere) -> dict[str, Any]:
    """The same of `vidformers.models.RevMViT`, for a tree with MVIT.REV.ENABLE True. No class token."""
    full = _resolve(tree, where)
    rev = full["MVIT"]["REV"]
    if rev["RES_PATH"] != "conv":
        raise ValueError(
            f"MVIT.REV.RES_PATH is {rev['RES_PATH']!r}{where('MVIT.REV.RES_PATH')}; only 'conv' is supported "
            "('max' fails in PySlowFast)."
        )
    common = copy.deepcopy(dict(tree))
    common["MVIT"] = {key: value for key, value in common["MVIT"].items() if key != "REV"}
    arguments = mvit_arguments(common, where=where)
    for name in ("class_token", "dim_mul_in_attention"):  # it has none; always there
        del arguments[name]
    return {
        **arguments,
        "buffer_layers": tuple(rev["BUFFER_LAYERS"]),
        "pre_q_fusion": rev["PRE_Q_FUSION"],
        "respath_fusion": rev["RESPATH_FUSE"],
        "res_path": rev["RES_PATH"],
    }


def _resolve(tree: Mapping[str, Any], where: Where) -> Tree:
    """All of PySlowFast's keys with their values in `tree`, or else their defaults."""
    full = copy.deepcopy(PYSLOWFAST_DEFAULTS)
    values = copy.deepcopy(dict(tree))
    # None is how PySlowFast's files leave these out.
    for section, keys in _NONE_IS_DEFAULT.items():
        given = values.get(section)
        for key in keys:
            if isinstance(given, dict) and given.get(key, "") in (None, "None"):
                del given[key]
    merge_into(full, values, PYSLOWFAST_DEFAULTS, where=where, open_sections=_OPEN_SECTIONS)
    return full


def _check_model_name(tree: Mapping[str, Any], where: Where) -> None:
    name = (tree.get("MODEL") or {}).get("MODEL_NAME", "MViT" if "MVIT" in tree else "SlowFast")
    if name != "MViT":
        raise ValueError(
            f"MODEL.MODEL_NAME is {name!r}{where('MODEL.MODEL_NAME')}, which is not among the transformers "
            "that are read "
            "from PySlowFast files; wanted 'MViT' (its ViT and MViT classifiers)."
        )


def _rows(full: Tree, key: str, length: int, where: Where) -> tuple[tuple[Any, ...], ...]:
    """A list of lists as nested tuples; each row begins with a block number."""
    rows = get(full, key)
    for row in rows:
        if not isinstance(row, list) or len(row) != length:
            numbers = "[block, factor]" if length == 2 else "[block, t, h, w]"
            raise ValueError(f"{key} has the row {row!r}{where(key)}; each row is {numbers}.")
    return tuple(tuple(row) for row in rows)


def _position_embedding(mvit: Tree, where: Where) -> str:
    if mvit["USE_FIXED_SINCOS_POS"]:
        if mvit["SEP_POS_EMBED"] or not mvit["USE_ABS_POS"]:
            raise ValueError(
                f"MVIT.USE_FIXED_SINCOS_POS is True{where('MVIT.USE_FIXED_SINCOS_POS')}, which needs "
                "MVIT.USE_ABS_POS True "
                "and MVIT.SEP_POS_EMBED False."
            )
        return "sincos"
    if not mvit["USE_ABS_POS"]:
        return "none"
    return "separable" if mvit["SEP_POS_EMBED"] else "joint"


def _translate_data(full: Tree, ours: Tree, where: Where) -> None:
    data = full["DATA"]
    # PySlowFast's torchvision reader no longer exists; both of its readers give the frames that ours gives.
    backend = data["DECODING_BACKEND"]
    ours["DATA"]["DECODING_BACKEND"] = "pyav" if backend == "torchvision" else backend
    if full["TRAIN"]["DATASET"] == "imagenet":
        ours["DATA"]["DECODING_BACKEND"] = "frames"
    if full["MVIT"]["PATCH_2D"]:  # an image is a clip of one frame, whatever NUM_FRAMES says
        ours["DATA"]["NUM_FRAMES"] = 1
    # What PySlowFast's dataset classes do: a frame a segment; frames exactly SAMPLING_RATE apart.
    rules = {"ssv2": "segment", "charades": "uniform"}
    ours["DATA"]["TEMPORAL_SAMPLING"] = rules.get(full["TRAIN"]["DATASET"], "slowfast")
    activation = "sigmoid" if data["MULTI_LABEL"] else "softmax"
    if full["MODEL"]["HEAD_ACT"] != activation:
        raise ValueError(
            f"MODEL.HEAD_ACT is {full['MODEL']['HEAD_ACT']!r}{where('MODEL.HEAD_ACT')} with DATA.MULTI_LABEL "
            f"{data['MULTI_LABEL']}; the only value supported is {activation!r}."
        )
    if full["MODEL"]["LOSS_FUNC"] == "bce":  # of probabilities there, of logits here: the same loss
        ours["MODEL"]["LOSS_FUNC"] = "bce_logit"
    ours["DATA"]["RESIZE_MODE"] = "float"
    blue_first = full["TRAIN"]["DATASET"] in _BLUE_FIRST_DATASETS
    if data["REVERSE_INPUT_CHANNEL"]:
        if full["TRAIN"]["DATASET"] == "kinetics":
            raise ValueError(
                f"DATA.REVERSE_INPUT_CHANNEL is True{where('DATA.REVERSE_INPUT_CHANNEL')} with TRAIN.DATASET "
                "'kinetics': a "
                "model that sees blue first is not supported; set it to False."
            )
        # PySlowFast normalises first and swaps blue and red afterwards. Frames are red first here, so it is
        # the statistics that have to change places for the model to see the same numbers.
        ours["DATA"]["MEAN"].reverse()
        ours["DATA"]["STD"].reverse()
    elif blue_first:
        raise ValueError(
            f"DATA.REVERSE_INPUT_CHANNEL is False with TRAIN.DATASET {full['TRAIN']['DATASET']!r}, which "
            "PySlowFast reads "
            "blue first: a model that sees blue first is not supported; set it to True."
        )


def _translate_augmentation(full: Tree, ours: Tree, notes: list[str]) -> None:
    jitter = full["AUG"]["COLOR_JITTER"]
    ours["AUG"]["COLOR_JITTER"] = 0.0
    if full["TRAIN"]["DATASET"] == "imagenet" and not full["AUG"]["AA_TYPE"]:
        ours["AUG"]["COLOR_JITTER"] = jitter
    elif jitter != PYSLOWFAST_DEFAULTS["AUG"]["COLOR_JITTER"]:
        notes.append(
            f"AUG.COLOR_JITTER {jitter!r} (PySlowFast uses it for images without AUG.AA_TYPE only; here it "
            "can be set by an override)"
        )
    if ours["DATA"]["TRAIN_JITTER_MOTION_SHIFT"] and not full["DATA"]["TRAIN_JITTER_SCALES_RELATIVE"]:
        ours["DATA"]["TRAIN_JITTER_MOTION_SHIFT"] = False
        notes.append(
            "DATA.TRAIN_JITTER_MOTION_SHIFT True (it moves DATA.TRAIN_JITTER_SCALES_RELATIVE's crop)"
        )
    if full["MODEL"]["DETACH_FINAL_FC"]:  # no gradient passes the classifier
        ours["MODEL"]["FREEZE"] = ["backbone"]


def _translate_run(full: Tree, ours: Tree, notes: list[str], where: Where) -> None:
    if full["TASK"] not in ("", "ssl_eval"):
        raise ValueError(
            f"TASK is {full['TASK']!r}{where('TASK')}: only classification ('' or 'ssl_eval') is supported "
            "yet."
        )
    if full["TASK"] == "ssl_eval" and full["TRAIN"]["ENABLE"] and not full["TRAIN"]["CHECKPOINT_FILE_PATH"]:
        notes.append(
            "TASK 'ssl_eval' (give the pre-trained weights as TRAIN.CHECKPOINT_FILE_PATH; none are looked "
            "for in "
            "OUTPUT_DIR)"
        )
    ours["TRAIN"]["PRECISION"] = "fp16" if full["TRAIN"]["MIXED_PRECISION"] else "fp32"
    ours["TEST"]["PRECISION"] = "fp32"
    if full["TRAIN"]["CHECKPOINT_FILE_PATH"] and not full["TRAIN"]["CHECKPOINT_EPOCH_RESET"]:
        notes.append(
            "TRAIN.CHECKPOINT_EPOCH_RESET False (CHECKPOINT_FILE_PATH gives weights only; a run continues "
            "from its own OUTPUT_DIR by TRAIN.AUTO_RESUME)"
        )
    clips = full["TEST"]["NUM_TEMPORAL_CLIPS"]
    if clips:
        ours["TEST"]["NUM_ENSEMBLE_VIEWS"] = clips[-1]
        if len(clips) > 1:
            notes.append(f"TEST.NUM_TEMPORAL_CLIPS {clips} (tested once, with the last: {clips[-1]} views)")

    solver = full["SOLVER"]
    ours["SOLVER"]["ZERO_DECAY_POS_CLS"] = full["MVIT"]["ZERO_DECAY_POS_CLS"]
    if solver["OPTIMIZING_METHOD"] == "mt_adamw":  # the same mathematics, fused
        ours["SOLVER"]["OPTIMIZING_METHOD"] = "adamw"
    if solver["BASE_LR_SCALE_NUM_SHARDS"]:
        for key in ("BASE_LR", "WARMUP_START_LR", "COSINE_END_LR"):
            ours["SOLVER"][key] = solver[key] * full["NUM_SHARDS"]
    if solver["CLIP_GRAD_VAL"] is not None and solver["CLIP_GRAD_L2NORM"] is not None:
        ours["SOLVER"]["CLIP_GRAD_L2NORM"] = None
        notes.append("SOLVER.CLIP_GRAD_L2NORM (CLIP_GRAD_VAL goes first)")
