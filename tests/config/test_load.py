"""load_config on our own files: values, bases, overrides, and what every mistake is answered with."""

import re

import pytest
import yaml

from vidformers.config import get_defaults, load_config
from vidformers.config.values import leaves


@pytest.fixture
def write(tmp_path):
    """Write a file into the test's folder and return its path."""

    def write(text, name="run.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def refusal(path, *overrides):
    """The text of the error that loading gives; always one paragraph."""
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        load_config(path, overrides)
    text = str(error.value)
    assert "\n" not in text and text.endswith((".", "?")), text
    return text


def test_empty_file_gives_the_defaults(write):
    cfg = load_config(write("# nothing\n"))
    assert cfg == get_defaults()
    assert cfg.is_frozen() and cfg.MODEL.is_frozen()
    with pytest.raises(AttributeError):
        cfg.TRAIN.BATCH_SIZE = 1


def test_every_key_has_a_comment():
    from vidformers.config import defaults

    with open(defaults.__file__) as file:
        lines = file.read().splitlines()
    keys = {key for key, _ in leaves(get_defaults())}
    for number, line in enumerate(lines):
        found = re.match(r"_C\.([A-Z_.0-9]+) = (?!CfgNode\(\))", line)
        if found:
            assert lines[number - 1].startswith("# "), line
            assert not lines[number - 2].startswith("# ") or lines[number - 2].startswith("# ---"), line
            keys.discard(found[1])
    assert not keys


def test_values_of_file_and_command_line(write):
    path = write(
        "SOLVER:\n  BASE_LR: 1e-3\n  WARMUP_EPOCHS: 5\n  BETAS: (0.9, 0.95)\nTEST:\n  BATCH_SIZE: 3\n"
    )
    cfg = load_config(path, ["--opts", "TEST.BATCH_SIZE", "4", "TRAIN.ENABLE", "false", "OUTPUT_DIR", "2024"])
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.WARMUP_EPOCHS, cfg.SOLVER.BETAS) == (1e-3, 5.0, [0.9, 0.95])
    assert isinstance(cfg.SOLVER.WARMUP_EPOCHS, float)
    assert (cfg.TEST.BATCH_SIZE, cfg.TRAIN.ENABLE, cfg.OUTPUT_DIR) == (4, False, "2024")


def test_overrides_may_be_values_and_the_last_counts(write):
    cfg = load_config(
        write(""), ["TRAIN.BATCH_SIZE", 2, "TRAIN.BATCH_SIZE", 3, "SOLVER.CLIP_GRAD_L2NORM", "1"]
    )
    assert cfg.TRAIN.BATCH_SIZE == 3
    assert cfg.SOLVER.CLIP_GRAD_L2NORM == 1.0


def test_a_tilde_is_the_home_folder(write, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    cfg = load_config(write("DATA:\n  PATH_TO_DATA_DIR: ~/k400\n"), ["OUTPUT_DIR", "~/run"])
    assert (cfg.DATA.PATH_TO_DATA_DIR, cfg.OUTPUT_DIR) == ("/home/me/k400", "/home/me/run")


def test_model_arguments(write):
    path = write("MODEL:\n  ARGS:\n    drop_path_rate: 0.3\n")
    cfg = load_config(path, ["MODEL.ARGS.depth", "12", "MODEL.ARGS.position_embedding", "none"])
    assert dict(cfg.MODEL.ARGS) == {"drop_path_rate": 0.3, "depth": 12, "position_embedding": "none"}


def test_bases(write, tmp_path):
    (tmp_path / "shared").mkdir()
    write("TRAIN:\n  BATCH_SIZE: 2\n  EVAL_PERIOD: 7\nRNG_SEED: 1\n", "shared/first.yaml")
    write("_BASE_: first.yaml\nRNG_SEED: 2\n", "shared/second.yaml")
    path = write("_BASE_: shared/second.yaml\nTRAIN:\n  BATCH_SIZE: 3\n")
    cfg = load_config(path)
    assert (cfg.TRAIN.BATCH_SIZE, cfg.TRAIN.EVAL_PERIOD, cfg.RNG_SEED) == (3, 7, 2)


def test_several_bases(write):
    write("RNG_SEED: 1\nLOG_PERIOD: 1\n", "a.yaml")
    write("RNG_SEED: 2\n", "b.yaml")
    cfg = load_config(write("_BASE_: [a.yaml, b.yaml]\n"))
    assert (cfg.RNG_SEED, cfg.LOG_PERIOD) == (2, 1)


def test_dump_loads_again(write):
    cfg = load_config(
        write("MODEL:\n  NAME: mvit_v2_s_16x4\n  ARGS: {pool_kvq_kernel: [3, 3, 3], drop_path_rate: 1e-1}\n")
    )
    assert load_config(write(cfg.dump(), "config.yaml")) == cfg


class TestFiles:
    def test_missing(self, write, tmp_path):
        write("", "mvit_b_16x4.yaml")
        text = refusal(tmp_path / "mvit_b_16x8.yaml")
        assert "mvit_b_16x8.yaml" in text and "mvit_b_16x4.yaml" in text

    def test_missing_is_file_not_found(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            load_config(tmp_path / "run.yaml")

    def test_missing_folder(self, tmp_path):
        assert "folder" in refusal(tmp_path / "confgs" / "run.yaml")

    def test_folder(self, write, tmp_path):
        write("", "run.yaml")
        text = refusal(tmp_path)
        assert "is a folder" in text and "run.yaml" in text

    def test_missing_base(self, write):
        text = refusal(write("_BASE_: base.yaml\n"))
        assert "base.yaml" in text and "run.yaml" in text

    def test_circular_bases(self, write):
        write("_BASE_: run.yaml\n", "base.yaml")
        assert "circle" in refusal(write("_BASE_: base.yaml\n"))

    def test_syntax(self, write):
        path = write("TRAIN:\n  BATCH_SIZE: 2\n ENABLE: True\n")
        text = refusal(path)
        assert f"{path}, line 3" in text and "not valid YAML" in text

    def test_tabs(self, write):
        assert "line 2" in refusal(write("TRAIN:\n\tBATCH_SIZE: 2\n"))

    def test_not_text(self, tmp_path):
        path = tmp_path / "run.yaml"
        path.write_bytes(bytes(range(128, 256)))
        assert "not a text file" in refusal(path)

    def test_not_keys(self, write):
        assert "KEY: value" in refusal(write("- TRAIN\n- TEST\n"))

    def test_duplicate_keys(self, write):
        text = refusal(write("TRAIN:\n  BATCH_SIZE: 2\n  ENABLE: True\n  BATCH_SIZE: 3\n"))
        assert "TRAIN.BATCH_SIZE" in text and "lines 2 and 4" in text

    def test_a_base_may_be_overridden_without_being_a_duplicate(self, write):
        write("RNG_SEED: 1\n", "base.yaml")
        assert load_config(write("_BASE_: base.yaml\nRNG_SEED: 2\n")).RNG_SEED == 2


class TestKeys:
    @pytest.mark.parametrize(
        ("wrong", "right"),
        [
            ("SOLVER.BASE_LRR", "SOLVER.BASE_LR"),
            ("solver.base_lr", "SOLVER.BASE_LR"),
            ("TRAIN.BATCHSIZE", "TRAIN.BATCH_SIZE"),
            ("TRAINN.AUTO_RESUME", "TRAIN.AUTO_RESUME"),
            ("NUM_FRAMES", "DATA.NUM_FRAMES"),
            ("SOLVER.NUM_CLASSES", "MODEL.NUM_CLASSES"),
            ("MODEL.ARG", "MODEL.ARGS"),
        ],
    )
    def test_misspelt(self, write, wrong, right):
        text = refusal(write(""), wrong, "1")
        assert f"Unknown key {wrong}" in text and f"did you mean {right}?" in text and "command line" in text

    def test_misspelt_in_a_file_names_the_line(self, write):
        path = write("TRAIN:\n  ENABLE: True\n  BATCHSIZE: 2\n")
        text = refusal(path)
        assert f"{path}, line 3" in text and "TRAIN.BATCH_SIZE" in text

    def test_nothing_near_lists_what_there_is(self, write):
        assert "PIN_MEMORY" in refusal(write("DATA_LOADER:\n  QQQQQQ: 1\n"))
        assert "SOLVER" in refusal(write("QQQQQQ: 1\n"))

    def test_misspelt_model(self, write):
        assert "did you mean mvit_b_16x4?" in refusal(write(""), "MODEL.NAME", "mvit_b_16x44")

    def test_misspelt_model_argument(self, write):
        text = refusal(write("MODEL:\n  ARGS:\n    droppath_rate: 0.1\n"))
        assert "MODEL.ARGS.drop_path_rate" in text and "line 3" in text

    def test_pyslowfast_key_on_our_file(self, write):
        assert "MODEL.ARGS" in refusal(write(""), "MVIT.DEPTH", "12")
        assert "torchrun" in refusal(write(""), "NUM_GPUS", "8")


class TestValues:
    @pytest.mark.parametrize(
        ("key", "value", "wanted"),
        [
            ("TRAIN.BATCH_SIZE", "eight", "a whole number"),
            ("TRAIN.BATCH_SIZE", "8.5", "a whole number"),
            ("TRAIN.BATCH_SIZE", "0", "at least 1"),
            ("OUTPUT_DIR", "s3://bucket/run", "a folder; write there, and copy it to a store afterwards"),
            ("TRAIN.ENABLE", "1", "True or False"),
            ("SOLVER.BASE_LR", "fast", "a number"),
            ("SOLVER.BASE_LR", "-1", "more than 0"),
            ("SOLVER.BASE_LR", "1e999", "more than 0"),
            ("DATA.MEAN", "0.45", "a list"),
            ("MODEL.FREEZE", "backbone", "a list such as ['backbone']"),
            ("RNG_SEED", str(2**63), "below 2^63"),
            ("DATA.MEAN", "[0.45, 0.45]", "3 numbers"),
            ("DATA.MEAN", "[a, b, c]", "a list"),
            ("DATA.MEAN", "['a', 'b', 'c']", "a list of numbers"),
            ("DATA.STD", "[0.2, 0.2, 0]", "above 0"),
            ("MODEL", "mvit", "MODEL."),
            ("TRAIN.PRECISION", "float16", "fp32, bf16, fp16"),
            ("SOLVER.OPTIMIZING_METHOD", "AdamW", "did you mean adamw?"),
            ("DATA.DECODING_BACKEND", "opencv", "pyav, decord"),
            ("AUG.RE_PROB", "1.5", "from 0 to 1"),
            ("AUG.AA_TYPE", "autoaugment", "RandAugment"),
            ("MODEL.ARGS.depth", "many", "16"),
            ("MODEL.ARGS.qkv_bias", "1", "True"),
        ],
    )
    def test_wrong(self, write, key, value, wanted):
        text = refusal(write(""), key, value)
        assert text.startswith(key) and wanted in text and "command line" in text

    def test_type_error_names_the_line(self, write):
        path = write("TRAIN:\n  BATCH_SIZE: many\n")
        text = refusal(path)
        assert "TRAIN.BATCH_SIZE" in text and "'many'" in text and f"{path}, line 2" in text

    @pytest.mark.parametrize("words", [["TRAIN.BATCH_SIZE"], ["--opts", "TRAIN.ENABLE", "True", "RNG_SEED"]])
    def test_override_without_value(self, write, words):
        assert words[-1] in refusal(write(""), *words) and "no value" in refusal(write(""), *words)

    def test_override_with_equals_sign(self, write):
        assert "TRAIN.BATCH_SIZE=8" in refusal(write(""), "TRAIN.BATCH_SIZE=8")


class TestKeysTogether:
    def test_frames_and_temporal_patch_stride(self, write):
        text = refusal(write(""), "DATA.NUM_FRAMES", "10", "MODEL.ARGS.patch_stride", "[4, 4, 4]")
        assert "DATA.NUM_FRAMES=10 is not divisible by the temporal patch stride 4" in text
        assert "use 8 or 12" in text
        assert "use 16 or 18" in refusal(write(""), "DATA.NUM_FRAMES", "17")
        assert "use 2." in refusal(write(""), "DATA.NUM_FRAMES", "1")

    @pytest.mark.parametrize("key", ["DATA.TRAIN_CROP_SIZE", "DATA.TEST_CROP_SIZE"])
    def test_crop_and_spatial_patch_stride(self, write, key):
        text = refusal(write(""), key, "222")
        assert (
            f"{key}=222 is not divisible by the spatial patch stride 4" in text and "use 220 or 224" in text
        )

    def test_test_crop_may_differ(self, write):
        assert load_config(write(""), ["DATA.TEST_CROP_SIZE", "256"]).DATA.TEST_CROP_SIZE == 256

    @pytest.mark.parametrize(
        ("argument", "value", "key"),
        [
            ("num_frames", "32", "DATA.NUM_FRAMES"),
            ("image_size", "256", "DATA.TRAIN_CROP_SIZE"),
            ("num_classes", "174", "MODEL.NUM_CLASSES"),
        ],
    )
    def test_model_arguments_that_data_decides(self, write, argument, value, key):
        text = refusal(write(""), f"MODEL.ARGS.{argument}", value)
        assert key in text and argument in text
        load_config(write(""), [f"MODEL.ARGS.{argument}", value, key, value])

    @pytest.mark.parametrize(
        ("words", "named"),
        [
            ("MIXUP.ENABLE True", "soft_cross_entropy"),
            (
                "MIXUP.ENABLE True MODEL.LOSS_FUNC soft_cross_entropy MIXUP.ALPHA 0 MIXUP.CUTMIX_ALPHA 0",
                "MIXUP.CUTMIX_ALPHA",
            ),
            ("SOLVER.WARMUP_EPOCHS 31", "SOLVER.MAX_EPOCH"),
            ("SOLVER.WARMUP_EPOCHS 30", "cosine"),
            ("SOLVER.COSINE_END_LR 1", "SOLVER.BASE_LR"),
            ("SOLVER.LR_POLICY steps_with_relative_lrs", "SOLVER.STEPS"),
            ("SOLVER.LR_POLICY steps_with_relative_lrs SOLVER.STEPS [0,5] SOLVER.LRS [1]", "SOLVER.LRS"),
            ("SOLVER.LR_POLICY steps_with_relative_lrs SOLVER.STEPS [0,5] SOLVER.LRS [1,-1]", "0 or more"),
            ("SOLVER.CLIP_GRAD_VAL 1 SOLVER.CLIP_GRAD_L2NORM 1", "SOLVER.CLIP_GRAD_L2NORM"),
            ("SOLVER.OPTIMIZING_METHOD sgd SOLVER.MOMENTUM 0", "SOLVER.NESTEROV"),
            ("SOLVER.LAYER_DECAY 0", "SOLVER.LAYER_DECAY"),
            ("SOLVER.BETAS [0.9,1]", "SOLVER.BETAS"),
            ("DATA.TRAIN_JITTER_SCALES [320,256]", "DATA.TRAIN_JITTER_SCALES"),
            ("DATA.TRAIN_JITTER_SCALES_RELATIVE [0.08,1]", "DATA.TRAIN_JITTER_ASPECT_RELATIVE"),
            ("DATA.TRAIN_CROP_SIZE 288", "DATA.TRAIN_JITTER_SCALES"),
            ("DATA.TEST_CROP_SIZE 288", "DATA.TRAIN_JITTER_SCALES"),
        ],
    )
    def test_contradictions(self, write, words, named):
        assert named in refusal(write(""), *words.split())

    def test_three_crops_are_not_bound_by_the_training_scale(self, write):
        load_config(write(""), ["DATA.TEST_CROP_SIZE", "288", "TEST.NUM_SPATIAL_CROPS", "3"])


def test_the_dump_is_plain_yaml(write):
    dumped = yaml.safe_load(load_config(write("")).dump())
    assert dumped["DATA"]["MEAN"] == [0.45, 0.45, 0.45]
