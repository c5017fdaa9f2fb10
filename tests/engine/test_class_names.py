"""Class names travel with the checkpoint and are compared with those of the dataset, by name."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.data.datasets.conftest import CONFIG
from vidformers.checkpoints import load_weights
from vidformers.config import load_config
from vidformers.engine.build import load_videos
from vidformers.engine.checkpoint import check_class_names
from vidformers.engine.test import test as run_test
from vidformers.engine.train import Trainer
from vidformers.models import create_model

TRAINED = ["riding a bike", "abseiling", "zumba"]


@pytest.mark.parametrize(
    "given",
    [
        None,
        TRAINED,
        ["riding_a_bike", "Abseiling", '"zumba"'],  # as other projects write them
        TRAINED[:2],
    ],
)
def test_equal_orders_are_silent(tmp_path: Path, capsys, given) -> None:
    check_class_names("x.pyth", TRAINED, given, tmp_path)
    check_class_names("x.pyth", None, given, tmp_path)
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [["abseiling", "riding_a_bike", "zumba"], ["abseiling"]])
def test_another_order_is_an_error_with_the_right_one(tmp_path: Path, given) -> None:
    with pytest.raises(ValueError) as error:
        check_class_names("x.pyth", TRAINED, given, tmp_path)
    assert "x.pyth was trained with the classes in another order: label 0 is 'riding a bike' there" in str(
        error.value
    )
    assert "'abseiling' in the dataset" in str(error.value)
    assert (tmp_path / "checkpoint_classes.txt").read_text().splitlines() == TRAINED


def test_other_classes_are_said(tmp_path: Path, capsys) -> None:
    check_class_names("x.pyth", TRAINED, ["abseiling", "yoga", "zumba"], tmp_path)
    assert "1 of the dataset's 3 are not among its 3, such as 'yoga'" in capsys.readouterr().out


def test_the_names_are_read_with_the_weights() -> None:
    state = create_model("mvit_tiny", num_classes=3, embed_dim=8).state_dict()
    for names, read in ((TRAINED, TRAINED), (None, None), ("odd", None), ([1, 2], None)):
        model = create_model("mvit_tiny", num_classes=3, embed_dim=8)
        assert load_weights(model, {"model": state, "class_names": names}).class_names == read


@pytest.fixture
def folder_cfg(tmp_path: Path, tiny_dataset: Path):
    """folder_cfg(output, ...) for a class folder dataset of two classes, blue (label 0) and red (1)."""
    folder = tmp_path / "videos"
    for split in ("train", "val"):
        for seed in range(4):
            target = folder / split / ("red" if seed % 2 else "blue") / f"{seed}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tiny_dataset / f"video_{seed}.mp4", target)
    (tmp_path / "tiny.yaml").write_text(CONFIG)

    def make(output: str, *overrides: str):
        (tmp_path / output).mkdir(exist_ok=True)
        fixed = ["TRAIN.DATASET", "folder", "TEST.DATASET", "folder", "MODEL.NUM_CLASSES", "2"]
        fixed += ["DATA.PATH_TO_DATA_DIR", str(folder), "OUTPUT_DIR", str(tmp_path / output)]
        return load_config(str(tmp_path / "tiny.yaml"), [*fixed, *overrides])

    return make


def trainer_of(cfg) -> Trainer:
    return Trainer(cfg, load_videos(cfg, "train"), load_videos(cfg, "val"))


def test_a_checkpoint_and_a_dataset_in_another_order(folder_cfg, tmp_path: Path, capsys) -> None:
    first = folder_cfg("first")
    trainer_of(first).run()
    path = tmp_path / "first" / "checkpoints" / "checkpoint_epoch_00001.pyth"
    assert torch.load(path, weights_only=True)["class_names"] == ["blue", "red"]
    weights = ("TRAIN.CHECKPOINT_FILE_PATH", str(path))
    expected = run_test(first)

    (tmp_path / "videos" / "classes.txt").write_text("red\nblue\n")
    order = r"another order: label 0 is 'blue' there and 'red' in the dataset, and so for 2 of 2"
    with pytest.raises(ValueError, match=order):
        run_test(folder_cfg("first"))
    with pytest.raises(ValueError, match=order):
        run_test(folder_cfg("second", "TEST.CHECKPOINT_FILE_PATH", str(path)))
    with pytest.raises(ValueError, match=order):
        trainer_of(folder_cfg("first"))  # resumes
    with pytest.raises(ValueError, match=order):
        trainer_of(folder_cfg("second", *weights))  # fine-tunes, with the old classifier
    trainer_of(folder_cfg("third", *weights, "MODEL.NUM_CLASSES", "5"))  # with a new one

    # What the error asks for.
    shutil.copy(tmp_path / "first" / "checkpoint_classes.txt", tmp_path / "videos" / "classes.txt")
    assert run_test(folder_cfg("first"))["top1"] == expected["top1"]
    capsys.readouterr()
    (tmp_path / "videos" / "classes.txt").unlink()
    for split in ("train", "val"):
        (tmp_path / "videos" / split / "red").rename(tmp_path / "videos" / split / "scarlet")
    trainer_of(folder_cfg("fourth", *weights))
    assert "1 of the dataset's 2 are not among its 2, such as 'scarlet'" in capsys.readouterr().out
