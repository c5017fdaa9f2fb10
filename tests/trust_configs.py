"""Configs that nobody would write: values of every key, a few keys at a time.

Each is tried: a step of training and a test of two videos. `ran`: both came to their end. `refused`: a
sentence for people says why not. Anything else is broken.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import simplejson

from vidformers.config.defaults import CHOICES, get_defaults

# Values of the keys that CHOICES does not have: sound ones, limits, and some that cannot work with others.
_VALUES: dict[str, Sequence[object]] = {
    "MODEL.NAME": ("vit_tiny", "swin_tiny", "uniformer_tiny", "hiera_tiny"),
    "MODEL.NUM_CLASSES": (0, 1, 2, 5),
    "MODEL.FREEZE": ("[]", "['backbone']", "['nothing']", "['blocks', 'head']"),
    "DATA.PATH_TO_DATA_DIR": ("", "/nowhere"),
    "DATA.PATH_PREFIX": ("/nowhere",),
    "DATA.PATH_LABEL_SEPARATOR": (",", "", "\\t"),
    "DATA.SPLIT_NUMBER": (1, 2, 0),
    "DATA.FRAMES_FPS": (30.0, 0.0),
    "DATA.INDEX_CACHE": ("", "cache"),
    "DATA.READ_TIMEOUT": (0.0, 60.0, -1.0),
    "DATA.MAX_FRAME_PIXELS": (0, 1, 36000000),
    "DATA.NUM_FRAMES": (0, 1, 2, 7, 8),
    "DATA.SAMPLING_RATE": (0, 1, 100),
    "DATA.TARGET_FPS": (0.0, 0.5, 30.0, float("inf")),
    "DATA.USE_OFFSET_SAMPLING": (True, False),
    "DATA.TRAIN_CROP_SIZE": (1, 16, 33, 64),
    "DATA.TEST_CROP_SIZE": (1, 16, 40, 64),
    "DATA.TRAIN_JITTER_SCALES": ("[32, 40]", "[8, 9]", "[40, 32]", "[36]", "[]"),
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": ("[]", "[0.08, 1.0]", "[2.0, 3.0]", "[1.0]"),
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": ("[]", "[0.75, 1.33]", "[0, 1]"),
    "DATA.TRAIN_JITTER_MOTION_SHIFT": (True, False),
    "DATA.INV_UNIFORM_SAMPLE": (True, False),
    "DATA.RANDOM_FLIP": (True, False),
    "DATA.MEAN": ("[0, 0, 0]", "[0.5]", "[.nan, 0, 0]"),
    "DATA.STD": ("[0.2, 0.2, 0.2]", "[0, 0, 0]", "[1, 1]"),
    "DATA.MAX_BAD_VIDEO_FRACTION": (0.0, 1.0, 2.0),
    "TRAIN.ENABLE": (True, False),
    "TRAIN.DATASET": ("kinetics", "folder", "ssv2", "nonsense"),
    "TRAIN.BATCH_SIZE": (0, 1, 2, 9),
    "TRAIN.EVAL_PERIOD": (0, 1),
    "TRAIN.CHECKPOINT_PERIOD": (0, 1),
    "TRAIN.CHECKPOINT_STEPS": (0, 1, -1),
    "TRAIN.KEEP_CHECKPOINTS": (0, 1, -1),
    "TRAIN.AUTO_RESUME": (True, False),
    "TRAIN.CHECKPOINT_FILE_PATH": ("", "/nowhere.pyth"),
    "TRAIN.MICRO_BATCHES": (0, 1, 3),
    "PRETRAIN.ENABLE": (True, False),
    "PRETRAIN.MASK_RATIO": (0.0, 0.5, 1.0),
    "PRETRAIN.MASK_UNIT": ("[1, 1, 1]", "[2, 2, 2]", "[0, 1, 1]", "[1]"),
    "PRETRAIN.DECODER_DIM": (0, 24, 25),
    "PRETRAIN.DECODER_DEPTH": (0, 1),
    "PRETRAIN.DECODER_HEADS": (0, 2, 5),
    "PRETRAIN.NORMALIZE_PIXELS": (True, False),
    "TEST.ENABLE": (True, False),
    "TEST.DATASET": ("kinetics", "folder", "nonsense"),
    "TEST.BATCH_SIZE": (0, 1, 7),
    "TEST.NUM_ENSEMBLE_VIEWS": (0, 1, 3),
    "TEST.NUM_SPATIAL_CROPS": (0, 1, 2, 3),
    "TEST.CHECKPOINT_FILE_PATH": ("", "/nowhere.pyth"),
    "ABLATION.ENABLE": (True, False),
    "ABLATION.PERTURBATIONS": ("['shuffle']", "[]", "['nonsense']", "['reverse', 'reverse']"),
    "ABLATION.NUM_DRAWS": (0, 1),
    "ABLATION.NUM_RESAMPLES": (0, 10),
    "ABLATION.TUBELET": (-1, 0, 2),
    "ABLATION.COMPARE": ("", "/nowhere"),
    "AUG.ENABLE": (True, False),
    "AUG.NUM_SAMPLE": (0, 1, 2),
    "AUG.AA_TYPE": ("", "rand-m7-n4-mstd0.5-inc1", "nonsense", "rand-m99-n0"),
    "AUG.COLOR_JITTER": (0.0, 0.4, 3.0),
    "AUG.RE_PROB": (0.0, 1.0, 2.0),
    "AUG.RE_COUNT": (0, 1, 3),
    "MIXUP.ENABLE": (True, False),
    "MIXUP.ALPHA": (0.0, 0.8, -1.0),
    "MIXUP.CUTMIX_ALPHA": (0.0, 1.0),
    "MIXUP.PROB": (0.0, 1.0, 2.0),
    "MIXUP.SWITCH_PROB": (0.0, 1.0),
    "MIXUP.LABEL_SMOOTH_VALUE": (0.0, 0.1, 1.5),
    "SOLVER.BASE_LR": (0.0, 1e-3, 1e30, -1.0),
    "SOLVER.STEPS": ("[]", "[0, 1]", "[1, 0]"),
    "SOLVER.LRS": ("[]", "[1.0, 0.1]", "[1.0]"),
    "SOLVER.MAX_EPOCH": (0, 1, 1000),
    "SOLVER.WARMUP_EPOCHS": (0.0, 5.0, -1.0),
    "SOLVER.WARMUP_START_LR": (0.0, 1.0),
    "SOLVER.COSINE_END_LR": (0.0, 1.0),
    "SOLVER.COSINE_AFTER_WARMUP": (True, False),
    "SOLVER.MOMENTUM": (0.0, 0.9, 1.5),
    "SOLVER.DAMPENING": (0.0, 0.5),
    "SOLVER.NESTEROV": (True, False),
    "SOLVER.BETAS": ("[0.9, 0.999]", "[0.9]", "[1.0, 2.0]"),
    "SOLVER.WEIGHT_DECAY": (0.0, 0.05, -1.0),
    "SOLVER.ZERO_WD_1D_PARAM": (True, False),
    "SOLVER.ZERO_DECAY_POS_CLS": (True, False),
    "SOLVER.LAYER_DECAY": (0.0, 0.7, 1.0),
    "SOLVER.EMA_DECAY": (0.0, 0.9, 1.0),
    "SOLVER.CLIP_GRAD_VAL": ("None", 1.0, 0.0),
    "SOLVER.CLIP_GRAD_L2NORM": ("None", 1.0, -1.0),
    "DATA_LOADER.NUM_WORKERS": (0, -1),
    "DATA_LOADER.PREFETCH_MB": (0, 1),
    "DATA_LOADER.PIN_MEMORY": (True, False),
    "RNG_SEED": (0, -1, 2**31),
    "LOG_PERIOD": (0, 1),
}
# Each would take minutes, processes of its own, or files beside the run: compiling, FSDP, TensorBoard, a
# folder to write in.
LEFT_OUT = ("MODEL.COMPILE", "TRAIN.SHARD", "TENSORBOARD.ENABLE", "OUTPUT_DIR")
VALUES = {**_VALUES, **CHOICES}
_BASE = """
MODEL: {NAME: mvit_tiny, NUM_CLASSES: 2, ARGS: {}}
DATA: {NUM_FRAMES: 4, TRAIN_CROP_SIZE: 32, TEST_CROP_SIZE: 32, TRAIN_JITTER_SCALES: [36, 40]}
TRAIN: {BATCH_SIZE: 4}
TEST: {NUM_ENSEMBLE_VIEWS: 1}
DATA_LOADER: {NUM_WORKERS: 0}
DEVICE: cpu
"""


def make_lists(folder: Path) -> Path:
    """Eight tiny videos of two classes to train on, two of them to test."""
    from tests.conftest import write_video

    rows = []
    for number in range(8):
        write_video(folder / f"{number}.mp4", number)
        rows.append(f"{folder}/{number}.mp4 {number % 2}\n")
    for split, count in (("train", 8), ("val", 8), ("test", 2)):
        (folder / f"{split}.csv").write_text("".join(rows[:count]))
    return folder


def all_keys() -> list[str]:
    """Every key of the schema but MODEL.ARGS, whose names are the model's."""

    def below(node: Mapping[str, Any], prefix: str) -> Iterator[str]:
        for name, value in node.items():
            if isinstance(value, Mapping):
                yield from below(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}"

    return list(below(get_defaults(), ""))


def covering(keys_each: int, *, seed: int) -> list[dict[str, object]]:
    """Configs of at most so many keys in which each value of each key stands once."""
    pairs = [(key, value) for key, values in VALUES.items() for value in values]
    Random(seed).shuffle(pairs)
    configs: list[dict[str, object]] = []
    for key, value in pairs:
        free = (config for config in configs if len(config) < keys_each and key not in config)
        config = next(free, None)
        if config is None:
            configs.append(config := {})
        config[key] = value
    return configs


def drawn(count: int, *, seed: int) -> list[dict[str, object]]:
    """Configs of one to eight keys."""
    configs = []
    for number in range(count):
        random = Random(f"{seed} {number}")
        keys = random.sample(sorted(VALUES), random.randint(1, 8))
        configs.append({key: random.choice(VALUES[key]) for key in keys})
    return configs


@dataclass(frozen=True)
class Tried:
    """outcome: "ran", "refused" or "broken"; reason: what was said."""

    outcome: str
    reason: str


def attempt(chosen: Mapping[str, object], *, data: Path) -> Tried:
    """What comes of a config for the videos of `data`, a folder of lists."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            _run(chosen, data, Path(folder))
        except (ValueError, FileNotFoundError, ImportError) as error:
            said = str(error)
            # A subclass, such as UnicodeDecodeError or a library's own, was not written for people.
            is_ours = type(error) in (ValueError, FileNotFoundError, ImportError)
            if is_ours and len(said) > 20 and "Traceback" not in said:
                return Tried("refused", said)
            return Tried("broken", f"{type(error).__name__}: {error}")
        except Exception as error:
            return Tried("broken", f"{type(error).__name__}: {error}")
    return Tried("ran", "")


def _run(chosen: Mapping[str, object], data: Path, folder: Path) -> None:
    from vidformers.config import load_config
    from vidformers.engine.build import load_videos
    from vidformers.engine.model import with_num_classes
    from vidformers.engine.pretrain import Pretrainer
    from vidformers.engine.test import test
    from vidformers.engine.train import Trainer

    path = folder / "run.yaml"
    path.write_text(_BASE)
    overrides = {"DATA.PATH_TO_DATA_DIR": data, "OUTPUT_DIR": folder / "out", **chosen}
    cfg = load_config(str(path), [str(word) for pair in overrides.items() for word in pair])
    (folder / "out").mkdir()
    training = [load_videos(cfg, "train"), load_videos(cfg, "val")] if cfg.TRAIN.ENABLE else []
    tested = load_videos(cfg, "test") if cfg.TEST.ENABLE or cfg.ABLATION.ENABLE else None
    cfg = with_num_classes(cfg, [*training, *([tested] if tested else [])]) if training or tested else cfg
    if cfg.ABLATION.ENABLE:
        from vidformers.engine.ablate import check_ablation

        check_ablation(cfg)
    if training:
        trainer = (Pretrainer if cfg.PRETRAIN.ENABLE else Trainer)(cfg, *training)
        trainer.loader.set_epoch(0)  # type: ignore[attr-defined]
        batch = next(iter(trainer.loader))
        trainer._count_failures(batch["failures"])
        clips, targets = trainer._prepare(batch, np.random.default_rng(0))
        loss, _, _ = trainer.train_step(clips, targets)
        assert isinstance(loss, float)
    if cfg.TEST.ENABLE and tested:
        test(cfg, tested)


def attempt_all(configs: Sequence[Mapping[str, object]], data: Path) -> list[Tried]:
    """All of them, in a process that one may take with it."""
    from tqdm import tqdm

    from vidformers.data.prepare.isolated import WorkerFailure, run_isolated

    outcomes: list[Tried] = [Tried("broken", "not tried")] * len(configs)
    function = functools.partial(_numbered, data=data)
    with tqdm(total=len(configs), desc="configs") as bar:
        for (number, _), tried in run_isolated(
            function, list(enumerate(map(dict, configs))), num_workers=1, time_limit=120
        ):
            lost = isinstance(tried, WorkerFailure)
            outcomes[number] = Tried("broken", f"{tried.reason}: {tried.detail}") if lost else tried
            bar.update()
    return outcomes


def _numbered(numbered: tuple[int, dict[str, object]], *, data: Path) -> Tried:
    import contextlib
    import io
    import warnings

    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(io.StringIO()):
        return attempt(numbered[1], data=data)


def table(configs: Sequence[Mapping[str, object]], outcomes: Sequence[Tried]) -> dict[str, object]:
    """The figures."""
    count = {name: sum(tried.outcome == name for tried in outcomes) for name in ("ran", "refused")}
    return {
        "configs": len(configs),
        "keys": len({key for config in configs for key in config}),
        "values": len({(key, str(value)) for config in configs for key, value in config.items()}),
        **count,
        "broken": [
            {"config": simplejson.dumps(dict(config)), "reason": tried.reason}
            for config, tried in zip(configs, outcomes, strict=True)
            if tried.outcome == "broken"
        ],
    }
