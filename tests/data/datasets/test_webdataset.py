"""Videos inside tar files: the same frames, the same samples, and what is refused."""

import functools
import gc
import http.server
import io
import json
import os
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset
from fvcore.common.config import CfgNode

from data_prep import shards
from tests.data.video_files import READABLE
from vidformers.data.datasets.webdataset import read_index, scan_shard
from vidformers.data.readers import VideoReadError, open_video
from vidformers.data.tar_parts import PartFile, TarPart, split_part, why_not_there
from vidformers.engine.build import load_videos
from vidformers.engine.test import test as run_test
from vidformers.engine.train import Trainer

# One a container and a way of keeping time; all that the tests generate were compared by hand.
KINDS = [
    "b_frames.mp4",
    "b_pyramid.mkv",
    "mpeg4_b.avi",
    "mid_gop.ts",
    "raw.h264",
    "vp9.webm",
    "fragmented.mp4",
]


def put(tar: tarfile.TarFile, name: str, data: bytes, **settings: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in settings.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data))


def pack(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            put(tar, name, data)
    return path


@pytest.fixture(scope="module")
def packed(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset in several shards."""
    out = tmp_path_factory.mktemp("packed") / "shards"
    assert shards.main([str(tiny_dataset), str(out), "--shard-mb", "0.01"]) == 0
    return out


@pytest.fixture
def damaged(packed: Path, tmp_path: Path) -> Path:
    """A copy of the shards that a test may spoil."""
    for path in sorted(packed.rglob("*")):
        target = tmp_path / "damaged" / path.relative_to(packed)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            target.write_bytes(path.read_bytes())
    return tmp_path / "damaged"


def the_clips(cfg: CfgNode) -> list[tuple]:
    from vidformers.engine.build import build_train_loader

    loader = build_train_loader(cfg, load_videos(cfg, "train"))
    return [(batch["clip"].numpy().tobytes(), batch["label"].tolist()) for batch in loader]


# ---- reading


@pytest.mark.parametrize("backend", ["pyav", "decord"])
@pytest.mark.parametrize("name", KINDS)
def test_a_part_of_a_tar_file_reads_as_the_file(tmp_path: Path, name: str, backend: str) -> None:
    if backend == "decord":
        pytest.importorskip("decord")
    READABLE[name](tmp_path / name)
    data = (tmp_path / name).read_bytes()
    tar = pack(tmp_path / "a.tar", {"before.bin": b"x" * 1000, name: data, "after.bin": b"y" * 5000})
    with tarfile.open(tar) as opened:
        member = opened.getmember(name)
    path = TarPart(str(tar), member.offset_data, member.size, name).path

    def facts(path: str) -> object:
        try:
            with open_video(path, backend, index_cache=str(tmp_path / "cache")) as video:
                every = list(range(video.num_frames))[::-1]
                frames = video.get_frames(every).numpy().tobytes()
                facts = (video.num_frames, video.fps, video.duration, video.height, video.width)
                return facts, getattr(video, "damage", None), frames
        except VideoReadError as error:
            return error.reason

    first = facts(path)
    assert first == facts(str(tmp_path / name))
    assert facts(path) == first, "from the frame index"
    assert first == "unsupported by decord" or len(first[-1]) > 1000  # type: ignore[index, arg-type]


def test_a_part_is_a_file_of_its_own(tmp_path: Path) -> None:
    tar = pack(tmp_path / "a.tar", {"a.bin": b"0123456789", "b.bin": b"never"})
    with PartFile(TarPart(str(tar), 512, 10, "a.bin")) as file:
        assert file.read() == b"0123456789" and file.read(1) == b""
        assert file.seek(-3, os.SEEK_END) == 7 and file.read(99) == b"789"
        assert file.seek(2) == 2 and file.seek(1, os.SEEK_CUR) == 3 and file.read(2) == b"34"
        assert file.seek(50) == 50 and file.read(1) == b""
        with pytest.raises(OSError, match="seek to byte -1"):
            file.seek(-1)
    odd = "/a b/x.tar#5+6/y.tar#512+10/d/c é\n.mp4"
    part = split_part(odd)
    assert part == TarPart("/a b/x.tar", 5, 6, "y.tar#512+10/d/c é\n.mp4") and part.path == odd
    assert split_part("/a/x.tar") is None and split_part("/a/take#1+2/x.mp4") is None


def test_a_video_is_only_read_where_its_header_is(tmp_path: Path) -> None:
    files = {"./a.mp4": b"1234", "b.mp4": b"5678", "ä.mp4": b"9", "c" * 120: b"0"}
    tar = str(pack(tmp_path / "a.tar", files))
    with tarfile.open(tar) as opened:
        sound = [TarPart(tar, m.offset_data, m.size, m.name.removeprefix("./")) for m in opened]
    num_bytes = os.path.getsize(tar)
    assert [why_not_there(part, num_bytes) for part in sound] == [""] * 4
    first = sound[0]
    for part, found in (
        (first._replace(member="b.mp4"), "the shard has './a.mp4' there; was it replaced"),
        (first._replace(size=3), "the shard has 4 bytes there; was it replaced"),
        (first._replace(offset=513), "has no header of a file before byte 513"),
        (first._replace(offset=0), "has no header of a file before byte 0"),
    ):
        assert found in why_not_there(part, num_bytes)
    assert why_not_there(first, 515) == "the shard has 515 bytes, and this video ends at byte 516"


def test_no_file_stays_open(packed: Path, make_cfg: Callable[..., CfgNode]) -> None:
    record = load_videos(make_cfg("webdataset", packed), "train").records[0]
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    gc.disable()
    try:
        for _ in range(20):
            with open_video(record.path) as video:
                video.get_frames([3, 5])
    finally:
        gc.enable()
    assert len(os.listdir("/proc/self/fd")) <= before + 2


# ---- the same samples


def test_training_sees_the_same_clips_as_from_files(
    packed: Path, tiny_dataset: Path, make_cfg: Callable[..., CfgNode]
) -> None:
    assert len(list((packed / "train").glob("*.tar"))) > 2 and not (packed / "test").exists()
    scanned = load_videos(make_cfg("webdataset", packed), "train")
    assert [Path(r.video_id).name for r in scanned.records] == [f"video_{i}.mp4" for i in range(8)]
    in_shards = [
        s.position for shard in read_index(str(packed / "train" / "index.json"))[1] for s in shard.samples
    ]
    assert sorted(in_shards) == list(range(8)) != in_shards, "shuffled in the shards"
    clips = the_clips(make_cfg("webdataset", packed))
    assert clips == the_clips(make_cfg("kinetics", tiny_dataset))
    workers = make_cfg(
        "webdataset", packed, "DATA_LOADER.NUM_WORKERS", "2", "DATA.INDEX_CACHE", "frame_index"
    )
    assert the_clips(workers) == clips and list((packed / "frame_index").rglob("*.index"))


def test_training_and_testing_give_the_same_results(
    packed: Path, tiny_dataset: Path, make_cfg: Callable[..., CfgNode], tmp_path: Path
) -> None:
    results = []
    for name, folder in (("kinetics", tiny_dataset), ("webdataset", packed)):
        output = tmp_path / name
        output.mkdir()
        cfg = make_cfg(name, folder, "OUTPUT_DIR", str(output))
        trainer = Trainer(cfg, load_videos(cfg, "train"), load_videos(cfg, "val"))
        trainer.run()
        result = run_test(cfg)
        table = np.load(output / "predictions.npz")
        results.append((result["top1"], {key: table[key].tolist() for key in table.files}))
    assert results[0] == results[1] and len(results[0][1]["video_ids"]) == 8


def test_shards_that_are_not_there_are_named(damaged: Path, make_cfg: Callable[..., CfgNode], capsys) -> None:
    videos = load_videos(make_cfg("webdataset", damaged), "val")
    gone = split_part(videos.records[0].path)
    assert gone is not None
    os.unlink(gone.shard)
    again = load_videos(make_cfg("webdataset", damaged), "val")
    assert again.records == videos.records
    assert "of the 8 videos" in (said := capsys.readouterr().out) and f"such as {gone.shard}#" in said


@pytest.mark.parametrize("damage", ["cut", "overwritten", "replaced"])
def test_the_videos_of_a_damaged_shard_are_named_failures(
    damaged: Path, make_cfg: Callable[..., CfgNode], damage: str, tmp_path: Path
) -> None:
    shard = damaged / "val" / "shard-000001.tar"
    hit = [s.video_id for s in read_index(str(damaged / "val" / "index.json"))[1][1].samples]
    if damage == "cut":
        os.truncate(shard, 1500)
    elif damage == "overwritten":
        shard.write_bytes(b"\x55" * shard.stat().st_size)
    else:
        shard.write_bytes((damaged / "val" / "shard-000000.tar").read_bytes())
    result = run_test(make_cfg("webdataset", damaged, *("TEST.CHECKPOINT_FILE_PATH", "")))
    assert result["num_videos"] == 8 and result["num_failed"] == len(hit) > 0
    rows = (tmp_path / "output" / "failed_videos.csv").read_text().splitlines()[1:]
    assert len(rows) == len(hit) and all("truncated or damaged" in row and str(shard) in row for row in rows)


# ---- shards of others


@pytest.fixture
def foreign(tiny_dataset: Path, tmp_path: Path) -> Path:
    """Shards as the webdataset package writes them, with labels in .cls, and no index."""
    folder = tmp_path / "foreign" / "train"
    folder.mkdir(parents=True)
    with webdataset.ShardWriter(str(folder / "videos-%04d.tar"), maxcount=3, verbose=0) as writer:
        for number in range(8):
            data = (tiny_dataset / f"video_{number}.mp4").read_bytes()
            writer.write({"__key__": f"some/where/video_{number}", "mp4": data, "cls": number % 2})
    return folder.parent


def test_shards_of_the_webdataset_package_are_read(
    foreign: Path, tiny_dataset: Path, make_cfg: Callable[..., CfgNode], capsys
) -> None:
    cfg = make_cfg("webdataset", foreign)
    scanned = load_videos(cfg, "train")
    assert [(r.video_id, r.label) for r in scanned.records] == [
        (f"some/where/video_{i}", i % 2) for i in range(8)
    ]
    assert the_clips(cfg) == the_clips(make_cfg("kinetics", tiny_dataset))
    assert "3 shards were scanned" in capsys.readouterr().out
    assert shards.main([str(foreign / "train"), "--index", "--dry-run"]) == 0
    assert not (foreign / "train" / "index.json").exists()
    assert shards.main([str(foreign / "train"), "--index"]) == 0
    with pytest.raises(ValueError, match=r"index.json' is there; move it away"):
        shards.main([str(foreign / "train"), "--index"])
    assert load_videos(cfg, "train").records == scanned.records
    assert "8 videos in 3 shards" in (said := capsys.readouterr().out) and "scanned" not in said


def test_the_webdataset_package_reads_ours(packed: Path, tiny_dataset: Path) -> None:
    urls = sorted(str(path) for path in (packed / "val").glob("*.tar"))
    seen = {}
    for sample in webdataset.WebDataset(urls, shardshuffle=False):
        label = json.loads(sample["json"])
        seen[label["position"]] = (label["video_id"], label["label"], sample["mp4"])
    for number in range(8):
        path = tiny_dataset / f"video_{number}.mp4"
        assert seen[number] == (str(path), number % 2, path.read_bytes())
    assert len(seen) == 8


def test_labels_of_every_kind(tmp_path: Path, make_cfg: Callable[..., CfgNode]) -> None:
    pack(
        tmp_path / "val" / "a.tar",
        {
            "./x.json": b'{"labels": [2, 0], "actions": [[2, 0.5, 1]], "video_id": "X"}',
            "./x.WebM": b"no video",
            "__meta__.json": b"[]",
            "y.mp4": b"no video",
            "y.json": b'{"labels": []}',
        },
    )
    cfg = make_cfg("webdataset", tmp_path, "MODEL.LOSS_FUNC", "bce_logit")
    first, second = load_videos(cfg, "test").records
    assert (first.labels, first.actions, first.video_id) == ((2, 0), ((2, 0.5, 1.0),), "X")
    assert (second.labels, second.video_id, second.label) == ((), "y", -1)
    with pytest.raises(
        FileNotFoundError, match=r"has no shards for train; wanted .*/train with index.json or"
    ):
        load_videos(cfg, "train")


def test_class_names_come_from_the_index_or_a_class_file(
    tmp_path: Path, put_videos: Callable[..., None], make_cfg: Callable[..., CfgNode]
) -> None:
    put_videos(tmp_path / "mine", "train/up/a.mp4", "train/down/b.mp4", "val/up/c.mp4")
    out = tmp_path / "shards"
    assert shards.main([str(tmp_path / "mine"), str(out), "--dataset", "folder"]) == 0
    cfg = make_cfg("webdataset", out)
    assert load_videos(cfg, "test").class_names == ["down", "up"]
    assert [r.label for r in load_videos(cfg, "train").records] == [0, 1]
    (out / "classes.txt").write_text("low\nhigh\n")
    assert load_videos(cfg, "test").class_names == ["low", "high"]


# ---- what is refused


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("../a.mp4", {}, "leaves the folder"),
        ("/etc/a.mp4", {}, "leaves the folder"),
        ("b/../../a.mp4", {}, "leaves the folder"),
        ("..\\a.mp4", {}, "leaves the folder"),
        ("C:\\a.mp4", {}, "leaves the folder"),
        (
            "a.mp4",
            {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0},
            "is a link or a special file",
        ),
        (
            "a.mp4",
            {"type": tarfile.LNKTYPE, "linkname": "other.mp4", "size": 0},
            "is a link or a special file",
        ),
        ("a.mp4", {"type": tarfile.FIFOTYPE, "size": 0}, "is a link or a special file"),
    ],
)
def test_archives_that_reach_outside_are_refused(
    tmp_path: Path, name: str, settings: dict, message: str
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        put(tar, "first.mp4", b"x")
        put(tar, name, b"x", **settings)
    with pytest.raises(ValueError, match=message):
        scan_shard(str(tmp_path / "a.tar"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.mp4": b"x"}, "sample 'a' in '.*a.tar' has no label; wanted a whole number"),
        ({"a.mp4": b"x", "a.json": b"{"}, "'a.json' in '.*' cannot be read"),
        ({"a.mp4": b"x", "a.json": b"[3]"}, "wanted an object such as"),
        ({"a.mp4": b"x", "a.json": b'{"label": "cat"}'}, "has the label \\['cat'\\]"),
        ({"a.mp4": b"x", "a.json": b'{"label": true}'}, "has the label"),
        ({"a.mp4": b"x", "a.cls": b"-1"}, "has the label"),
        ({"a.mp4": b"x", "a.json": b'{"labels": 3}'}, "has the label"),
        ({"a.mp4": b"x", "a.json": b'{"labels": [3], "actions": [3]}'}, "has the actions"),
        ({"a.jpg": b"x", "a.cls": b"1"}, "sample 'a' in '.*' has .jpg, .cls and no video"),
        ({"a.mp4": b"x", "a.avi": b"x", "a.cls": b"1"}, "two videos named 'a'"),
        ({"a.mp4": b"x", "a.json": b" " * (1 << 21)}, "too many for a label"),
    ],
)
def test_what_is_no_sample_is_named(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scan_shard(str(pack(tmp_path / "a.tar", files)))


def test_a_damaged_shard_is_not_half_indexed(tmp_path: Path) -> None:
    whole = pack(tmp_path / "a.tar", {"a.mp4": b"x" * 600, "a.cls": b"1", "b.mp4": b"y", "b.cls": b"0"})
    assert [s.member for s in scan_shard(str(whole)).samples] == ["a.mp4", "b.mp4"]
    data = whole.read_bytes()
    # b.mp4's header lies behind a.mp4 (512 + 1024) and a.cls (512 + 512).
    for content in (data[:700], data[:2560], data[:2560] + b"\x55" * 512 + data[3072:], b"", b"no tar" * 999):
        whole.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.tar' is (no whole tar file|damaged or cut short)"):
            scan_shard(str(whole))


def test_an_index_is_checked(damaged: Path, make_cfg: Callable[..., CfgNode]) -> None:
    path = damaged / "val" / "index.json"
    content = json.loads(path.read_text())
    for place, value in (
        (("format",), "something else"),
        (("shards", 0, "file"), "../train/shard-000000.tar"),
        (("shards", 0, "file"), "/etc/passwd"),
        (("shards", 0, "samples", 0, "member"), "../../a.mp4"),
        (("shards", 0, "samples", 0, "offset"), -5),
        (("shards", 0, "samples", 0, "size"), "9"),
        (("shards", 0, "samples", 0, "label"), None),
        (("shards", 0, "num_samples"), 99),
        (("shards",), None),
    ):
        changed = json.loads(json.dumps(content))
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        path.write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=r"val/index.json' is not an index of shards .*--index"):
            load_videos(make_cfg("webdataset", damaged), "val")


def test_compressed_shards_and_frames_are_refused(tmp_path: Path, make_cfg: Callable[..., CfgNode]) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.tar.gz").touch()
    with pytest.raises(ValueError, match=r"a.tar.gz' is compressed"):
        load_videos(make_cfg("webdataset", tmp_path), "train")
    with pytest.raises(ValueError, match="shards hold videos: use 'pyav'"):
        load_videos(make_cfg("webdataset", tmp_path, "DATA.DECODING_BACKEND", "frames"), "train")


# ---- from elsewhere


def test_shards_on_a_web_server(
    packed: Path, tiny_dataset: Path, make_cfg: Callable[..., CfgNode], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(packed))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"
        cfg = make_cfg("webdataset", Path(), "DATA.PATH_TO_DATA_DIR", root)
        videos = load_videos(cfg, "test")
        assert len(videos.records) == 8 and videos.records[0].path.startswith(f"{root}/val/shard-0")
        clips = the_clips(cfg)
        server.shutdown()
    assert clips == the_clips(make_cfg("kinetics", tiny_dataset))
    fetched = sorted(path.name for path in (tmp_path / "cache").rglob("*.tar"))
    assert fetched == sorted(path.name for path in (packed / "train").glob("*.tar"))
