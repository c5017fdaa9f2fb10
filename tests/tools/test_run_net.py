"""The command line as a user types it: what it writes, and how it says what is wrong."""

import subprocess
import sys

import pytest
import simplejson

from tests.warm_processes import ROOT, RUN_NET, run_script

TINY = """
    MODEL.NAME mvit_tiny MODEL.NUM_CLASSES 2 MODEL.ARGS {'embed_dim':8}
    DATA.NUM_FRAMES 4 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32 DATA.TRAIN_JITTER_SCALES [36,40]
    DATA_LOADER.NUM_WORKERS 0 SOLVER.MAX_EPOCH 1 SOLVER.WARMUP_EPOCHS 0.0 TRAIN.BATCH_SIZE 4
    AUG.NUM_SAMPLE 1 DEVICE cpu TRAIN.PRECISION fp32 TEST.PRECISION fp32
""".split()  # noqa: SIM905
PUBLISHED = ("--cfg", "configs/mvit_b_16x4.yaml")


def run_net(*arguments: str) -> subprocess.CompletedProcess:
    """As a user does it, in a process that starts from nothing."""
    return subprocess.run(
        [sys.executable, str(RUN_NET), *arguments], capture_output=True, text=True, cwd=ROOT, timeout=300
    )


def error_of(*arguments: str) -> str:
    """The message of a run that must fail: one paragraph on stderr, no traceback, exit code not 0."""
    result = run_script(RUN_NET, *arguments)
    assert result.returncode not in (0, None), result.stdout
    assert "Traceback" not in result.stderr, result.stderr
    message = result.stderr.strip().split("run_net.py: ")[-1]
    assert "\n\n" not in message
    return message


def test_train_and_test_from_the_published_config(tiny_dataset, tmp_path):
    out = tmp_path / "out"
    result = run_net(
        *PUBLISHED,
        *TINY,
        "DATA.PATH_TO_DATA_DIR",
        str(tiny_dataset),
        "OUTPUT_DIR",
        str(out),
    )
    assert result.returncode == 0, result.stderr
    results = simplejson.loads((out / "test_results.json").read_text())
    assert results["num_videos"] == 8 and results["num_views"] == 5 and results["num_failed"] == 0
    assert {"config.yaml", "log.jsonl", "predictions.npz", "checkpoints"} <= {
        path.name for path in out.iterdir()
    }
    page = (out / "report.html").read_text()
    assert '<section id="training"' in page and '<section id="test"' in page
    assert "top-1" in result.stdout
    # What was written is a configuration that can be run again, with the --opts spelling of PySlowFast.
    again = run_script(RUN_NET, "--cfg", str(out / "config.yaml"), "--opts", "TRAIN.ENABLE", "False")
    assert again.returncode == 0, again.stderr
    assert simplejson.loads((out / "test_results.json").read_text())["top1"] == results["top1"]


def test_kinetics_config_without_a_path_says_what_to_set():
    message = error_of(*PUBLISHED)
    assert "DATA.PATH_TO_DATA_DIR" in message and "TRAIN.DATASET motion TEST.DATASET motion" in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["SOLVER.BASE_LRR", "1"], "SOLVER.BASE_LR"),
        (["SOLVER.BASE_LR", "fast"], "SOLVER.BASE_LR"),
        (["SOLVER.BASE_LR"], "KEY VALUE"),
        (["MODEL.NAME", "mvit_b_16x3"], "mvit_b_16x4"),
        (["MODEL.ARGS", "{'drop_path': 0.1}"], "drop_path_rate"),
        (["DATA.NUM_FRAMES", "15"], "15"),
        (
            ["DATA.PATH_TO_DATA_DIR", "/nowhere"],
            "'/nowhere', which does not exist; wanted the folder that holds train.csv",
        ),
        (["TRAIN.DATASET", "kinetix"], "kinetics"),
        (["ABLATION.ENABLE", "True", "ABLATION.PERTURBATIONS", "['shuffle','reverze']"], "reverse"),
        (["ABLATION.ENABLE", "True", "ABLATION.PERTURBATIONS", "['block_shuffle[16]']"], "block_shuffle[16]"),
    ],
    ids=[
        "misspelt",
        "type",
        "odd",
        "model",
        "argument",
        "frames",
        "missing list",
        "dataset",
        "ablation",
        "block",
    ],
)
def test_a_wrong_setting_is_named(arguments, expected):
    assert expected in error_of(*PUBLISHED, *arguments)


def test_missing_config_names_the_path():
    assert "configs/mvit_b_16x5.yaml" in error_of("--cfg", "configs/mvit_b_16x5.yaml")


def test_bad_rows_are_quoted_with_their_line(tmp_path, tiny_dataset):
    rows = (tiny_dataset / "train.csv").read_text().splitlines()
    (tmp_path / "train.csv").write_text("\n".join([*rows[:2], "video_without_label.mp4", *rows[2:]]))
    message = error_of(*PUBLISHED, "DATA.PATH_TO_DATA_DIR", str(tmp_path))
    assert f"{tmp_path}/train.csv" in message and "3" in message and "video_without_label.mp4" in message


def test_a_checkpoint_of_another_model_is_refused(tmp_path, tiny_dataset):
    import torch

    torch.save(
        {"model_state": {"s1.pathway0_stem.conv.weight": torch.zeros(8, 3, 1, 7, 7)}}, tmp_path / "slow.pyth"
    )
    message = error_of(
        *PUBLISHED,
        *TINY,
        "DATA.PATH_TO_DATA_DIR",
        str(tiny_dataset),
        "OUTPUT_DIR",
        str(tmp_path / "out"),
        "TRAIN.ENABLE",
        "False",
        "TEST.CHECKPOINT_FILE_PATH",
        str(tmp_path / "slow.pyth"),
    )
    assert "slow.pyth" in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["TEST.CHECKPOINT_FILE_PATH", "/nowhere.pyth"], "TEST.CHECKPOINT_FILE_PATH is /nowhere.pyth"),
        (["TRAIN.SHARD", "True"], "torchrun --nproc_per_node=8"),
    ],
)
def test_what_cannot_be_done_is_said_before_training(tmp_path, tiny_dataset, arguments, expected):
    out = tmp_path / "out"
    common = ("DATA.PATH_TO_DATA_DIR", str(tiny_dataset), "OUTPUT_DIR", str(out))
    assert expected in error_of(*PUBLISHED, *TINY, *common, *arguments)
    assert not (out / "log.jsonl").exists()


def test_a_list_where_nothing_can_be_read_fails_after_writing_why(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_text("text")
    (tmp_path / "test.csv").write_text("a.mp4 0\nb.mp4 1\n")
    message = error_of(
        *PUBLISHED,
        *TINY,
        "DATA.PATH_TO_DATA_DIR",
        str(tmp_path),
        "DATA.PATH_PREFIX",
        str(tmp_path),
        "OUTPUT_DIR",
        str(tmp_path / "out"),
        "TRAIN.ENABLE",
        "False",
    )
    assert "None of the 2 videos" in message
    assert (tmp_path / "out" / "failed_videos.csv").read_text().count("a.mp4") >= 1


def test_an_error_in_a_worker_is_one_paragraph(tmp_path):
    rows = "".join(f"missing_{i}.mp4 {i % 2}\n" for i in range(16))
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text(rows)
    settings = ["DATA.PATH_TO_DATA_DIR", str(tmp_path), "OUTPUT_DIR", str(tmp_path / "out")]
    message = error_of(*PUBLISHED, *TINY, *settings, "DATA_LOADER.NUM_WORKERS", "2")
    assert "DATA.PATH_PREFIX" in message and "missing_" in message


def test_importing_vidformers_loads_neither_torchvision_nor_pytorchvideo():
    code = (
        "import sys, vidformers as vf; vf.create_model('mvit_tiny');"
        "heavy = {'torchvision', 'pytorchvideo', 'decord', 'av', 'matplotlib'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert result.returncode == 0, result.stderr
