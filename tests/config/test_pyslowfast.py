"""PySlowFast's files: the official ones (golden/manifests/slowfast); what is translated, ignored, refused."""

import copy
import warnings

import pytest
import torch
import yaml

from tests.golden_json import load_json, manifest_names
from vidformers.config import load_config, mvit_arguments, translate_pyslowfast
from vidformers.config.pyslowfast import PYSLOWFAST_DEFAULTS, knows_key
from vidformers.config.values import leaves, put
from vidformers.engine.model import build_model

NAMES = manifest_names()
REVERSIBLE = [name for name in NAMES if "REV" in name]
CLASS_TOKEN_LEFT_OUT = "Kinetics__REV_MVIT_B_16x4_CONV"
# Neither PySlowFast's nor our code looks at these; the rest of the official files must load without a word.
WITH_IGNORED_SETTINGS = {name: ["PREFETCH.NUM_LOADERS"] for name in NAMES if name.startswith("SSv2")} | {
    name: ["DATA.DECODING_SHORT_SIZE", "ssl_eval"] for name in NAMES if name.startswith("masked_ssl__k400")
}
WITH_IGNORED_SETTINGS[CLASS_TOKEN_LEFT_OUT] = ["MVIT.CLS_EMBED_ON True", "no class token: it is left out"]


def manifest(name):
    return load_json(f"manifests/slowfast/{name}.json")


def tree_of(name):
    return copy.deepcopy(manifest(name)["yaml_keys"])


@pytest.fixture
def write(tmp_path):
    def write(tree, name="MVIT.yaml"):
        path = tmp_path / name
        path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
        return path

    return write


def load(path, *overrides):
    """The config and the text of its warnings, of which there is at most one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cfg = load_config(path, overrides)
    assert len(caught) <= 1
    return cfg, str(caught[0].message) if caught else ""


def refusal(path, *overrides):
    with pytest.raises(ValueError) as error:
        load_config(path, overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_all_official_files_are_here():
    assert len(NAMES) == 23 and len(REVERSIBLE) == 4


@pytest.mark.parametrize("name", NAMES)
def test_official_file_builds_the_official_model(name, write):
    cfg, warning = load(write(tree_of(name)))
    for text in WITH_IGNORED_SETTINGS.get(name, []):
        assert text in warning
    if not WITH_IGNORED_SETTINGS.get(name) and name != "masked_ssl__in1k_VIT_B_MaskFeat_FT":
        assert warning == ""

    with torch.device("meta"):
        model = build_model(cfg)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    stem = "patch_embed.proj.weight"
    if len(manifest(name)["input_shape"]) == 4:  # an image model's stem has no time axis there
        assert shapes[stem].pop(2) == 1
    assert shapes == {key: list(shape) for key, shape in manifest(name)["state_dict"].items()}
    assert sum(p.numel() for p in model.parameters()) == manifest(name)["num_params"]

    axes = manifest(name)["input_shape"][2:]
    frames = axes[0] if len(axes) == 3 else 1
    sizes = (cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE)
    assert sizes == (frames, axes[-1])


@pytest.mark.parametrize("name", REVERSIBLE)
def test_reversible_files(name, write):
    cfg, _ = load(write(tree_of(name)))
    assert cfg.MODEL.NAME == "rev_mvit"
    tree = tree_of(name)
    tree["MVIT"]["REV"]["RES_PATH"] = "max"  # fails in PySlowFast
    text = refusal(write(tree))
    assert "MVIT.REV.RES_PATH is 'max'" in text and "line" in text and "only 'conv'" in text
    with pytest.raises(ValueError, match="rev_mvit_arguments"):
        mvit_arguments(tree_of(name))


def test_the_file_with_the_broken_indentation_names_its_line(write):
    """ImageNet/MVITv2_B as published: one key is indented by one space instead of two."""
    lines = yaml.safe_dump(tree_of("ImageNet__MVITv2_B"), sort_keys=False).splitlines()
    (at,) = (i for i, line in enumerate(lines) if "DROPPATH_RATE" in line)
    lines[at] = lines[at][1:]
    path = write("\n".join(lines))
    text = refusal(path)
    assert "not valid YAML" in text and any(f"{path}, line {n}" in text for n in (at + 1, at + 2))


def test_recipe_of_mvit_b(write):
    cfg, _ = load(write(tree_of("Kinetics__MVIT_B_16x4_CONV")))
    assert cfg.MODEL.NAME == "mvit" and cfg.MODEL.LOSS_FUNC == "soft_cross_entropy"
    assert cfg.MODEL.ARGS.head_dropout_rate == 0.5 and cfg.MODEL.ARGS.drop_path_rate == 0.2
    assert (cfg.DATA.NUM_FRAMES, cfg.DATA.SAMPLING_RATE, cfg.DATA.USE_OFFSET_SAMPLING) == (16, 4, True)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.WARMUP_START_LR, cfg.SOLVER.COSINE_END_LR) == (1e-4, 1e-6, 1e-6)
    assert (cfg.SOLVER.OPTIMIZING_METHOD, cfg.SOLVER.CLIP_GRAD_L2NORM) == ("adamw", 1.0)
    assert cfg.SOLVER.ZERO_DECAY_POS_CLS is False and cfg.SOLVER.ZERO_WD_1D_PARAM is True
    # PySlowFast's defaults for what the file leaves out, which are not ours.
    assert cfg.TEST.NUM_ENSEMBLE_VIEWS == 10 and cfg.TEST.NUM_SPATIAL_CROPS == 1
    assert cfg.DATA.DECODING_BACKEND == "pyav"


def test_defaults_are_pyslowfasts():
    arguments = mvit_arguments({"MVIT": {"DEPTH": 4}})
    assert arguments["patch_padding"] == (2, 4, 4)
    assert (arguments["embed_dim"], arguments["drop_path_rate"], arguments["head_dropout_rate"]) == (
        96,
        0.1,
        0.5,
    )
    assert (arguments["num_frames"], arguments["image_size"]) == (8, 224)
    assert arguments["position_embedding"] == "joint"
    ours = translate_pyslowfast({"MVIT": {}})
    assert (ours["DATA"]["TEST_CROP_SIZE"], ours["SOLVER"]["OPTIMIZING_METHOD"]) == (256, "sgd")
    assert ours["SOLVER"]["ZERO_DECAY_POS_CLS"] is True


def test_arguments_are_those_of_the_model():
    from vidformers.models import model_arguments

    assert set(mvit_arguments({"MVIT": {}})) <= set(model_arguments("mvit"))


def test_translation_is_pure():
    tree = tree_of("SSv2__MVITv2_L_40x3")
    before = copy.deepcopy(tree)
    defaults = copy.deepcopy(PYSLOWFAST_DEFAULTS)
    with pytest.warns(UserWarning, match="PREFETCH"):
        first = translate_pyslowfast(tree)
    with pytest.warns(UserWarning, match="PREFETCH"):
        assert translate_pyslowfast(tree) == first
    assert tree == before
    assert PYSLOWFAST_DEFAULTS == defaults  # noqa: SIM300


def test_every_key_of_pyslowfast_is_accounted_for():
    """A key is translated, refused or warned about when changed; else it is listed here as irrelevant."""
    silent = {
        *("NUM_GPUS", "NUM_SHARDS", "SHARD_ID", "LOG_MODEL_INFO", "DIST_BACKEND", "INIT_METHOD"),
        # Only of convolutional models, or another way to say MViT.
        *("MODEL.ARCH", "MODEL.DROPCONNECT_RATE", "MODEL.FC_INIT_STD", "MODEL.FROZEN_BN"),
        *("MODEL.SINGLE_PATHWAY_ARCH", "MODEL.MULTI_PATHWAY_ARCH"),
        *("MVIT.REV.RESPATH_FUSE", "MVIT.REV.BUFFER_LAYERS", "MVIT.REV.RES_PATH", "MVIT.REV.PRE_Q_FUSION"),
        # 2D weights are recognised as such; GAMMA belongs to policies that no transformer file uses.
        *("TRAIN.CHECKPOINT_INFLATE", "SOLVER.GAMMA", "DATA_LOADER.ENABLE_MULTI_THREAD_DECODE"),
        # No effect at NUM_SHARDS 1, or without a checkpoint.
        *("SOLVER.BASE_LR_SCALE_NUM_SHARDS", "TRAIN.CHECKPOINT_EPOCH_RESET"),
        *("AVA", "BN", "VIS_MASK", "BENCHMARK", "NONLOCAL", "RESNET", "SLOWFAST", "X3D"),
    }
    changed = {
        "CONTRASTIVE": {"T": 1},
        "DATA.DECODING_BACKEND": "decord",
        "DATA.INPUT_CHANNEL_NUM": [1],
        "MVIT.DIM_MUL": [[1, 2.0]],
        "MVIT.HEAD_MUL": [[1, 2.0]],
        "MVIT.PATCH_STRIDE": [4, 4, 4],
        "MVIT.POOL_KV_STRIDE": [[0, 1, 2, 2]],
        "MVIT.POOL_Q_STRIDE": [[1, 1, 2, 2]],
    }
    by_type = {
        bool: lambda old: not old,
        int: lambda old: old + 1,
        float: lambda old: old + 1,
        str: lambda _: "x",
    }
    by_type |= {list: lambda _: [3, 5, 5], dict: lambda _: {"ANY": 1}, type(None): lambda _: 1.0}
    reference = translate_pyslowfast({"MVIT": {}, "MODEL": {"MODEL_NAME": "MViT"}})
    unnoticed = set()
    for key, default in leaves(PYSLOWFAST_DEFAULTS):
        tree = {"MVIT": {}, "MODEL": {"MODEL_NAME": "MViT"}}
        put(tree, key, changed.get(key, by_type[type(default)](default)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                if translate_pyslowfast(tree) == reference:
                    unnoticed.add(key)
            except (ValueError, UserWarning) as error:
                assert key in str(error) or key.rpartition(".")[2] in str(error)
    assert unnoticed == silent


class TestTranslation:
    def test_rates_are_for_all_machines(self):
        tree = {"MVIT": {}, "NUM_SHARDS": 8, "SOLVER": {"BASE_LR": 1e-4, "BASE_LR_SCALE_NUM_SHARDS": True}}
        tree["SOLVER"] |= {"WARMUP_START_LR": "1e-6", "COSINE_END_LR": "2e-6"}
        solver = translate_pyslowfast(tree)["SOLVER"]
        rates = [solver["BASE_LR"], solver["WARMUP_START_LR"], solver["COSINE_END_LR"]]
        assert rates == pytest.approx([8e-4, 8e-6, 1.6e-5])
        tree["SOLVER"]["BASE_LR_SCALE_NUM_SHARDS"] = False
        assert translate_pyslowfast(tree)["SOLVER"]["BASE_LR"] == 1e-4

    def test_ssv2_statistics_change_places(self):
        """PySlowFast normalises blue-first frames and swaps afterwards; ours are red first from the start."""
        with pytest.warns(UserWarning):
            data = translate_pyslowfast(tree_of("SSv2__MVITv2_L_40x3"))["DATA"]
        frame = torch.rand(3, dtype=torch.float64)  # red, green, blue
        mean, std = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
        theirs = ((frame.flip(0) - mean) / std).flip(0)
        ours = (frame - torch.tensor(data["MEAN"]).double()) / torch.tensor(data["STD"]).double()
        torch.testing.assert_close(ours, theirs)

    def test_channel_order_that_is_not_supported(self):
        tree = {"MVIT": {}, "DATA": {"REVERSE_INPUT_CHANNEL": True}}
        with pytest.raises(ValueError, match=r"DATA\.REVERSE_INPUT_CHANNEL"):
            translate_pyslowfast(tree)
        tree["TRAIN"] = {"DATASET": "motion"}
        translate_pyslowfast(tree)
        with pytest.raises(ValueError, match=r"DATA\.REVERSE_INPUT_CHANNEL"):
            translate_pyslowfast({"MVIT": {}, "TRAIN": {"DATASET": "ssv2"}})

    def test_augmentation(self):
        data = {"TRAIN_JITTER_MOTION_SHIFT": True, "INV_UNIFORM_SAMPLE": True}
        crop = {"TRAIN_JITTER_SCALES_RELATIVE": [0.08, 1.0], "TRAIN_JITTER_ASPECT_RELATIVE": [0.75, 1.33]}
        ours = translate_pyslowfast({"MVIT": {}, "DATA": data | crop})
        assert ours["DATA"]["TRAIN_JITTER_MOTION_SHIFT"] and ours["DATA"]["INV_UNIFORM_SAMPLE"]
        with pytest.warns(UserWarning, match="MOTION_SHIFT"):  # nothing to move
            assert not translate_pyslowfast({"MVIT": {}, "DATA": data})["DATA"]["TRAIN_JITTER_MOTION_SHIFT"]
        # Colours change in the images of ImageNet where no RandAugment changes them already.
        for dataset, policy, jitter in (
            ("imagenet", "", 0.4),
            ("imagenet", "rand-m9-inc1", 0),
            ("ucf101", "", 0),
        ):
            tree = {"MVIT": {}, "TRAIN": {"DATASET": dataset}, "AUG": {"ENABLE": True, "AA_TYPE": policy}}
            assert translate_pyslowfast(tree)["AUG"]["COLOR_JITTER"] == jitter

    def test_linear_probing(self):
        tree = {"MVIT": {}, "MODEL": {"MODEL_NAME": "MViT", "DETACH_FINAL_FC": True}}
        assert translate_pyslowfast(tree)["MODEL"]["FREEZE"] == ["backbone"]

    def test_dataset_names_are_kept(self, write):
        cfg, _ = load(write(tree_of("ImageNet__MVITv2_T")))
        assert (cfg.TRAIN.DATASET, cfg.TEST.DATASET) == ("imagenet", "imagenet")
        assert (cfg.DATA.DECODING_BACKEND, cfg.DATA.NUM_FRAMES) == ("frames", 1)

    @pytest.mark.parametrize(
        ("dataset", "rule"), [("kinetics", "slowfast"), ("ssv2", "segment"), ("charades", "uniform")]
    )
    def test_frames_are_chosen_as_the_dataset_classes_do(self, dataset, rule):
        data = {"REVERSE_INPUT_CHANNEL": dataset != "kinetics"}
        tree = {"MVIT": {}, "TRAIN": {"DATASET": dataset}, "DATA": data}
        assert translate_pyslowfast(tree)["DATA"]["TEMPORAL_SAMPLING"] == rule

    @pytest.mark.parametrize("loss", ["bce", "bce_logit"])
    def test_multi_label(self, loss):
        model = {"MODEL_NAME": "MViT", "HEAD_ACT": "sigmoid", "LOSS_FUNC": loss}
        tree = {"MVIT": {}, "MODEL": model, "DATA": {"MULTI_LABEL": True}}
        assert translate_pyslowfast(tree)["MODEL"]["LOSS_FUNC"] == "bce_logit"

    def test_precision_and_optimiser(self):
        tree = {"MVIT": {}, "TRAIN": {"MIXED_PRECISION": True}, "SOLVER": {"OPTIMIZING_METHOD": "mt_adamw"}}
        ours = translate_pyslowfast(tree)
        assert (ours["TRAIN"]["PRECISION"], ours["TEST"]["PRECISION"]) == ("fp16", "fp32")
        assert ours["SOLVER"]["OPTIMIZING_METHOD"] == "adamw"

    def test_fine_tuning(self):
        train = {"CHECKPOINT_FILE_PATH": "x.pyth", "CHECKPOINT_EPOCH_RESET": True}
        ours = translate_pyslowfast({"MVIT": {}, "TRAIN": train})
        assert ours["TRAIN"]["CHECKPOINT_FILE_PATH"] == "x.pyth"
        with pytest.warns(UserWarning, match="CHECKPOINT_EPOCH_RESET"):
            translate_pyslowfast({"MVIT": {}, "TRAIN": {**train, "CHECKPOINT_EPOCH_RESET": False}})

    def test_number_of_clips(self):
        with pytest.warns(UserWarning, match="NUM_TEMPORAL_CLIPS"):
            ours = translate_pyslowfast({"MVIT": {}, "TEST": {"NUM_TEMPORAL_CLIPS": [5, 7]}})
        assert ours["TEST"]["NUM_ENSEMBLE_VIEWS"] == 7

    @pytest.mark.parametrize(
        ("mvit", "embedding"),
        [
            ({}, "joint"),
            ({"SEP_POS_EMBED": True}, "separable"),
            ({"USE_ABS_POS": False, "SEP_POS_EMBED": True}, "none"),
            ({"USE_FIXED_SINCOS_POS": True}, "sincos"),
        ],
    )
    def test_position_embedding(self, mvit, embedding):
        assert mvit_arguments({"MVIT": mvit})["position_embedding"] == embedding

    def test_image_models_are_clips_of_one_frame(self):
        mvit = {"PATCH_2D": True, "PATCH_KERNEL": "(7, 7)", "PATCH_STRIDE": [4, 4], "PATCH_PADDING": [3, 3]}
        arguments = mvit_arguments({"MVIT": mvit})
        assert arguments["num_frames"] == 1
        assert [arguments[f"patch_{name}"] for name in ("kernel", "stride", "padding")] == [
            (1, 7, 7),
            (1, 4, 4),
            (0, 3, 3),
        ]

    def test_adaptive_stride_goes_before_given_ones(self):
        mvit = {"POOL_KV_STRIDE": [[0, 1, 4, 4]], "POOL_KV_STRIDE_ADAPTIVE": None}
        assert mvit_arguments({"MVIT": mvit})["pool_kv_stride"] == ((0, 1, 4, 4),)
        mvit["POOL_KV_STRIDE_ADAPTIVE"] = [1, 8, 8]
        assert mvit_arguments({"MVIT": mvit})["pool_kv_stride"] == ()


class TestRefusals:
    @pytest.mark.parametrize(
        ("tree", "named"),
        [
            ({"MVIT": {"DEPHT": 16}}, "MVIT.DEPTH"),
            ({"MVIT": {}, "SOLVER": {"BASE_LRR": 1}}, "SOLVER.BASE_LR"),
            ({"MVIT": {}, "PREFETCHER": {"NUM": 3}}, "PREFETCH"),
            ({"MVIT": {"DEPTH": "deep"}}, "MVIT.DEPTH"),
            ({"MVIT": {"DIM_MUL": [1, 2.0]}}, "MVIT.DIM_MUL"),
            ({"MVIT": {"PATCH_KERNEL": [7, 7]}}, "MVIT.PATCH_KERNEL"),
            ({"MVIT": {"NORM": "batchnorm"}}, "MVIT.NORM"),
            ({"MVIT": {"USE_FIXED_SINCOS_POS": True, "SEP_POS_EMBED": True}}, "MVIT.SEP_POS_EMBED"),
            ({"MVIT": {}, "DATA": {"INPUT_CHANNEL_NUM": [1]}}, "DATA.INPUT_CHANNEL_NUM"),
            ({"MODEL": {"MODEL_NAME": "SlowFast", "ARCH": "slowfast"}}, "MODEL.MODEL_NAME"),
            ({"MODEL": {"MODEL_NAME": "ContrastiveModel"}, "MVIT": {}}, "MODEL.MODEL_NAME"),
            ({"MVIT": {}, "MASK": {"ENABLE": True}}, "MASK.ENABLE"),
            ({"MVIT": {}, "DETECTION": {"ENABLE": True}}, "DETECTION.ENABLE"),
            ({"MVIT": {}, "MULTIGRID": {"LONG_CYCLE": True}}, "MULTIGRID.LONG_CYCLE"),
            ({"MVIT": {}, "SOLVER": {"LARS_ON": True}}, "SOLVER.LARS_ON"),
            ({"MVIT": {}, "DATA": {"MULTI_LABEL": True}}, "DATA.MULTI_LABEL"),
            ({"MVIT": {}, "MODEL": {"MODEL_NAME": "MViT", "HEAD_ACT": "sigmoid"}}, "MODEL.HEAD_ACT"),
            (
                {"MVIT": {}, "MODEL": {"MODEL_NAME": "MViT", "LOSS_FUNC": "contrastive_loss"}},
                "MODEL.LOSS_FUNC",
            ),
            ({"MVIT": {}, "TASK": "ssl"}, "TASK"),
        ],
    )
    def test_names_the_key(self, tree, named, write):
        assert named in refusal(write(tree))

    def test_unsupported_keys_may_be_off(self, write):
        tree = {"MVIT": {}, "MASK": {"ENABLE": False, "PRETRAIN_DEPTH": [15]}, "DETECTION": {"ENABLE": False}}
        tree |= {"BN": {"USE_PRECISE_STATS": True}, "MULTIGRID": {"LONG_CYCLE": False}}
        _, warning = load(write(tree))
        assert warning == ""


class TestFiles:
    def test_duplicate_keys_count_last_and_are_warned_of(self, write):
        path = write("MVIT:\n  DEPTH: 4\n  EMBED_DIM: 16\n  DEPTH: 3\nPREFETCH:\n  NUM_LOADERS: 3\n")
        cfg, warning = load(path)
        assert cfg.MODEL.ARGS.depth == 3
        assert "MVIT.DEPTH" in warning and "lines 2 and 4" in warning and "PREFETCH.NUM_LOADERS" in warning

    def test_line_of_a_wrong_value(self, write):
        path = write("MVIT:\n  DEPTH: deep\n")
        assert f"{path}, line 2" in refusal(path)

    def test_overrides_by_either_name(self, write):
        path = write(tree_of("Kinetics__MVITv2_S_16x4"))
        cfg, _ = load(path, "MVIT.DROPPATH_RATE", "0.4", "TEST.NUM_ENSEMBLE_VIEWS", "3", "OUTPUT_DIR", "x")
        assert (cfg.MODEL.ARGS.drop_path_rate, cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.OUTPUT_DIR) == (0.4, 3, "x")
        cfg, _ = load(path, "MODEL.ARGS.drop_path_rate", "0.3", "TRAIN.PRECISION", "bf16", "DEVICE", "cpu")
        assert (cfg.MODEL.ARGS.drop_path_rate, cfg.TRAIN.PRECISION, cfg.DEVICE) == (0.3, "bf16", "cpu")

    def test_misspelt_overrides(self, write):
        path = write({"MVIT": {}})
        assert "MVIT.DEPTH" in refusal(path, "MVIT.DEPHT", "3")
        assert "TRAIN.PRECISION" in refusal(path, "TRAIN.PRECISON", "bf16")

    def test_any_official_file_runs_on_motion(self, write):
        for name in ("Kinetics__MVITv2_S_16x4", "SSv2__MVITv2_S_16x4"):
            cfg, _ = load(write(tree_of(name)), "TRAIN.DATASET", "motion", "TEST.DATASET", "motion")
            assert (cfg.TRAIN.DATASET, cfg.TEST.DATASET) == ("motion", "motion")

    def test_base_of_ours_on_a_file_of_theirs(self, write):
        write(tree_of("Kinetics__MVITv2_S_16x4"), "theirs.yaml")
        cfg, _ = load(write("_BASE_: theirs.yaml\nMVIT:\n  DROPPATH_RATE: 0.1\nTRAIN:\n  PRECISION: bf16\n"))
        assert (cfg.MODEL.ARGS.drop_path_rate, cfg.TRAIN.PRECISION) == (0.1, "bf16")

    def test_the_translated_config_is_one_of_ours(self, write):
        cfg, _ = load(write(tree_of("Kinetics__MVITv2_S_16x4")))
        again, warning = load(write(cfg.dump(), "config.yaml"))
        assert again == cfg and warning == ""


def test_knows_key():
    assert knows_key("MVIT.DEPTH") and knows_key("BN.ANYTHING")
    assert not knows_key("MODEL.NAME") and not knows_key("MVIT.DEPHT")
