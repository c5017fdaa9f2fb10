"""Which videos of a folder are held out, when videos come later and when weights come from another run."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from fvcore.common.config import CfgNode

from vidformers.cli.run import main
from vidformers.config import load_config
from vidformers.engine.ablate import ablate
from vidformers.engine.build import load_videos

YAML = Path(__file__).parents[2] / "configs" / "finetune_folder.yaml"
SMALL = """
    MODEL.ARGS {'embed_dim':8} DATA.NUM_FRAMES 4 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32
    DATA.TRAIN_JITTER_SCALES [36,40] SOLVER.MAX_EPOCH 1 SOLVER.WARMUP_EPOCHS 0.0 TRAIN.BATCH_SIZE 2
    DATA_LOADER.NUM_WORKERS 0 DEVICE cpu ABLATION.PERTURBATIONS ['reverse'] ABLATION.NUM_DRAWS 1
""".split()  # noqa: SIM905
TEST_ONLY = ("TRAIN.ENABLE", "False")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def touch(root: str, *, start: int = 0, **counts: int) -> None:
    """Empty files under the names of videos: lists do not open them."""
    for name, count in counts.items():
        for number in range(start, start + count):
            Path(root, name).mkdir(parents=True, exist_ok=True)
            Path(root, name, f"{number}.mp4").touch()


def config_of(folder: str, output: str, *overrides: str) -> CfgNode:
    return load_config(YAML, [*SMALL, "DATA.PATH_TO_DATA_DIR", folder, "OUTPUT_DIR", output, *overrides])


def parts(folder: str, output: str, *overrides: str) -> tuple[set[str], set[str]]:
    """-> (training videos, held-out videos) of a run that trains."""
    cfg = config_of(folder, output, *overrides)
    train, val, test = ({r.video_id for r in load_videos(cfg, it).records} for it in ("train", "val", "test"))
    assert val == test and not train & val
    return train, val


def scored(folder: str, output: str, *overrides: str) -> set[str]:
    cfg = config_of(folder, output, *TEST_ONLY, *overrides)
    return {record.video_id for record in load_videos(cfg, "test").records}


def put_checkpoint(run: str) -> str:
    path = Path(run, "checkpoints", "best.pyth")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return str(path)


def of_classes(names: set[str]) -> dict[str, int]:
    return dict(Counter(name.partition("/")[0] for name in names))


def test_videos_that_come_later_are_dealt_and_the_others_keep_their_part(
    capsys: pytest.CaptureFixture[str],
) -> None:
    touch("videos", a=10, b=5, single=1)
    train, held_out = parts("videos", "out")
    assert of_classes(held_out) == {"a": 2, "b": 1}
    written = Path("out/folder_split.json").read_text()
    assert parts("videos", "out") == (train, held_out)
    assert Path("out/folder_split.json").read_text() == written
    # A new class, more of an old one (15 of it need 3), a second video of a class of one.
    touch("videos", dog=4)
    touch("videos", start=10, a=5)
    touch("videos", start=1, single=1)
    capsys.readouterr()
    assert scored("videos", "out") == held_out
    assert "10 of the 26 videos of videos, such as a/10.mp4, are not in out" in capsys.readouterr().out
    more_train, more_held_out = parts("videos", "out")
    assert train < more_train and held_out < more_held_out
    assert of_classes(more_held_out) == {"a": 3, "b": 1, "dog": 1, "single": 1}
    assert of_classes(more_train) == {"a": 12, "b": 4, "dog": 3, "single": 1}
    said = capsys.readouterr().out
    assert said.count("10 videos have come to videos since it was split (new classes: dog): 3 of them") == 1
    assert parts("videos", "out") == (more_train, more_held_out)
    assert "have come" not in capsys.readouterr().out
    # The class is split as it would be in a new folder, and files that are away for a while keep their part.
    written = Path("out/folder_split.json").read_text()
    Path("videos/dog").rename("away")
    assert parts("videos", "out")[1] == more_held_out - {n for n in more_held_out if n.startswith("dog")}
    assert Path("out/folder_split.json").read_text() == written
    Path("away").rename("videos/dog")
    assert parts("videos", "out") == (more_train, more_held_out)


def test_the_split_of_an_older_version_has_trained_on_all_that_it_does_not_hold_out() -> None:
    touch("videos", a=10)
    Path("out").mkdir()
    content = {"root": str(Path("videos").resolve()), "seed": 0, "held_out": ["a/0.mp4", "a/1.mp4"]}
    Path("out/folder_split.json").write_text(json.dumps(content))
    touch("videos", dog=3)
    train, held_out = parts("videos", "out")
    assert held_out == {"a/0.mp4", "a/1.mp4"} and len(train) == 11
    touch("videos", cat=3)
    assert of_classes(parts("videos", "out")[1]) == {"a": 2, "cat": 1}
    Path("out/folder_split.json").write_text("[]")
    with pytest.raises(ValueError, match=r"folder_split\.json does not hold a split .*wanted root, seed"):
        parts("videos", "out")


def test_weights_of_another_run_are_tested_on_what_that_run_held_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    touch("videos", a=10, b=10)
    _, held_out = parts("videos", "runs/first", "RNG_SEED", "7")
    weights = ("TEST.CHECKPOINT_FILE_PATH", put_checkpoint("runs/first"))
    capsys.readouterr()
    assert scored("videos", "other", *weights) == held_out
    said = capsys.readouterr().out
    assert "The held-out videos of videos are those of" in said and "first/folder_split.json" in said
    # A run that tests weights of another beside training its own keeps both splits.
    touch("videos", start=10, a=10)
    cfg = config_of("videos", "third", *weights)
    own = {record.video_id for record in load_videos(cfg, "val").records}
    assert {record.video_id for record in load_videos(cfg, "test").records} == held_out != own
    # The run itself says nothing of whose videos they are.
    capsys.readouterr()
    assert scored("videos", "runs/first", *weights) == held_out
    assert "those of" not in capsys.readouterr().out


def test_what_may_have_been_trained_on_is_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    touch("videos", a=3, b=3)
    cfg = config_of("videos", "out", *TEST_ONLY, "TEST.CHECKPOINT_FILE_PATH", put_checkpoint("elsewhere"))
    videos = load_videos(cfg, "test")
    assert len(videos.records) == 6 and videos.source == "videos (all videos, perhaps trained on)"
    assert "Warning: all 6 videos of videos are used, and the weights may" in capsys.readouterr().out
    # Random weights have not seen anything, and those of another folder not these videos.
    assert load_videos(config_of("videos", "out", *TEST_ONLY), "test").source == "videos"
    touch("more", c=2, d=2)
    parts("more", "elsewhere")
    assert load_videos(cfg, "test").source == "videos"
    said = capsys.readouterr().out
    assert "another folder: all of videos is listed" in said and "Warning" not in said


def test_training_on_from_a_run_keeps_its_split(capsys: pytest.CaptureFixture[str]) -> None:
    touch("videos", a=10, b=10)
    train, held_out = parts("videos", "first", "RNG_SEED", "7")
    touch("videos", dog=5)
    start = ("TRAIN.CHECKPOINT_FILE_PATH", put_checkpoint("first"))
    written = Path("first/folder_split.json").read_text()
    capsys.readouterr()
    more_train, more_held_out = parts("videos", "second", *start)
    assert train < more_train and held_out < more_held_out and of_classes(more_held_out)["dog"] == 1
    assert Path("first/folder_split.json").read_text() == written
    said = capsys.readouterr().out
    assert said.count("is taken over from") == 1 and said.count("new classes: dog") == 1
    # Another folder has a split of its own.
    touch("others", x=5, y=5)
    assert len(parts("others", "third", *start)[1]) == 2


def test_an_ablation_under_another_name_says_what_it_scored(
    tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label, name in enumerate(("blue", "red")):
        Path("videos", name).mkdir(parents=True)
        for number in range(4):
            shutil.copy(tiny_dataset / f"video_{2 * number + label}.mp4", f"videos/{name}/{number}.mp4")
    fixed = ["--cfg", str(YAML), *SMALL, "DATA.PATH_TO_DATA_DIR", "videos"]
    assert main([*fixed, "OUTPUT_DIR", "out", "TEST.ENABLE", "False"]) == 0
    weights = ["TEST.CHECKPOINT_FILE_PATH", "out/checkpoints/best.pyth"]
    Path("ablated").mkdir()
    cfg = config_of("videos", "ablated", *TEST_ONLY, "MODEL.NUM_CLASSES", "2", *weights)
    summary = ablate(cfg)
    assert summary["num_videos"] == 2 and summary["videos"] == "videos (held-out part)"
    assert "Ablating mvit_tiny on 2 videos of videos (held-out part)" in capsys.readouterr().out
    Path("out/folder_split.json").unlink()
    assert ablate(cfg)["videos"] == "videos (all videos, perhaps trained on)"
    assert "on videos (all videos, perhaps trained on)" in Path("ablated/report.html").read_text()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["DATA.PATH_TO_DATA_DIR", "vidoes"],
            r"DATA\.PATH_TO_DATA_DIR is 'vidoes', which does not exist; wanted .*Near it in .*: videos/",
        ),
        (["DATA.PATH_TO_DATA_DIR", "vidoes/mine"], r"vidoes' does not exist either\. Near it in .*: videos/"),
        (["DATA.PATH_TO_DATA_DIR", "videos/a/0.mp4"], r"PATH_TO_DATA_DIR is '.*0\.mp4', which is a file"),
        (
            ["TRAIN.CHECKPOINT_FILE_PATH", "run/checkpoints/bets.pyth"],
            r"TRAIN\.CHECKPOINT_FILE_PATH is .*bets.*; give .*Near it in .*: best\.pyth",
        ),
        (
            ["TEST.CHECKPOINT_FILE_PATH", "run/checkpoints/bets.pyth"],
            r"TEST\.CHECKPOINT_FILE_PATH is .*bets.*; give .*Near it in .*: best\.pyth",
        ),
        (
            ["TRAIN.DATASET", "kinetics", "DATA.PATH_TO_DATA_DIR", "lists"],
            r"no list 'lists/train\.csv'\. Near it in .*: trian\.csv",
        ),
        (
            ["TRAIN.DATASET", "ucf101", "DATA.PATH_TO_DATA_DIR", "lists"],
            r"no classInd\.txt in .*Near it in .*: classind\.txt",
        ),
        (
            ["TRAIN.DATASET", "mmaction2", "DATA.PATH_TO_DATA_DIR", "lists", "DATA.PATH_PREFIX", "vidoes"],
            r"DATA\.PATH_PREFIX is 'vidoes', which is no folder\. Near it in .*: videos/",
        ),
    ],
)
def test_a_typo_is_told_before_a_video_is_opened(
    overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    touch("videos", a=2, b=2)
    put_checkpoint("run")
    Path("lists").mkdir()
    for name in ("trian.csv", "classind.txt", "train_list_videos.txt"):
        Path("lists", name).write_text("0.mp4 0\n")
    fixed = ["--cfg", str(YAML), *SMALL, "DATA.PATH_TO_DATA_DIR", "videos", "OUTPUT_DIR", "out"]
    assert main([*fixed, *overrides]) == 1
    printed = capsys.readouterr()
    assert "Opening" not in printed.out
    assert re.search(message, printed.err), printed.err


def test_weights_that_are_not_needed_or_far_away_are_not_looked_for() -> None:
    touch("videos", a=2, b=2)
    parts("videos", "far", "TRAIN.CHECKPOINT_FILE_PATH", "s3://bucket/run/checkpoints/best.pyth")
    Path("out/checkpoints").mkdir(parents=True)
    Path("out/checkpoints/checkpoint_epoch_00001.pyth").touch()
    parts("videos", "out", "TRAIN.CHECKPOINT_FILE_PATH", "gone.pyth")  # a run that goes on from its own


def test_outputs_without_a_class_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    touch("videos", a=2, b=2)
    parts("videos", "out", "MODEL.NUM_CLASSES", "10")
    wanted = "videos (training part) has 2 classes, the model 10 outputs: 8 of them are never trained."
    assert capsys.readouterr().out.count(wanted) == 1
    parts("videos", "out", "MODEL.NUM_CLASSES", "2")
    assert "outputs" not in capsys.readouterr().out
