"""Charades and other lists with several labels a video: from the official files to mAP."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vidformers.data.records import NO_LABEL, Record, labels_between
from vidformers.engine.ablate import ablate
from vidformers.engine.build import build_train_loader, load_videos
from vidformers.engine.predictions import mean_average_precision
from vidformers.engine.test import test as run_test
from vidformers.engine.train import Trainer

HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length"
# Times within the two seconds of the small test videos: 24 frames at 12 fps.
ROWS = [
    'YSKX3,F72V,Bedroom,6,7,Yes,"A person says ""hi"", and fixes a bed.",bed;phone,"One; two.",'
    "c002 0.00 0.40;c000 1.60 2.00,2.00",
    "7UPGT,J5YP,Kitchen,6,7,No,Cooking.,stove,Someone cooks.,c001 0.00 2.00;c001 1.00 2.00,2.00",
    "NONE1,J5YP,Kitchen,6,7,No,Nothing happens.,,Nothing.,,2.00",
]
MULTI_LABEL = ("MODEL.LOSS_FUNC", "bce_logit", "MODEL.NUM_CLASSES", "3")


@pytest.fixture
def charades(tmp_path: Path, put_videos) -> Path:
    folder = tmp_path / "charades"
    (folder / "Charades").mkdir(parents=True)
    (folder / "Charades/Charades_v1_classes.txt").write_text(
        "c000 Holding some clothes\nc001 Putting clothes somewhere\nc002 Fixing a bed\n"
    )
    for part in ("train", "test"):
        text = "\r\n".join([HEADER, *(ROWS if part == "train" else ROWS[:2]), ""])
        (folder / f"Charades/Charades_v1_{part}.csv").write_bytes(text.encode())
    put_videos(folder / "Charades_v1_480", "YSKX3.mp4", "7UPGT.mp4", "NONE1.mp4")
    return folder


def test_charades(make_cfg, charades: Path) -> None:
    videos = load_videos(make_cfg("charades", charades, *MULTI_LABEL), "train")
    assert videos.class_names == ["Holding some clothes", "Putting clothes somewhere", "Fixing a bed"]
    assert videos.is_multi_label
    path = str(charades / "Charades_v1_480" / "YSKX3.mp4")
    actions = ((2, 0.0, 0.4), (0, 1.6, 2.0))
    assert videos.records[0] == Record(path, NO_LABEL, "YSKX3", (0, 2), actions)
    assert [record.labels for record in videos.records] == [(0, 2), (1,), ()]
    assert len(load_videos(make_cfg("charades", charades, *MULTI_LABEL), "test").records) == 2


def test_charades_with_an_odd_file(make_cfg, charades: Path) -> None:
    path = charades / "Charades" / "Charades_v1_train.csv"
    path.write_text("id,actions\nA,c009 1 2\n")
    with pytest.raises(ValueError, match=r"line 2: the actions 'c009 1 2' of A are not `class start end;"):
        load_videos(make_cfg("charades", charades, *MULTI_LABEL), "train")
    (charades / "Charades" / "Charades_v1_classes.txt").write_text("c001 Eating\n")
    with pytest.raises(ValueError, match="line 1 is 'c001 Eating'; wanted `c000 name`"):
        load_videos(make_cfg("charades", charades, *MULTI_LABEL), "train")


def test_the_loss_must_suit_sets_of_labels(make_cfg, charades: Path) -> None:
    with pytest.raises(ValueError, match=r"LOSS_FUNC is 'cross_entropy'; set MODEL.LOSS_FUNC bce_logit"):
        load_videos(make_cfg("charades", charades), "train")


def test_a_clip_has_the_labels_of_the_actions_in_it(make_cfg, charades: Path) -> None:
    record = Record("a", NO_LABEL, "a", (0, 2), ((2, 0.0, 0.4), (0, 1.6, 2.0)))
    spans = {(0.1, 0.3): (2,), (0.5, 1.5): (), (0.4, 1.6): (0, 2), (1.7, 1.9): (0,)}
    assert {span: labels_between(record, *span) for span in spans} == spans
    assert labels_between(Record("a", NO_LABEL, "a", (1, 2)), 0, 1) == (1, 2)

    short = ("DATA.NUM_FRAMES", "2", "DATA.SAMPLING_RATE", "1", "DATA.TARGET_FPS", "12")
    cfg = make_cfg("charades", charades, *MULTI_LABEL, *short, "AUG.ENABLE", "True", "AUG.NUM_SAMPLE", "2")
    dataset = build_train_loader(cfg, load_videos(cfg, "train")).dataset
    seen = set()
    for epoch in range(30):
        dataset.set_epoch(epoch)
        seen.add(tuple(dataset[0]["label"].tolist()))
    assert seen == {(0.0, 0.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0)}
    loader = build_train_loader(cfg, load_videos(cfg, "train"))
    batch = next(iter(loader))
    assert batch["label"].shape == (4, 3)  # 2 videos, 2 copies of each side by side
    assert torch.equal(batch["label"][0], batch["label"][1])
    assert batch["index"].tolist()[::2] == batch["index"].tolist()[1::2]


def test_training_and_testing_charades(make_cfg, charades: Path, capsys) -> None:
    (charades / "Charades_v1_480" / "7UPGT.mp4").unlink()
    train = charades / "Charades" / "Charades_v1_train.csv"
    train.write_text("\r\n".join([HEADER, ROWS[0], ROWS[2], ""]), newline="")
    cfg = make_cfg("charades", charades, *MULTI_LABEL)
    trainer = Trainer(cfg, load_videos(cfg, "train"), load_videos(cfg, "val"))
    assert set(trainer.run()) >= {"map", "top1", "loss"}
    assert "mAP" in capsys.readouterr().out
    results = run_test(cfg)
    assert "mAP" in capsys.readouterr().out
    saved = json.loads((Path(cfg.OUTPUT_DIR) / "test_results.json").read_text())
    assert saved["map"] == results["map"]
    assert (results["num_videos"], results["num_failed"]) == (2, 1)
    table = np.load(Path(cfg.OUTPUT_DIR) / "predictions.npz")
    assert table["labels"].tolist() == [[True, False, True], [False, True, False]]
    readable = table["scores"][0]
    assert abs(readable.sum() - 1) > 1e-3  # a sigmoid a class, no softmax
    # One readable video: its classes are ranked perfectly, and the unreadable one ranks last of two.
    assert results["map"] == pytest.approx(100 * (1 + 0.5 + 1) / 3)
    assert results["map_readable"] == 100
    assert [row["average_precision"] for row in results["per_class"]] == [100, 50, 100]
    assert results["accuracy_by_num_views"][-1]["map"] == results["map"]
    assert results["map"] == mean_average_precision(table["scores"], table["labels"])


def test_the_ablation_needs_a_label_a_video(make_cfg, charades: Path) -> None:
    with pytest.raises(ValueError, match=r"several labels each; set ABLATION.ENABLE False"):
        ablate(make_cfg("charades", charades, *MULTI_LABEL))
