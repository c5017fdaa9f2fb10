"""Inputs that nobody would write, drawn by hypothesis: clips, lists, YAML text, whole configs."""

import string
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vidformers.config import load_config
from vidformers.config.defaults import CHOICES
from vidformers.data.clip_sampling import RULES, test_views, train_clip
from vidformers.data.datasets.kinetics import read_list

FAST = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
test_views.__test__ = False

RATES = st.one_of(st.floats(0.001, 1e6), st.sampled_from([29.97, 30.0, 23.976, 1.0]))


# ---- clips


@FAST
@given(
    rule=st.sampled_from(RULES),
    length=st.one_of(st.integers(1, 40), st.integers(1, 10**6)),
    fps=RATES,
    target_fps=RATES,
    num_frames=st.integers(1, 64),
    sampling_rate=st.integers(1, 1000),
    num_views=st.integers(1, 30),
    use_offset=st.booleans(),
    seed=st.integers(0, 99),
)
@example("slowfast", 1, 1e6, 0.001, 64, 1000, 30, True, 0)
@example("slowfast", 10**6, 0.001, 1e6, 16, 4, 10, False, 0)
@example("segment", 3, 30.0, 30.0, 64, 1, 30, True, 0)
def test_clips_lie_in_the_video(
    rule, length, fps, target_fps, num_frames, sampling_rate, num_views, use_offset, seed
):
    clip = {"num_frames": num_frames, "sampling_rate": sampling_rate, "target_fps": target_fps}
    views = test_views(rule, length, fps, **clip, num_views=num_views, use_offset=use_offset)
    one = train_clip(rule, length, fps, **clip, generator=np.random.default_rng(seed))
    assert views.shape == (num_views, num_frames) and one.shape == (num_frames,)
    for indices in (views, one[None]):
        assert indices.dtype == np.int64
        assert indices.min() >= 0 and indices.max() < length
        steps = np.diff(indices, axis=1)
        if rule == "uniform":  # starts over where the video is shorter than the clip
            assert (steps[steps < 0] % length == sampling_rate % length).all()
        else:
            assert (steps >= 0).all()


@FAST
@given(
    length=st.integers(-3, 3),
    num_frames=st.integers(-2, 3),
    fps=st.sampled_from([0.0, -1.0, float("nan"), float("inf"), 30.0]),
    rule=st.sampled_from([*RULES, "other"]),
)
def test_lengths_and_rates_that_are_none_are_named(length, num_frames, fps, rule):
    try:
        views = test_views(
            rule,
            length,
            fps,
            num_frames=num_frames,
            sampling_rate=4,
            target_fps=30.0,
            num_views=2,
            use_offset=True,
        )
    except ValueError as error:
        assert len(str(error)) > 20
    else:
        assert views.min() >= 0 and views.max() < length


# ---- lists

TEXT = st.text(st.characters(codec="utf-8"), max_size=200)
ROWS = st.lists(
    st.tuples(
        st.text(string.ascii_letters + "/. -_,\t\"'é\u2028", min_size=1, max_size=30),
        st.one_of(
            st.integers(-2, 10**20).map(str), st.sampled_from(["", "x", "1.5", "+3", "٣", "1e3", "0x2"])
        ),
    ).map(" ".join),
    max_size=8,
).map("\n".join)


@FAST
@given(text=st.one_of(TEXT, ROWS), separator=st.sampled_from([" ", ",", "\t", ";"]))
def test_any_list_is_read_or_refused_by_line(tmp_path, text, separator):
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode("utf-8"))
    try:
        records = read_list(str(path), separator=separator)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert records and all(record.path and record.label >= 0 for record in records)


@FAST
@given(content=st.binary(max_size=200))
def test_any_bytes_as_a_list(tmp_path, content):
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    try:
        read_list(str(path))
    except ValueError as error:
        assert str(path) in str(error)


# ---- YAML

YAML = st.recursive(
    st.sampled_from(
        ["1", "true", "x", "1e-4", "[1, 2]", "null", "~", "'a'", "2020-13-01", "!!python/name:os", "*a"]
    ),
    lambda inner: st.lists(
        st.tuples(st.sampled_from(["MODEL", "DATA", "NAME", "&a k", "?", "- ", "ARGS"]), inner), max_size=3
    ).map(lambda pairs: "".join(f"\n  {key}: {value}".replace("\n", "\n  ") for key, value in pairs)),
    max_leaves=6,
)


@FAST
@given(text=st.one_of(TEXT, YAML, st.text("{}[]:,-&*!|>%@`'\"# \n\tabAB10.", max_size=60)))
@example("MODEL: {NAME: [&a a, *a, {b: *a}]}")
@example("a: &a [*a]")
@example("DATA: &d {x: *d}")
@example("? [1, 2]\n: 3")
@example("!!python/object/apply:os.system [echo]")
@example("_BASE_: [[x]]")
@example("_BASE_: run.yaml")
@example("MODEL:\n  ARGS: {depth: !!binary aGk=}")
@example("DATA: {MEAN: [.nan, .inf, -.inf]}")
@example("SOLVER: {BASE_LR: .nan}")
@example("\x00")
@example("[" * 5000)
@example("a: " + "{a: " * 900 + "}" * 900)
def test_any_text_as_a_config(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_bytes(text.encode("utf-8"))
    try:
        load_config(str(path))
    except (ValueError, FileNotFoundError) as error:
        assert "\nTraceback" not in str(error) and len(str(error)) > 10


def test_a_config_that_unfolds_without_end_is_refused(tmp_path):
    """Each line names the one before it ten times over: a thousand million keys in 600 bytes."""
    path = tmp_path / "bomb.yaml"
    lines = ["k0: &k0 {x: 1}"]
    lines += [f"k{n}: &k{n} {{{', '.join(f'v{i}: *k{n - 1}' for i in range(10))}}}" for n in range(1, 10)]
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"bomb.yaml: not valid YAML: it unfolds to more than"):
        load_config(str(path))


# ---- whole configs

VALUES = {
    "DATA.NUM_FRAMES": [1, 2, 4, 7],
    "DATA.SAMPLING_RATE": [1, 4, 100],
    "DATA.TARGET_FPS": [0.5, 30.0],
    "DATA.TEMPORAL_SAMPLING": list(CHOICES["DATA.TEMPORAL_SAMPLING"]),
    "DATA.TRAIN_CROP_SIZE": [16, 32, 33],
    "DATA.TRAIN_JITTER_SCALES": ["[32, 40]", "[8, 9]", "[40, 32]"],
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": ["[]", "[0.08, 1.0]", "[2.0, 3.0]"],
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": ["[]", "[0.75, 1.33]"],
    "DATA.TRAIN_JITTER_MOTION_SHIFT": [True, False],
    "DATA.MAX_FRAME_PIXELS": [1, 36000000],
    "DATA.STD": ["[0.2, 0.2, 0.2]", "[0, 0, 0]"],
    "AUG.ENABLE": [True, False],
    "AUG.NUM_SAMPLE": [1, 2],
    "AUG.AA_TYPE": ["", "rand-m7-n4-mstd0.5-inc1", "nonsense"],
    "AUG.RE_PROB": [0.0, 1.0],
    "AUG.RE_MODE": list(CHOICES["AUG.RE_MODE"]),
    "AUG.RE_COUNT": [1, 3],
    "AUG.COLOR_JITTER": [0.0, 0.4, 3.0],
    "MIXUP.ENABLE": [True, False],
    "MIXUP.ALPHA": [0.0, 0.8],
    "MIXUP.CUTMIX_ALPHA": [0.0, 1.0],
    "MODEL.LOSS_FUNC": list(CHOICES["MODEL.LOSS_FUNC"]),
    "MODEL.NAME": ["mvit_tiny", "vit_tiny", "swin_tiny", "uniformer_tiny", "hiera_tiny"],
    "MODEL.NUM_CLASSES": [1, 2, 5],
    "MODEL.FREEZE": ["[]", "['backbone']", "['nothing']"],
    "TRAIN.BATCH_SIZE": [1, 2, 8],
    "TRAIN.PRECISION": list(CHOICES["TRAIN.PRECISION"]),
    "TRAIN.MICRO_BATCHES": [1, 3],
    "SOLVER.OPTIMIZING_METHOD": list(CHOICES["SOLVER.OPTIMIZING_METHOD"]),
    "SOLVER.BASE_LR": [1e-3, 1e30],
    "SOLVER.LAYER_DECAY": [1.0, 0.7, 0.0],
    "SOLVER.EMA_DECAY": [0.0, 0.9, 1.0],
    "SOLVER.MOMENTUM": [0.0, 0.9],
    "SOLVER.DAMPENING": [0.0, 0.5],
    "SOLVER.CLIP_GRAD_L2NORM": ["None", 1.0],
    "SOLVER.CLIP_GRAD_VAL": ["None", 1.0],
    "SOLVER.WARMUP_EPOCHS": [0.0, 5.0],
    "SOLVER.LR_POLICY": list(CHOICES["SOLVER.LR_POLICY"]),
}
CONFIGS = st.lists(st.sampled_from(sorted(VALUES)), max_size=6, unique=True).flatmap(
    lambda keys: st.fixed_dictionaries({key: st.sampled_from(VALUES[key]) for key in keys})
)


@settings(deadline=None, max_examples=25, derandomize=True, suppress_health_check=list(HealthCheck))
@given(chosen=CONFIGS)
def test_any_config_takes_a_step_or_says_why_not(tiny_dataset, chosen):
    from vidformers.engine.build import load_videos
    from vidformers.engine.train import Trainer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(
            "MODEL: {NAME: mvit_tiny, NUM_CLASSES: 2}\n"
            "DATA: {NUM_FRAMES: 4, TRAIN_CROP_SIZE: 32, TEST_CROP_SIZE: 32, TRAIN_JITTER_SCALES: [36, 40]}\n"
            "TRAIN: {BATCH_SIZE: 4}\nTEST: {ENABLE: false}\nDATA_LOADER: {NUM_WORKERS: 0}\nDEVICE: cpu\n"
        )
        overrides = {"DATA.PATH_TO_DATA_DIR": str(tiny_dataset), "OUTPUT_DIR": folder, **chosen}
        words = [str(word) for pair in overrides.items() for word in pair]
        try:
            cfg = load_config(str(path), words)
            trainer = Trainer(cfg, load_videos(cfg, "train"), load_videos(cfg, "val"))
            trainer.loader.set_epoch(0)
            batch = next(iter(trainer.loader))
            trainer._count_failures(batch["failures"])
            clips, targets = trainer._prepare(batch, np.random.default_rng(0))
            loss, _, _ = trainer.train_step(clips, targets)
        except (ValueError, FileNotFoundError) as error:
            assert len(str(error)) > 20, repr(error)
            assert type(error) in (ValueError, FileNotFoundError), repr(error)
        else:
            assert isinstance(loss, float)
            assert all(isinstance(parameter, torch.Tensor) for parameter in trainer.model.parameters())
