"""What a run says of settings that changed, or that no step will use, and what config.yaml then holds."""

import shutil
from pathlib import Path

import pytest
import simplejson
import yaml

from vidformers.cli.run import main
from vidformers.config.defaults import get_defaults
from vidformers.config.values import get, has
from vidformers.engine.training_settings import WITHOUT_A_SAY, changed_settings

CONFIG = """
_BASE_: {base}
DATA: {{PATH_TO_DATA_DIR: {data}}}
TRAIN: {{BATCH_SIZE: 4}}
TEST: {{BATCH_SIZE: 4, NUM_ENSEMBLE_VIEWS: 1}}
SOLVER: {{MAX_EPOCH: 2, BASE_LR: 1e-3}}
OUTPUT_DIR: {output}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    """The folder of a run of two epochs."""
    folder = tmp_path_factory.mktemp("finished")
    base = Path(__file__).with_name("tiny.yaml")
    text = CONFIG.format(base=base, data=tiny_dataset, output=folder / "out")
    (folder / "run.yaml").write_text(text)
    assert main(["--cfg", str(folder / "run.yaml")]) == 0
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def run(folder: Path, *overrides: str) -> int:
    return main(["--cfg", str(folder / "run.yaml"), "OUTPUT_DIR", str(folder / "out"), *overrides])


def written(folder: Path, *keys: str) -> list[object]:
    settings = yaml.safe_load((folder / "out" / "config.yaml").read_text())
    return [get(settings, key) for key in keys]


@pytest.mark.parametrize("max_epoch", ["2", "1"])
def test_a_finished_run_says_that_nothing_is_left_and_keeps_its_settings(
    folder: Path, max_epoch: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = folder / "out" / "failed_videos.csv"
    failed.write_text("split,path,reason,detail,backend\ntrain,gone.mp4,not found,it is gone,pyav\n")
    log = (folder / "out" / "log.jsonl").read_text()
    changed = "SOLVER.BASE_LR 0.01 DATA.SAMPLING_RATE 2 MODEL.ARGS {'embed_dim':8,'drop_path_rate':0.1}"
    changed += " TEST.NUM_ENSEMBLE_VIEWS 2 DATA.TEST_CROP_SIZE 36 DATA.TRAIN_JITTER_SCALES [40,44]"
    assert run(folder, "SOLVER.MAX_EPOCH", max_epoch, *changed.split()) == 0
    said = capsys.readouterr().out
    checkpoint = folder / "out" / "checkpoints" / "checkpoint_epoch_00002.pyth"
    assert (
        f"Nothing is left to train: 2 epochs are done ({checkpoint}), and SOLVER.MAX_EPOCH is {max_epoch}. "
        "Raise it to go on, or set another OUTPUT_DIR for a new run." in said
    )
    assert "which config.yaml keeps: DATA.SAMPLING_RATE 4 -> 2; DATA.TRAIN_JITTER_SCALES" in said
    assert "MODEL.ARGS.drop_path_rate unset -> 0.1; SOLVER.BASE_LR 0.001 -> 0.01" in said
    assert "Training mvit_tiny" not in said and "Resuming" not in said
    trained = written(folder, "SOLVER.BASE_LR", "SOLVER.MAX_EPOCH", "DATA.SAMPLING_RATE", "MODEL.ARGS")
    assert trained == [0.001, 2, 4, {"embed_dim": 8}]
    # The test was one of the new command.
    assert written(folder, "TEST.NUM_ENSEMBLE_VIEWS", "DATA.TEST_CROP_SIZE") == [2, 36]
    results = simplejson.loads((folder / "out" / "test_results.json").read_text())
    assert (results["num_views"], results["crop_size"], results["sampling_rate"]) == (2, 36, 2)
    # Nothing was trained, so its record stays as it is.
    events = [simplejson.loads(line)["event"] for line in (folder / "out" / "log.jsonl").open()]
    assert len(events) == log.count("\n") + 1 and events[-1] == "test"
    assert "gone.mp4" in failed.read_text()


def test_a_test_alone_leaves_the_settings_of_the_training(folder: Path) -> None:
    test = ("TRAIN.ENABLE", "False", "TEST.NUM_SPATIAL_CROPS", "3")
    assert run(folder, *test, "SOLVER.MAX_EPOCH", "9", "MODEL.ARGS", "{'embed_dim':8}") == 0
    assert written(folder, "SOLVER.MAX_EPOCH", "TEST.NUM_SPATIAL_CROPS", "TRAIN.ENABLE") == [2, 3, False]
    # One that cannot be read says nothing that could be kept.
    (folder / "out" / "config.yaml").write_text("SOLVER: {GONE: 1}")
    assert run(folder, *test, "SOLVER.MAX_EPOCH", "9") == 0
    assert written(folder, "SOLVER.MAX_EPOCH") == [9]


def test_all_settings_with_a_say_in_training_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = "SOLVER.MAX_EPOCH 3 DATA.SAMPLING_RATE 2 DATA.RANDOM_FLIP False DATA.MEAN [0.5,0.5,0.5]"
    changes += " RNG_SEED 5 AUG.ENABLE True TRAIN.EVAL_PERIOD 2"
    others = (
        "TEST.ENABLE False TEST.PRECISION bf16 LOG_PERIOD 2 TRAIN.CHECKPOINT_PERIOD 3 DATA.TEST_CROP_SIZE 36"
    )
    assert run(folder, *changes.split(), *others.split()) == 0
    (line,) = (
        line for line in capsys.readouterr().out.splitlines() if line.startswith("  settings changed since: ")
    )
    named = [change.split()[0] for change in line.partition(": ")[2].split("; ")]
    assert named == sorted(changes.split()[::2])
    assert "AUG.ENABLE False -> True" in line and "DATA.MEAN [0.45, 0.45, 0.45] -> [0.5, 0.5, 0.5]" in line
    assert written(folder, "DATA.SAMPLING_RATE", "RNG_SEED") == [2, 5]


def test_a_checkpoint_of_other_classes_is_named_with_both(
    tmp_path: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("two/dog", "two/pancake", "three/cat", "three/dog", "three/pancake")):
        (tmp_path / name).mkdir(parents=True)
        for video in range(3):
            shutil.copy(tiny_dataset / f"video_{(video + number) % 8}.mp4", tmp_path / name / f"{video}.mp4")
    folders = "TRAIN.DATASET folder TEST.DATASET folder MODEL.NUM_CLASSES 0 SOLVER.MAX_EPOCH 1".split()  # noqa: SIM905
    text = CONFIG.format(base=Path(__file__).with_name("tiny.yaml"), data="", output="")
    (tmp_path / "run.yaml").write_text(text)

    def error_of(*overrides: str) -> str:
        assert run(tmp_path, *folders, "DATA.PATH_TO_DATA_DIR", str(tmp_path / "three"), *overrides) == 1
        return capsys.readouterr().err

    assert run(tmp_path, *folders, "DATA.PATH_TO_DATA_DIR", str(tmp_path / "two")) == 0
    (tmp_path / "out" / "folder_split.json").unlink()
    checkpoints = tmp_path / "out" / "checkpoints"
    said = "{0} knows 2 classes (dog, pancake), the data has 3 (cat, dog, pancake). To {1}, give the data it "
    said += (
        "was trained on; for a new run set another OUTPUT_DIR, and TRAIN.CHECKPOINT_FILE_PATH {0} to start"
    )
    own, best = checkpoints / "checkpoint_epoch_00001.pyth", checkpoints / "best.pyth"
    assert said.format(own, "go on with it") in error_of("SOLVER.MAX_EPOCH", "2")
    assert said.format(own, "test it") in error_of("TRAIN.ENABLE", "False")
    elsewhere = ("OUTPUT_DIR", str(tmp_path / "other"), "TEST.CHECKPOINT_FILE_PATH", str(best))
    assert said.format(best, "test it") in error_of("TRAIN.ENABLE", "False", *elsewhere)
    # Any other misfit names the file too.
    wider = ("MODEL.ARGS", "{'embed_dim':16}", "DATA.PATH_TO_DATA_DIR", str(tmp_path / "two"))
    assert f"{own}: " in error_of("TRAIN.ENABLE", "False", *wider)
    # And what is advised works.
    new = ("OUTPUT_DIR", str(tmp_path / "new"), "TRAIN.CHECKPOINT_FILE_PATH", str(best))
    assert run(tmp_path, *folders, "DATA.PATH_TO_DATA_DIR", str(tmp_path / "three"), *new) == 0


def test_keys_without_a_say_exist() -> None:
    schema = get_defaults()
    assert [name for name in WITHOUT_A_SAY if not has(schema, name) and name not in schema] == []
    assert changed_settings(schema, schema) == {}
