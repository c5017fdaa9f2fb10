"""mmaction2's lists, folders of images, and extracted frames in place of videos."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.datasets.test_published import rows, ssv2, ucf101  # noqa: F401 (fixtures)
from vidformers.data.records import NO_LABEL
from vidformers.engine.build import build_test_dataset, build_train_loader, load_videos
from vidformers.engine.test import test as run_test

FRAMES = ("DATA.DECODING_BACKEND", "frames")


def write_frames(folder: Path, count: int, *, height: int = 48, width: int = 64) -> None:
    """img_00001.jpg, ...: grey images whose brightness is 10 times their number."""
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        image = np.full((height, width, 3), 10 * number, np.uint8)
        Image.fromarray(image).save(folder / f"img_{number:05d}.jpg", quality=95)


# ---- mmaction2


def test_mmaction2_videos(make_cfg, put_videos, tmp_path: Path) -> None:
    put_videos(tmp_path / "videos_train", "some/path/000.mp4", "take 2 3.mp4", "abs.mkv")
    train = tmp_path / "kinetics400_train_list_videos.txt"
    train.write_bytes(
        f"some/path/000.mp4 1\r\ntake 2 3.mp4 2\r\n{tmp_path}/videos_train/abs.mkv 0\r\n".encode("utf-8-sig")
    )
    (tmp_path / "kinetics400_train_list_rawframes.txt").write_text("some/path/000 300 1\n")
    (tmp_path / "kinetics400_val_list_videos.txt").write_text("abs.mkv 5\n")
    prefix = ("DATA.PATH_PREFIX", str(tmp_path / "videos_train"))
    videos = load_videos(make_cfg("mmaction2", tmp_path, *prefix), "train")
    assert rows(videos, tmp_path / "videos_train") == [
        ("some/path/000.mp4", 1),
        ("take 2 3.mp4", 2),
        ("abs.mkv", 0),
    ]
    assert not videos.is_multi_label
    for split in ("val", "test"):
        videos = load_videos(make_cfg("mmaction2", tmp_path, *prefix), split)
        assert rows(videos, tmp_path / "videos_train") == [("abs.mkv", 5)]
    # Without a prefix paths start at the lists.
    (tmp_path / "kinetics400_val_list_videos.txt").write_text("videos_train/abs.mkv 5\n")
    assert rows(load_videos(make_cfg("mmaction2", tmp_path), "val"), tmp_path) == [
        ("videos_train/abs.mkv", 5)
    ]


def test_mmaction2_with_several_labels(make_cfg, put_videos, tmp_path: Path) -> None:
    put_videos(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "train.txt").write_text("a.mp4 1\nb.mp4 5 3\n")
    videos = load_videos(make_cfg("mmaction2", tmp_path, "MODEL.LOSS_FUNC", "bce_logit"), "train")
    assert [(r.label, r.labels) for r in videos.records] == [(NO_LABEL, (1,)), (NO_LABEL, (3, 5))]


def test_mmaction2_frames(make_cfg, tmp_path: Path) -> None:
    write_frames(tmp_path / "rawframes/dir one", 9)
    write_frames(tmp_path / "rawframes/dir-2", 6)
    (tmp_path / "ucf101_train_split_1_rawframes.txt").write_text("dir-2 6 0\n")
    (tmp_path / "ucf101_train_split_2_rawframes.txt").write_text("dir one 9 1\ndir-2 6 0\n")
    (tmp_path / "ucf101_val_split_2_rawframes.txt").write_text("dir one 9 1\n")
    settings = ("DATA.PATH_PREFIX", str(tmp_path / "rawframes"), "DATA.SPLIT_NUMBER", "2", *FRAMES)
    cfg = make_cfg("mmaction2", tmp_path, *settings, "DATA.TEMPORAL_SAMPLING", "segment")
    assert rows(load_videos(cfg, "train"), tmp_path / "rawframes") == [("dir one", 1), ("dir-2", 0)]
    item = build_test_dataset(cfg, load_videos(cfg, "test"), num_views=1, num_crops=1)[0]
    # 9 frames in 4 segments: frames 1, 3, 5, 7, whose brightness is 20, 40, 60, 80.
    assert item.frames.float().mean(dim=(1, 2, 3)).round().tolist() == [20, 40, 60, 80]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.mp4", "line 1 is 'a.mp4'; wanted `path/video.mp4 label`"),
        ("folder 300 1", "for folders of frames set DATA.DECODING_BACKEND frames"),
        ("a.mp4 one", "line 1 is 'a.mp4 one'"),
        ("", "is empty"),
    ],
)
def test_mmaction2_with_an_odd_row(make_cfg, tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "train.txt").write_text(row + "\n")
    with pytest.raises(ValueError, match=message):
        load_videos(make_cfg("mmaction2", tmp_path), "train")
    (tmp_path / "val.txt").write_text("folder 1 300 1\n")
    with pytest.raises(ValueError, match="line 1 is 'folder 1 300 1'; wanted `folder frames label`"):
        load_videos(make_cfg("mmaction2", tmp_path, *FRAMES), "val")


def test_mmaction2_needs_one_list(make_cfg, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no list for train; wanted one file such as train\.txt"):
        load_videos(make_cfg("mmaction2", tmp_path), "train")
    for name in ("a_train_list_videos.txt", "b_train_list_videos.txt"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"2 lists for train: a_train_list_videos.txt, b_train"):
        load_videos(make_cfg("mmaction2", tmp_path), "train")


# ---- images


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    folder = tmp_path / "imagenet"
    for path, level in {
        "train/n01440764/n01440764_10026.JPEG": 40,
        "train/n02/b.png": 80,
        "train/n10/c.jpg": 120,
        "val/n02/ILSVRC2012_val_00000001.JPEG": 200,
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((48, 64, 3), level, np.uint8)).save(folder / path)
    (folder / "train/n02/notes.txt").touch()
    return folder


def test_images_are_videos_of_one_frame(make_cfg, imagenet: Path) -> None:
    cfg = make_cfg("imagenet", imagenet, *FRAMES)
    videos = load_videos(cfg, "train")
    assert videos.class_names == ["n01440764", "n02", "n10"]
    assert rows(videos, imagenet) == [
        ("train/n01440764/n01440764_10026.JPEG", 0),
        ("train/n02/b.png", 1),
        ("train/n10/c.jpg", 2),
    ]
    clip = build_train_loader(cfg, videos).dataset[2]["clip"]
    assert clip.shape == (1, 3, 4, 32, 32)  # DATA.NUM_FRAMES 4: the image four times
    assert (clip.float() - 120).abs().max() <= 2
    item = build_test_dataset(cfg, load_videos(cfg, "test"), num_views=1, num_crops=1)[0]
    assert (len(item.frames), item.view_index.tolist()) == (1, [[0, 0, 0, 0]])
    assert item.label == 1


def test_a_test_run_on_images(make_cfg, imagenet: Path) -> None:
    settings = ("DATA.NUM_FRAMES", "2", "MODEL.NUM_CLASSES", "3", "TEST.NUM_ENSEMBLE_VIEWS", "1")
    (imagenet / "val/n02/broken.jpg").write_text("no image")
    results = run_test(make_cfg("imagenet", imagenet, *FRAMES, *settings))
    assert (results["num_videos"], results["num_failed"]) == (2, 1)


def test_images_with_an_odd_folder(make_cfg, imagenet: Path) -> None:
    with pytest.raises(ValueError, match=r"is 'pyav'; images are read with DATA.DECODING_BACKEND frames"):
        load_videos(make_cfg("imagenet", imagenet), "train")
    (imagenet / "val/n77").mkdir()
    with pytest.raises(ValueError, match=r"class folder 'n77', which '.*train' has not"):
        load_videos(make_cfg("imagenet", imagenet, *FRAMES), "val")
    (imagenet / "val/n77").rmdir()
    image = imagenet / "val/n02/ILSVRC2012_val_00000001.JPEG"
    image.rename(imagenet / "val" / image.name)
    with pytest.raises(ValueError, match="have to be moved into folders of their classes"):
        load_videos(make_cfg("imagenet", imagenet, *FRAMES), "val")
    with pytest.raises(FileNotFoundError, match=r"no folder '.*val'"):
        load_videos(make_cfg("imagenet", imagenet / "train", *FRAMES), "val")


# ---- extracted frames


def test_extracted_frames_of_ssv2(make_cfg, ssv2: Path) -> None:  # noqa: F811
    write_frames(ssv2 / "frames/78687", 5)
    write_frames(ssv2 / "frames/42326", 5)
    settings = (*FRAMES, "DATA.PATH_PREFIX", str(ssv2 / "frames"))
    cfg = make_cfg("ssv2", ssv2, *settings)
    videos = load_videos(cfg, "train")
    assert rows(videos, ssv2) == [("frames/78687", 1), ("frames/42326", 0)]
    assert torch.is_tensor(build_train_loader(cfg, videos).dataset[0]["clip"])


def test_extracted_frames_beside_the_videos(make_cfg, ucf101: Path) -> None:  # noqa: F811
    name = "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01"
    write_frames(ucf101 / name, 3)
    assert rows(load_videos(make_cfg("ucf101", ucf101), "train"), ucf101) == [(f"{name}.avi", 0)]
    assert rows(load_videos(make_cfg("ucf101", ucf101, *FRAMES), "train"), ucf101) == [(name, 0)]
