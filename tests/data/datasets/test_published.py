"""Tiny copies of the published datasets, in the syntax of their annotation files, through load_videos."""

import json
from pathlib import Path

import numpy as np
import pytest

from vidformers.data.readers import open_video
from vidformers.engine.build import build_test_dataset, build_train_loader, load_videos
from vidformers.engine.test import test as run_test


def rows(videos, folder: Path) -> list[tuple[str, int]]:
    """(path below the folder, label) of every record."""
    return [(str(Path(record.path).relative_to(folder)), record.label) for record in videos.records]


def check_bad(make_cfg, dataset: str, folder: Path, path: Path, text: str, message: str) -> None:
    """load_videos complains with `message` when the file `path` holds `text`."""
    before = path.read_text()
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_videos(make_cfg(dataset, folder), "train")
    path.write_text(before)


# ---- Kinetics as CVDF has it

HEADER = "label,youtube_id,time_start,time_end,split,is_cc"
K400 = [
    '"playing ""air"" guitar",---QUuC4vJs,84,94,train,0',
    "abseiling,-0-abcdefgh,5.0,15.0,train,1",  # some lists have floats
    "abseiling,twice_aaaaa,10,20,train,0",
    "testifying,twice_aaaaa,30,40,train,0",
    "testifying,gone_aaaaaa,1,11,train,0",
    "testifying,othertime_a,3,13,train,0",
    "abseiling,only_one_aa,10,20,train,0",
    "testifying,only_one_aa,30,40,train,0",  # not there, and no other clip may stand for it
]


@pytest.fixture
def kinetics(tmp_path: Path, put_videos) -> Path:
    folder = tmp_path / "k400"
    (folder / "annotations").mkdir(parents=True)
    # CVDF's files end their lines with CRLF, as Python's csv module writes them.
    (folder / "annotations/train.csv").write_bytes("\r\n".join([HEADER, *K400, ""]).encode())
    (folder / "annotations/val.csv").write_text(
        "label,youtube_id,time_start,time_end,split\nzumba,val_aaaaaaa,0,10,validate\n"
    )
    put_videos(
        folder / "train",
        *("---QUuC4vJs_000084_000094.mp4", "-0-abcdefgh_000005_000015.mp4", "twice_aaaaa_000030_000040.mp4"),
        *("twice_aaaaa_000010_000020.mp4", "othertime_a_000004_000014.mp4", "only_one_aa_000010_000020.mp4"),
    )
    put_videos(folder / "val", "val_aaaaaaa_000000_000010.mp4")
    return folder


def test_kinetics_flat(make_cfg, kinetics: Path, capsys) -> None:
    videos = load_videos(make_cfg("kinetics_cvdf", kinetics), "train")
    assert videos.class_names == ["abseiling", 'playing "air" guitar', "testifying", "zumba"]
    assert rows(videos, kinetics) == [
        ("train/---QUuC4vJs_000084_000094.mp4", 1),
        ("train/-0-abcdefgh_000005_000015.mp4", 0),
        ("train/twice_aaaaa_000010_000020.mp4", 0),
        ("train/twice_aaaaa_000030_000040.mp4", 2),
        ("train/gone_aaaaaa_000001_000011.mp4", 2),
        ("train/othertime_a_000004_000014.mp4", 2),  # the only one with its id
        ("train/only_one_aa_000010_000020.mp4", 0),
        ("train/only_one_aa_000030_000040.mp4", 2),
    ]
    assert videos.records[5].video_id == "othertime_a_000003_000013"
    assert "2 of the 8 videos" in capsys.readouterr().out
    for split in ("val", "test"):
        videos = load_videos(make_cfg("kinetics_cvdf", kinetics), split)
        assert rows(videos, kinetics) == [("val/val_aaaaaaa_000000_000010.mp4", 3)]
        assert len(videos.class_names) == 4


def test_kinetics_in_class_folders_replacements_and_elsewhere(make_cfg, kinetics: Path, put_videos) -> None:
    put_videos(kinetics / "videos/val/zumba", "val_aaaaaaa_000000_000010.mkv")
    videos = load_videos(make_cfg("kinetics_cvdf", kinetics), "val")
    assert rows(videos, kinetics) == [("videos/val/zumba/val_aaaaaaa_000000_000010.mkv", 3)]
    put_videos(kinetics / "replacement/replacement_for_corrupted_k400", "val_aaaaaaa_000001_000011.mp4")
    videos = load_videos(make_cfg("kinetics_cvdf", kinetics), "val")
    assert rows(videos, kinetics)[0][0].startswith("replacement/")
    (kinetics / "train").rename(kinetics.parent / "flat")
    prefix = ("DATA.PATH_PREFIX", str(kinetics.parent / "flat"))
    videos = load_videos(make_cfg("kinetics_cvdf", kinetics, *prefix), "train")
    assert rows(videos, kinetics.parent)[0] == ("flat/---QUuC4vJs_000084_000094.mp4", 1)


def test_kinetics_with_an_odd_file(make_cfg, kinetics: Path) -> None:
    path = kinetics / "annotations/train.csv"
    check_bad(make_cfg, "kinetics_cvdf", kinetics, path, "a,b\n", "wanted a header with the columns label,")
    bad = f"{HEADER}\nabseiling,x,soon,later,train,0\n"
    check_bad(make_cfg, "kinetics_cvdf", kinetics, path, bad, "line 2: time_start 'soon'.*must be seconds")
    path.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no train\.csv in .*annotations'; set DATA.PATH_TO_DATA_DIR"
    ):
        load_videos(make_cfg("kinetics_cvdf", kinetics), "train")


# ---- Something-Something V2

SSV2_LABELS = {
    "Holding something next to something": "1",
    "Pushing something from left to right": "0",
    'Pretending to put something "on" something': "2",
}
SSV2_ROWS = [
    {"id": "78687", "label": "holding potato next to vicks vaporub bottle",
     "template": "Holding [something] next to [something]", "placeholders": ["potato", "bottle"]},
    {"id": "42326", "label": "pushing green chilli from left to right",
     "template": "Pushing [something] from left to right", "placeholders": ["green chilli"]},
]  # fmt: skip


@pytest.fixture
def ssv2(tmp_path: Path, put_videos) -> Path:
    folder = tmp_path / "ssv2"
    folder.mkdir()
    (folder / "something-something-v2-labels.json").write_text(json.dumps(SSV2_LABELS))
    (folder / "something-something-v2-train.json").write_text(json.dumps(SSV2_ROWS))
    (folder / "something-something-v2-validation.json").write_text(json.dumps(SSV2_ROWS[:1]))
    (folder / "something-something-v2-test.json").write_text(json.dumps([{"id": "1420"}]))
    put_videos(folder / "20bn-something-something-v2", "78687.webm", "42326.webm")
    return folder


def test_ssv2(make_cfg, ssv2: Path) -> None:
    videos = load_videos(make_cfg("ssv2", ssv2), "train")
    assert videos.class_names[:2] == [
        "Pushing something from left to right",
        "Holding something next to something",
    ]
    assert rows(videos, ssv2) == [
        ("20bn-something-something-v2/78687.webm", 1),
        ("20bn-something-something-v2/42326.webm", 0),
    ]
    assert [record.video_id for record in videos.records] == ["78687", "42326"]
    for split in ("val", "test"):  # the official test list has no labels
        assert rows(load_videos(make_cfg("ssv2", ssv2), split), ssv2) == rows(videos, ssv2)[:1]


def test_ssv2_under_its_newer_names(make_cfg, ssv2: Path) -> None:
    (ssv2 / "labels").mkdir()
    for name in ("labels", "train", "validation"):
        (ssv2 / f"something-something-v2-{name}.json").rename(ssv2 / "labels" / f"{name}.json")
    assert len(load_videos(make_cfg("ssv2", ssv2), "train").records) == 2


def test_ssv2_with_an_odd_file(make_cfg, ssv2: Path) -> None:
    train, labels = (ssv2 / f"something-something-v2-{name}.json" for name in ("train", "labels"))
    check_bad(make_cfg, "ssv2", ssv2, train, '[{"id": "1420"}]', "entry without id or template")
    unknown = '[{"id": "7", "template": "Eating [something]"}]'
    check_bad(make_cfg, "ssv2", ssv2, train, unknown, "'Eating something' of video 7 is not in")
    check_bad(make_cfg, "ssv2", ssv2, train, "[", "is not a JSON file")
    check_bad(make_cfg, "ssv2", ssv2, labels, '{"a": "1"}', "not 0, 1, 2")


def test_the_temporal_views_of_ssv2_are_different_ones(make_cfg, ssv2: Path) -> None:
    cfg = make_cfg("ssv2", ssv2, "DATA.TEMPORAL_SAMPLING", "segment", "DATA.NUM_FRAMES", "4")
    item = build_test_dataset(cfg, load_videos(cfg, "test"), num_views=3, num_crops=1)[0]
    first, second, third = item.view_index.tolist()
    assert not set(first) & set(second)
    assert not set(second) & set(third)


def test_ssv2_is_never_mirrored(make_cfg, ssv2: Path, capsys) -> None:
    cfg = make_cfg("ssv2", ssv2, "DATA.RANDOM_FLIP", "True")
    loader = build_train_loader(cfg, load_videos(cfg, "train"))
    assert not loader.dataset.transform.flip
    assert "DATA.RANDOM_FLIP is off for ssv2" in capsys.readouterr().out


# ---- UCF101

UCF_VIDEOS = (
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi",
    "HandstandPushups/v_HandStandPushups_g01_c01.avi",
)


@pytest.fixture
def ucf101(tmp_path: Path, put_videos) -> Path:
    folder = tmp_path / "ucf101"
    lists = folder / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_bytes(b"1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n")
    for number in (1, 2, 3):
        train, test = UCF_VIDEOS if number == 1 else UCF_VIDEOS[::-1]
        label = 1 if number == 1 else 2
        (lists / f"trainlist0{number}.txt").write_bytes(f"{train} {label}\r\n".encode())
        (lists / f"testlist0{number}.txt").write_bytes(f"{test}\r\n".encode())
    put_videos(folder / "UCF-101", *UCF_VIDEOS)
    return folder


def test_ucf101(make_cfg, ucf101: Path) -> None:
    first = [(f"UCF-101/{UCF_VIDEOS[0]}", 0)]
    second = [(f"UCF-101/{UCF_VIDEOS[1]}", 1)]
    videos = load_videos(make_cfg("ucf101", ucf101), "train")
    assert videos.class_names == ["ApplyEyeMakeup", "HandstandPushups"]
    assert rows(videos, ucf101) == first
    assert rows(load_videos(make_cfg("ucf101", ucf101), "val"), ucf101) == second
    assert rows(load_videos(make_cfg("ucf101", ucf101), "test"), ucf101) == second
    number = ("DATA.SPLIT_NUMBER", "3")
    assert rows(load_videos(make_cfg("ucf101", ucf101, *number), "train"), ucf101) == second
    assert rows(load_videos(make_cfg("ucf101", ucf101, *number), "test"), ucf101) == first


def test_a_split_that_is_not_there(make_cfg, ucf101: Path, ssv2: Path) -> None:
    with pytest.raises(ValueError, match=r"SPLIT_NUMBER is 4; UCF101 has the splits 1, 2 and 3"):
        load_videos(make_cfg("ucf101", ucf101, "DATA.SPLIT_NUMBER", "4"), "train")
    with pytest.raises(ValueError, match=r"SPLIT_NUMBER is 2, but ssv2 has one split"):
        load_videos(make_cfg("ssv2", ssv2, "DATA.SPLIT_NUMBER", "2"), "train")


def test_ucf101_with_an_odd_file(make_cfg, ucf101: Path) -> None:
    train, index = (ucf101 / "ucfTrainTestlist" / name for name in ("trainlist01.txt", "classInd.txt"))
    check_bad(
        make_cfg, "ucf101", ucf101, train, f"{UCF_VIDEOS[0]} 2\n", "line 1 is 'Apply.*with the number that"
    )
    check_bad(make_cfg, "ucf101", ucf101, train, "Diving/v.avi 1\n", "line 1 is 'Diving/v.avi 1'; wanted")
    check_bad(make_cfg, "ucf101", ucf101, index, "0 ApplyEyeMakeup\n", "counted from 1")


# ---- HMDB51

HMDB_NAMES = (
    "#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi",
    "a&b;c_clap_1.avi",
    "April_09_clap_h_cm_np1_le_goo_2.avi",
)


@pytest.fixture
def hmdb51(tmp_path: Path, put_videos) -> Path:
    folder = tmp_path / "hmdb51"
    lists = folder / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    uses = {1: "120", 2: "210", 3: "012"}
    for number, use in uses.items():
        text = "".join(f"{name} {u} \r\n" for name, u in zip(HMDB_NAMES, use, strict=True))
        (lists / f"clap_test_split{number}.txt").write_text(text, newline="")
        (lists / f"brush_hair_test_split{number}.txt").write_text("b (1).avi 1 \n")
    put_videos(folder / "hmdb51_org/clap", *HMDB_NAMES)
    put_videos(folder / "hmdb51_org/brush_hair", "b (1).avi")
    return folder


def test_hmdb51(make_cfg, hmdb51: Path, capsys) -> None:
    videos = load_videos(make_cfg("hmdb51", hmdb51), "train")
    assert videos.class_names == ["brush_hair", "clap"]
    brush = ("hmdb51_org/brush_hair/b (1).avi", 0)
    clap = [(f"hmdb51_org/clap/{name}", 1) for name in HMDB_NAMES]
    assert rows(videos, hmdb51) == [brush, clap[0]]
    assert rows(load_videos(make_cfg("hmdb51", hmdb51), "test"), hmdb51) == [clap[1]]
    third = ("DATA.SPLIT_NUMBER", "3")
    assert rows(load_videos(make_cfg("hmdb51", hmdb51, *third), "train"), hmdb51) == [brush, clap[1]]
    assert rows(load_videos(make_cfg("hmdb51", hmdb51, *third), "val"), hmdb51) == [clap[2]]
    assert "not there" not in capsys.readouterr().out


def test_hmdb51_with_an_odd_file(make_cfg, hmdb51: Path) -> None:
    path = hmdb51 / "testTrainMulti_7030_splits" / "clap_test_split1.txt"
    check_bad(make_cfg, "hmdb51", hmdb51, path, "video.avi\n", "line 1 is 'video.avi'; wanted")
    for file in path.parent.iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"no <class>_test_split1\.txt in"):
        load_videos(make_cfg("hmdb51", hmdb51), "train")


# ---- Diving48


@pytest.fixture
def diving48(tmp_path: Path, put_videos) -> Path:
    folder = tmp_path / "diving48"
    folder.mkdir()
    vocabulary = [
        ["Back", "15som", "05Twis", "FREE"],
        ["Back", "15som", "15Twis", "FREE"],
        ["Forward", "Dive", "PIKE"],
    ]
    (folder / "Diving48_vocab.json").write_text(json.dumps(vocabulary))
    entry = {"vid_name": "-mmq0PT-u8k_00155", "label": 2, "start_frame": 0, "end_frame": 48}
    (folder / "Diving48_V2_train.json").write_text(json.dumps([entry]))
    (folder / "Diving48_V2_test.json").write_text(
        json.dumps([{**entry, "vid_name": "other_00001", "label": 0}])
    )
    put_videos(folder / "rgb", "-mmq0PT-u8k_00155.mp4", "other_00001.mp4")
    return folder


def test_diving48(make_cfg, diving48: Path) -> None:
    videos = load_videos(make_cfg("diving48", diving48), "train")
    assert videos.class_names[0] == "Back 15som 05Twis FREE"
    assert rows(videos, diving48) == [("rgb/-mmq0PT-u8k_00155.mp4", 2)]
    for split in ("val", "test"):
        assert rows(load_videos(make_cfg("diving48", diving48), split), diving48) == [
            ("rgb/other_00001.mp4", 0)
        ]
    path = diving48 / "Diving48_V2_train.json"
    bad = '[{"vid_name": "x", "label": 48}]'
    check_bad(make_cfg, "diving48", diving48, path, bad, "wanted a vid_name and a label from 0 to 2")


# ---- Moments in Time


@pytest.fixture
def moments(tmp_path: Path, put_videos) -> Path:
    folder = tmp_path / "Moments_in_Time_Raw"
    folder.mkdir()
    (folder / "moments_categories.txt").write_text("playing+music,1\nclapping,0\n")
    (folder / "trainingSet.csv").write_text(
        "clapping/yt-_1, a.mp4,clapping,4,0\n".replace("clapping/yt-_1, a.mp4", '"clapping/yt-_1, a.mp4"')
        + "playing+music/getty-2.mp4,playing+music,3,1\n"
    )
    (folder / "validationSet.csv").write_text("clapping/vine-3.mp4,clapping,7,1\n")
    put_videos(folder / "training", "clapping/yt-_1, a.mp4", "playing+music/getty-2.mp4")
    put_videos(folder / "validation", "clapping/vine-3.mp4")
    return folder


def test_moments(make_cfg, moments: Path, capsys) -> None:
    videos = load_videos(make_cfg("moments", moments), "train")
    assert videos.class_names == ["clapping", "playing+music"]
    assert rows(videos, moments) == [
        ("training/clapping/yt-_1, a.mp4", 0),
        ("training/playing+music/getty-2.mp4", 1),
    ]
    for split in ("val", "test"):
        assert rows(load_videos(make_cfg("moments", moments), split), moments) == [
            ("validation/clapping/vine-3.mp4", 0)
        ]
    assert "not there" not in capsys.readouterr().out
    path = moments / "trainingSet.csv"
    check_bad(
        make_cfg, "moments", moments, path, "a/b.mp4,eating,3,1\n", "row 1 is 'a/b.mp4,eating,3,1'; wanted"
    )
    path = moments / "moments_categories.txt"
    check_bad(make_cfg, "moments", moments, path, "clapping\n", "line 1 is 'clapping'; wanted `class,number`")
    check_bad(make_cfg, "moments", moments, path, "clapping,1\n", "are not 0, 1, 2")


# ---- through the engine


def test_a_test_run_of_ucf101(make_cfg, ucf101: Path, put_videos) -> None:
    path = ucf101 / "ucfTrainTestlist" / "testlist01.txt"
    path.write_text(f"{UCF_VIDEOS[0]}\n{UCF_VIDEOS[1]}\nApplyEyeMakeup/v_gone.avi\n")
    cfg = make_cfg("ucf101", ucf101)
    results = run_test(cfg)
    assert (results["num_videos"], results["num_failed"]) == (3, 1)
    assert results["failed_by_reason"] == {"missing file": 1}
    assert [row["name"] for row in results["per_class"]] == ["ApplyEyeMakeup", "HandstandPushups"]
    table = np.load(Path(cfg.OUTPUT_DIR) / "predictions.npz")
    assert table["video_ids"].tolist() == [*UCF_VIDEOS, "ApplyEyeMakeup/v_gone.avi"]
    with open_video(load_videos(cfg, "test").records[0].path) as video:
        assert video.num_frames == 24
