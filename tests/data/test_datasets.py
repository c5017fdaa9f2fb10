"""Lists, folders, and the datasets over them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import write_video
from vidformers.data.clip_sampling import test_views as sample_views
from vidformers.data.datasets import clips
from vidformers.data.datasets.clips import TestVideos, TrainClips, collate_train, collate_videos
from vidformers.data.datasets.folder import scan_folder, stratified_split
from vidformers.data.datasets.kinetics import read_list
from vidformers.data.readers import VideoReadError, open_video
from vidformers.data.records import Classes, Record, check_labels, read_classes
from vidformers.data.views import gather_views

SIZES = [(48, 64), (64, 48), (48, 64), (36, 80), (48, 64), (48, 64)]
TRAIN: dict[str, Any] = {
    "num_frames": 4,
    "sampling_rate": 2,
    "target_fps": 12,
    "crop_size": 32,
    "jitter_scales": (32, 40),
}
TEST: dict[str, Any] = {
    "num_frames": 4,
    "sampling_rate": 2,
    "target_fps": 12,
    "num_views": 3,
    "num_crops": 3,
    "short_side": 32,
    "crop_size": 32,
    "use_offset": True,
}


# ---- lists


def write_list(path: Path, *rows: str) -> str:
    path.write_text("\n".join(rows) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("row", "separator", "path", "label"),
    [
        ("a.mp4 3", " ", "a.mp4", 3),
        ("dir with spaces/a b.mp4 3", " ", "dir with spaces/a b.mp4", 3),
        ("a.mp4   3  ", " ", "a.mp4", 3),
        ("a.mp4\t3", " ", "a.mp4", 3),
        ("a.mp4 300 3", " ", "a.mp4", 3),
        ("a.mp4 _ 3", " ", "a.mp4", 3),
        ("take 2.mp4 3", " ", "take 2.mp4", 3),
        ("a.mp4,3", ",", "a.mp4", 3),
        ("a, b.mp4, 3", ",", "a, b.mp4", 3),
        ("a.mp4,300,3", ",", "a.mp4", 3),
        ("a b 1.mp4\t3", "\t", "a b 1.mp4", 3),
        ("a.mp4;12", ";", "a.mp4", 12),
    ],
)
def test_rows(tmp_path: Path, row: str, separator: str, path: str, label: int) -> None:
    got = read_list(
        write_list(tmp_path / "train.csv", "first.mp4" + separator + "0", row, ""), separator=separator
    )
    assert got[1] == Record(path, label, path)
    assert len(got) == 2


def test_relative_paths_get_the_prefix_and_absolute_ones_do_not(tmp_path: Path) -> None:
    got = read_list(
        write_list(tmp_path / "l.csv", "a/b.mp4 0", "/c/d.mp4 1", "a/b.mp4 0"), path_prefix="/root/x"
    )
    assert [record.path for record in got] == ["/root/x/a/b.mp4", "/c/d.mp4", "/root/x/a/b.mp4"]
    assert [record.video_id for record in got] == ["a/b.mp4", "/c/d.mp4", "a/b.mp4"]


@pytest.mark.parametrize(
    ("row", "separator", "parts"),
    [
        ("a.mp4", " ", ["line 3 has no label", "'a.mp4'", "path label"]),
        ("a.mp4 cat", " ", ["line 3 does not end in a whole number", "'a.mp4 cat'"]),
        ("a.mp4 1.5", " ", ["line 3 does not end in a whole number"]),
        ("a.mp4 -1", " ", ["line 3 has a negative label"]),
        (
            "a.mp4,3",
            " ",
            ["line 3 has no label", "separated by a comma", "DATA.PATH_LABEL_SEPARATOR is a space"],
        ),
        ("my a.mp4,3", " ", ["line 3 does not end in a whole number", "separated by a comma"]),
        ("a.mp4 3", ",", ["line 3 has no label", "separated by a space"]),
        ("a.mp4,", ",", ["line 3 does not end in a whole number"]),
    ],
)
def test_a_bad_row_is_named_with_file_line_and_content(
    tmp_path: Path, row: str, separator: str, parts: list[str]
) -> None:
    list_path = write_list(tmp_path / "train.csv", f"first.mp4{separator}0", "", row)
    with pytest.raises(ValueError) as error:
        read_list(list_path, separator=separator)
    for part in [list_path, *parts]:
        assert part in str(error.value)


def test_a_header_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line 1 looks like a header"):
        read_list(write_list(tmp_path / "t.csv", "path label", "a.mp4 0"))


def test_missing_and_empty_lists(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no list '.*train\.csv'.*path label.*TRAIN\.DATASET folder"):
        read_list(str(tmp_path / "train.csv"))
    with pytest.raises(ValueError, match="is empty"):
        read_list(write_list(tmp_path / "empty.csv", "", "  "))
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match="not a text file"):
        read_list(str(tmp_path / "binary.csv"))
    with pytest.raises(ValueError, match="PATH_LABEL_SEPARATOR is empty"):
        read_list(str(tmp_path / "train.csv"), separator="")


def test_a_byte_order_mark_is_no_part_of_the_path(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_bytes(b"\xef\xbb\xbfa.mp4 0\r\nb.mp4 1\r\n")
    assert [r.path for r in read_list(str(tmp_path / "l.csv"))] == ["a.mp4", "b.mp4"]


def test_lists_are_read_through_iopath(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from iopath.common.file_io import NativePathHandler

    from vidformers.data.paths import path_manager

    class Handler(NativePathHandler):
        def _get_supported_prefixes(self) -> list[str]:
            return ["test-store://"]

        def _get_path_with_cwd(self, path: str) -> str:
            return str(tmp_path / path.removeprefix("test-store://"))

    # Registered, it would stand for all local paths of the tests that follow.
    monkeypatch.setattr(path_manager(), "_native_path_handler", Handler())
    write_list(tmp_path / "l.csv", "a.mp4 0")
    (tmp_path / "classes.txt").write_text("one\n")
    assert [r.path for r in read_list("test-store://l.csv", path_prefix="test-store://v")] == [
        "test-store://v/a.mp4"
    ]
    assert read_classes("test-store://").names == ["one"]


def test_labels_beyond_the_model_are_reported() -> None:
    records = [Record("a", 0, "a"), Record("b", 7, "b"), Record("c", 5, "c")]
    check_labels(records, 8)
    with pytest.raises(
        ValueError, match=r"label 7 of 'b' in my\.csv .*MODEL\.NUM_CLASSES=5.*2 of 3 rows.*at least 8"
    ):
        check_labels(records, 5, source="my.csv")


@pytest.mark.parametrize(
    ("file_name", "content"),
    [
        ("classes.json", '["cat", "dog"]'),
        ("classes.json", '{"dog": 1, "cat": 0}'),
        ("classes.json", '{"classes": [{"label": 0, "name": "cat"}, {"label": 1, "name": "dog"}]}'),
        ("classes.txt", "cat\ndog\n\n"),
    ],
)
def test_class_names(tmp_path: Path, file_name: str, content: str) -> None:
    assert read_classes(str(tmp_path)) is None
    (tmp_path / file_name).write_text(content)
    assert read_classes(str(tmp_path)).names == ["cat", "dog"]


@pytest.mark.parametrize("content", ["{", '{"dog": 2, "cat": 0}', "3", json.dumps({"cat": "x"})])
def test_bad_class_names(tmp_path: Path, content: str) -> None:
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(ValueError, match=r"classes\.json does not hold class names"):
        read_classes(str(tmp_path))


def test_groups_and_partners_are_read_where_every_class_has_them(tmp_path: Path) -> None:
    entries = [
        {"label": 1, "name": "left", "group": "direction", "reversed": "right"},
        {"label": 0, "name": "right", "group": "direction", "reversed": "left"},
        {"label": 2, "name": "red", "group": "appearance", "reversed": "red"},
    ]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": entries}))
    classes = read_classes(str(tmp_path))
    assert classes == Classes(["right", "left", "red"], ["direction", "direction", "appearance"], [1, 0, 2])
    del entries[0]["group"]
    entries[2]["reversed"] = "rad"
    (tmp_path / "classes.json").write_text(json.dumps({"classes": entries}))
    with pytest.raises(ValueError, match="'reversed' names rad, which is no class"):
        read_classes(str(tmp_path))
    del entries[2]["reversed"]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": entries}))
    assert read_classes(str(tmp_path)) == Classes(["right", "left", "red"])


# ---- folders


def test_folder_of_classes_in_natural_order(tmp_path: Path) -> None:
    for name in (
        "class10/b.mp4",
        "class2/v10.avi",
        "class2/v9.MP4",
        "class2/notes.txt",
        "class2/.hidden.mp4",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "Empty 1").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "readme.txt").touch()
    records, names = scan_folder(str(tmp_path))
    assert names == ["class2", "class10", "Empty 1"]
    assert [(r.video_id, r.label) for r in records] == [
        ("class2/v9.MP4", 0),
        ("class2/v10.avi", 0),
        ("class10/b.mp4", 1),
    ]
    assert records[0].path == str(tmp_path / "class2/v9.MP4")


def test_folders_without_videos(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder.*class_name/video\.mp4"):
        scan_folder(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"no subfolder.*class_name/video\.mp4"):
        scan_folder(str(tmp_path))
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.txt").touch()
    with pytest.raises(ValueError, match=r"no video file in the 1 subfolders.*'cat'.*\.webm"):
        scan_folder(str(tmp_path))


def test_stratified_split() -> None:
    records = [
        Record(f"{label}/{i}", label, f"{label}/{i}")
        for label, n in enumerate([10, 2, 1, 7])
        for i in range(n)
    ]
    rest, held_out = stratified_split(records, held_out_fraction=0.2, seed=0)
    assert sorted(rest + held_out, key=records.index) == records
    assert not set(rest) & set(held_out)
    assert np.bincount([r.label for r in held_out], minlength=4).tolist() == [2, 1, 0, 1]
    assert rest == sorted(rest, key=records.index)
    assert stratified_split(records, held_out_fraction=0.2, seed=0) == (rest, held_out)
    assert stratified_split(records, held_out_fraction=0.2, seed=1)[1] != held_out
    with pytest.raises(ValueError, match="between 0 and 1"):
        stratified_split(records, held_out_fraction=1.0, seed=0)


# ---- clips


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    root = tmp_path_factory.mktemp("videos")
    for i, (height, width) in enumerate(SIZES):
        write_video(root / f"{i}.mp4", i, num_frames=20 + 8 * i, height=height, width=width)
    return [Record(str(root / f"{i}.mp4"), i % 2, f"video {i}") for i in range(len(SIZES))]


@pytest.fixture(scope="module")
def with_bad(videos: list[Record], tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """The six good videos, then a missing one of class 0 and a text file of class 1."""
    text = tmp_path_factory.mktemp("bad") / "text.mp4"
    text.write_text("this is not a video\n" * 100)
    return [*videos, Record("/nowhere/a.mp4", 0, "missing"), Record(str(text), 1, "text")]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, list[list[int]]]]]:
    """Every call of open_video: the path and the frame indices asked of the reader."""
    calls: list[tuple[str, list[list[int]]]] = []

    def spy(path: str, backend: str = "pyav", **settings: Any) -> Any:
        requests: list[list[int]] = []
        calls.append((path, requests))
        reader: Any = open_video(path, backend, **settings)
        get_frames = reader.get_converted_frames

        def record(indices: Any, convert: Any) -> torch.Tensor:
            requests.append(list(map(int, indices)))
            return get_frames(indices, convert)

        reader.get_converted_frames = record
        return reader

    monkeypatch.setattr(clips, "open_video", spy)
    yield calls


def items_equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(items_equal(a[k], b[k]) for k in a if k != "seconds")
    return bool(a == b)


def test_a_training_item(videos: list[Record]) -> None:
    dataset = TrainClips(
        videos, **TRAIN, num_samples=2, erase_probability=1.0, erase_count=3, rand_augment="rand-m7-n4-inc1"
    )
    item = dataset[3]
    assert item["clip"].shape == (2, 3, 4, 32, 32)
    assert item["clip"].dtype == torch.uint8
    assert not torch.equal(item["clip"][0], item["clip"][1])
    assert (item["label"], item["index"], item["failures"]) == (1, 3, [])
    assert item["erase_box"].shape == (2, 3, 4)
    assert item["erase_seed"].shape == (2,)
    assert item["erase_box"].dtype == item["erase_seed"].dtype == torch.int64


def test_the_copies_of_a_training_item_show_the_same_frames(videos: list[Record], opened: list) -> None:
    TrainClips(videos, **TRAIN, num_samples=3)[0]
    assert len(opened) == 1
    assert len(opened[0][1]) == 1


def test_a_training_item_depends_on_seed_epoch_and_index_alone(videos: list[Record]) -> None:
    def item(seed: int = 0, epoch: int = 0, index: int = 2) -> dict[str, Any]:
        dataset = TrainClips(videos, **TRAIN, seed=seed, erase_probability=0.5)
        dataset.set_epoch(epoch)
        return dataset[index]

    first = item()
    np.random.seed(1)
    torch.manual_seed(1)
    assert items_equal(item(), first)
    assert not torch.equal(item(seed=1)["clip"], first["clip"])
    assert not torch.equal(item(epoch=1)["clip"], first["clip"])


def test_an_unreadable_training_video_is_replaced_and_reported(with_bad: list[Record], opened: list) -> None:
    dataset = TrainClips(with_bad, **TRAIN)
    missing, text = dataset[6], dataset[7]
    assert missing["label"] == 0
    assert missing["index"] == 6
    assert [(path, reason) for path, reason, _ in missing["failures"]] == [("/nowhere/a.mp4", "missing file")]
    assert text["label"] == 1
    assert [reason for _, reason, _ in text["failures"]] == ["not a video"]
    assert "text.mp4" in text["failures"][0][0]
    # The same substitute in another process, another for another epoch, and known bad files are not opened
    # again.
    assert items_equal(TrainClips(with_bad, **TRAIN)[6], missing)
    opened.clear()
    again = dataset[6]
    assert items_equal(again, missing)
    assert [path for path, _ in opened] == [opened[0][0]]
    assert opened[0][0] in [r.path for r in with_bad if r.label == 0][:-1]
    substitutes = set()
    for epoch in range(12):
        dataset.set_epoch(epoch)
        opened.clear()
        dataset[6]
        substitutes.add(opened[-1][0])
    assert substitutes == {r.path for r in with_bad[:6] if r.label == 0}


def test_a_bad_video_gets_another_chance_in_the_next_epoch(videos: list[Record], tmp_path: Path) -> None:
    late = Record(str(tmp_path / "late.mp4"), 0, "late")
    dataset = TrainClips([*videos, late], **TRAIN)
    assert len(dataset[6]["failures"]) == 1
    write_video(tmp_path / "late.mp4", 0)
    assert len(dataset[6]["failures"]) == 1
    dataset.set_epoch(1)
    assert dataset[6]["failures"] == []


def test_a_substitute_is_of_the_same_class_where_there_is_one(with_bad: list[Record]) -> None:
    lonely = [*with_bad[:2], Record("/nowhere/b.mp4", 5, "lonely")]
    item = TrainClips(lonely, **TRAIN)[2]
    assert item["label"] in (0, 1)
    assert len(item["failures"]) == 1


def test_too_many_unreadable_training_videos_in_a_row_stop() -> None:
    records = [Record(f"/nowhere/{i}.mp4", 0, str(i)) for i in range(30)]
    with pytest.raises(
        ValueError, match=r"11 training videos in a row cannot be read.*'/nowhere/4\.mp4' .*PATH_PREFIX"
    ):
        TrainClips(records, **TRAIN)[4]
    with pytest.raises(ValueError, match="1 training videos in a row"):
        TrainClips(records[:1], **TRAIN)[0]


def test_collate_keeps_copies_side_by_side(with_bad: list[Record]) -> None:
    dataset = TrainClips(with_bad, **TRAIN, num_samples=2, erase_probability=1.0)
    items = [dataset[i] for i in (1, 6, 0)]
    batch = collate_train(items)
    assert batch["clip"].shape == (6, 3, 4, 32, 32)
    assert torch.equal(batch["clip"][2:4], items[1]["clip"])
    assert batch["label"].tolist() == [1, 1, 0, 0, 0, 0]
    assert batch["index"].tolist() == [1, 1, 6, 6, 0, 0]
    assert torch.equal(batch["erase_box"][4], items[2]["erase_box"][0])
    assert torch.equal(batch["erase_seed"][4:], items[2]["erase_seed"])
    assert [reason for _, reason, _ in batch["failures"]] == ["missing file"]


def test_a_test_video_is_opened_and_decoded_once_for_all_views(videos: list[Record], opened: list) -> None:
    dataset = TestVideos(videos, **{**TEST, "num_views": 5})
    for index in range(len(videos)):
        opened.clear()
        views = dataset[index]
        assert views.num_views == 15
        ((path, (request,)),) = opened
        assert path == videos[index].path
        assert request == sorted(set(request))  # no frame twice, though neighbouring clips share frames
        assert len(request) == len(views.frames) < 5 * 4 or index > 2


def test_the_views_of_a_test_video_are_what_decoding_each_would_give(videos: list[Record]) -> None:
    dataset = TestVideos(videos, **TEST)
    mean, std = (0.45,) * 3, (0.225,) * 3
    for index, record in enumerate(videos):
        views = dataset[index]
        assert (views.video_id, views.label, views.index, views.failure) == (
            record.video_id,
            record.label,
            index,
            None,
        )
        got = gather_views(views, range(9), mean=mean, std=std, device="cpu")
        assert got.shape == (9, 3, 4, 32, 32)
        with open_video(record.path) as video:
            rows = sample_views(
                "slowfast",
                video.num_frames,
                video.fps,
                num_frames=4,
                sampling_rate=2,
                target_fps=12,
                num_views=3,
                use_offset=True,
            )
            for v, row in enumerate(rows):
                frames = video.get_frames(row).permute(0, 3, 1, 2)
                height, width = SIZES[index]
                size = (32, width * 32 // height) if height <= width else (height * 32 // width, 32)
                frames = torch.nn.functional.interpolate(frames, size, mode="bilinear", align_corners=False)
                room = max(size) - 32
                for s, offset in enumerate((0, -(-room // 2), room)):
                    top, left = (0, offset) if height <= width else (offset, 0)
                    cut = frames[:, :, top : top + 32, left : left + 32].transpose(0, 1)
                    wanted = (cut / 255 - 0.45) / 0.225
                    assert (got[3 * v + s] - wanted).abs().max() < 1.01 / 255 / 0.225


def test_float_resize_keeps_fractions(videos: list[Record]) -> None:
    views = TestVideos(videos, **{**TEST, "resize_mode": "float"})[0]
    bytes_ = TestVideos(videos, **TEST)[0]
    assert views.frames.dtype == torch.float32
    assert (views.frames - bytes_.frames.float()).abs().max() < 1.01
    assert (views.frames % 1 != 0).any()
    args = {"mean": (0.45,) * 3, "std": (0.225,) * 3, "device": "cpu"}
    difference = gather_views(views, range(9), **args) - gather_views(bytes_, range(9), **args)
    assert difference.abs().max() < 1.01 / 255 / 0.225


def test_an_unreadable_test_video_is_reported_and_not_replaced(with_bad: list[Record], opened: list) -> None:
    dataset = TestVideos(with_bad, **TEST)
    for index, reason in ((6, "missing file"), (7, "not a video")):
        opened.clear()
        views = dataset[index]
        assert views.failure is not None
        assert views.failure[0] == reason
        assert views.failure[1]
        assert (views.video_id, views.label, views.index) == (with_bad[index].video_id, index % 2, index)
        assert views.num_views == 0
        assert [path for path, _ in opened] == [with_bad[index].path]


def test_a_failure_while_decoding_counts_too(videos: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        num_frames, fps, height, width = 40, 12.0, 48, 64

        def get_frames(self, indices: Any) -> torch.Tensor:
            raise VideoReadError("x", "truncated or damaged", "it ends early", "pyav")

        def __enter__(self) -> "Broken":
            return self

        def __exit__(self, *args: object) -> None:
            closed.append(True)

    closed: list[bool] = []
    monkeypatch.setattr(clips, "open_video", lambda *arguments, **settings: Broken())
    assert TestVideos(videos, **TEST)[0].failure == ("truncated or damaged", "it ends early")
    assert closed == [True]


def test_mistakes_are_not_taken_for_bad_videos(videos: list[Record]) -> None:
    with pytest.raises(ValueError, match="slowfast"):
        TestVideos(videos, **{**TEST, "temporal_sampling": "slofast"})[0]
    with pytest.raises(ValueError, match="slowfast"):
        TrainClips(videos, **{**TRAIN, "temporal_sampling": "slofast"})[0]
    with pytest.raises(ValueError, match="at most 30"):
        TestVideos(videos, **{**TEST, "short_side": 30})
    with pytest.raises(ValueError, match="uint8, float"):
        TestVideos(videos, **{**TEST, "resize_mode": "half"})
    with pytest.raises(ValueError, match="is empty"):
        TestVideos([], **TEST)
    with pytest.raises(ValueError, match="is empty"):
        TrainClips([], **TRAIN)
    with pytest.raises(ValueError, match="num_samples=0"):
        TrainClips(videos, **TRAIN, num_samples=0)


@pytest.mark.parametrize("rule", ["slowfast", "uniform", "segment"])
def test_every_temporal_rule_gives_items(videos: list[Record], rule: str) -> None:
    assert TrainClips(videos, **TRAIN, temporal_sampling=rule)[0]["clip"].shape == (1, 3, 4, 32, 32)
    views = TestVideos(videos, **TEST, temporal_sampling=rule)[0]
    assert views.view_index.shape == (3, 4)
    assert int(views.view_index.max()) == len(views.frames) - 1


def test_videos_stay_a_list(videos: list[Record]) -> None:
    dataset = TestVideos(videos, **TEST)
    items = [dataset[0], dataset[1]]
    assert collate_videos(items) == items
