"""A run on a folder of class folders: its classes are counted, its videos described, its split kept."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import simplejson
import torch
from fvcore.common.config import CfgNode

from vidformers.config import load_config
from vidformers.data.datasets.folder import load_folder
from vidformers.data.prepare.measure import measure
from vidformers.engine.build import load_videos
from vidformers.engine.folder_summary import folder_text, summarize_folder
from vidformers.engine.model import build_model, with_num_classes
from vidformers.engine.predict import Predictor
from vidformers.engine.trained_model import start_from_weights
from vidformers.models import create_model
from vidformers.report.folder import class_panel, folder_section

ROOT = Path(__file__).parents[2]
YAML = ROOT / "configs" / "finetune_folder.yaml"
SMALL = """
    MODEL.ARGS {'embed_dim':8} DATA.NUM_FRAMES 4 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32
    DATA.TRAIN_JITTER_SCALES [36,40] SOLVER.MAX_EPOCH 1 SOLVER.WARMUP_EPOCHS 0.0 TRAIN.BATCH_SIZE 2
    DATA_LOADER.NUM_WORKERS 0 DEVICE cpu
""".split()  # noqa: SIM905


@pytest.fixture
def make_folder(tmp_path: Path, tiny_dataset: Path) -> Callable[..., Path]:
    """make_folder("name", blue=3, red=4) is a folder with that many videos in these class folders."""

    def make(name: str, **counts: int) -> Path:
        for label, (class_name, count) in enumerate(counts.items()):
            (tmp_path / name / class_name).mkdir(parents=True)
            for number in range(count):
                source = tiny_dataset / f"video_{(2 * number + label) % 8}.mp4"
                shutil.copy(source, tmp_path / name / class_name / f"{number}.mp4")
        return tmp_path / name

    return make


def config_of(folder: Path, output: Path, *overrides: str) -> CfgNode:
    fixed = ["DATA.PATH_TO_DATA_DIR", str(folder), "OUTPUT_DIR", str(output)]
    return load_config(YAML, [*SMALL, *fixed, *overrides])


def test_the_command_of_the_yaml(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder("videos", blue=6, red=2, single=1)
    (folder / "blue" / "broken.mp4").write_text("no video")
    (folder / "red" / "camera.MTS").touch()
    (folder / "red" / "older").mkdir()
    command = [sys.executable, str(ROOT / "tools" / "run_net.py"), "--cfg", str(YAML), *SMALL]
    command += ["OUTPUT_DIR", "out", "DATA.PATH_TO_DATA_DIR", "videos/", "DATA_LOADER.NUM_WORKERS", "1"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for text in (
        "2 of 10 videos are held out, 20% of each class (seed 0), listed in out/folder_split.json",
        "MODEL.NUM_CLASSES is 3",
        "videos: 3 classes, 10 videos (8 to train, 2 held out)",
        "Never tested, for want of a held-out video: single.",
        "Uneven classes: 6 training videos of blue, 1 of red.",
        "broken.mp4 (not a video)",
        "Passed over in the class folders: 1 .mts, 1 folder.",
    ):
        assert text in done.stdout
    out = tmp_path / "out"
    split = json.loads((out / "folder_split.json").read_text())
    assert len(split["held_out"]) == 2 and {name.split("/")[0] for name in split["held_out"]} == {
        "blue",
        "red",
    }
    page = (out / "report.html").read_text()
    for part in ('id="videos"', 'id="training"', 'id="test"', "Videos of each class", "Uneven classes"):
        assert part in page
    results = simplejson.loads((out / "test_results.json").read_text())
    assert results["num_videos"] == 2
    # The result predicts by itself, with the names of the folders.
    predictor = Predictor(weights=out / "checkpoints" / "best.pyth")
    assert predictor.class_names == ["blue", "red", "single"]
    assert predictor.protocol.num_temporal_views == 3 and predictor.protocol.crop_size == 32
    assert len(predictor(folder / "red" / "0.mp4").top(5)) == 3


def test_the_number_of_classes_is_that_of_the_folder(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    cfg = config_of(make_folder("videos", a=2, b=3), tmp_path)
    with pytest.raises(ValueError, match=r"MODEL\.NUM_CLASSES is 0, which tools/run_net\.py replaces"):
        build_model(cfg)
    train = load_videos(cfg, "train")
    counted = with_num_classes(cfg, [train])
    assert counted.MODEL.NUM_CLASSES == 2 and cfg.MODEL.NUM_CLASSES == 0 and counted.is_frozen()
    assert build_model(counted).head.projection.out_features == 2  # type: ignore[union-attr]
    given = config_of(tmp_path / "videos", tmp_path, "MODEL.NUM_CLASSES", "7")
    assert with_num_classes(given, [train]) is given


def test_lists_without_names_have_as_many_classes_as_labels(tiny_dataset: Path, tmp_path: Path) -> None:
    lists = ["TRAIN.DATASET", "kinetics", "TEST.DATASET", "kinetics"]
    cfg = config_of(tiny_dataset, tmp_path, *lists)
    train = load_videos(cfg, "train")
    assert with_num_classes(cfg, [train]).MODEL.NUM_CLASSES == 2
    (tmp_path / "more").mkdir()
    for split in ("train", "val", "test"):
        rows = (tiny_dataset / f"{split}.csv").read_text()
        (tmp_path / "more" / f"{split}.csv").write_text(rows.replace(" 1", " 5") if split == "test" else rows)
    cfg = config_of(tmp_path / "more", tmp_path, *lists)
    with pytest.raises(ValueError, match="label 5"):
        with_num_classes(cfg, [load_videos(cfg, "train"), load_videos(cfg, "test")])


def test_the_split_is_kept_and_belongs_to_its_folder(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_folder("videos", a=5, b=10)
    split_file = tmp_path / "out" / "folder_split.json"

    def load(root: Path | str, split: str, new_split: bool = True) -> list[str]:
        videos = load_folder(str(root), split, split_file=split_file, new_split=new_split, seed=3)
        return [record.video_id for record in videos.records]

    held_out = load(folder, "val")
    assert sorted(name[0] for name in held_out) == ["a", "b", "b"]
    assert set(held_out).isdisjoint(load(folder, "train")) and load(folder, "test") == held_out
    written = split_file.read_text()
    assert json.loads(written)["seed"] == 3
    # However the folder is written, and after it has moved.
    assert load(f"{folder}/", "val", new_split=False) == held_out
    moved = folder.rename(tmp_path / "moved")
    assert load(moved, "val", new_split=False) == held_out
    assert split_file.read_text() == written
    other = make_folder("other", c=2, d=2)
    with pytest.raises(ValueError, match=r"split of another folder, .*set another OUTPUT_DIR"):
        load(other, "train")
    assert len(load(other, "test", new_split=False)) == 4


def test_a_folder_of_single_videos_cannot_be_split(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder("videos", a=1, b=1)
    with pytest.raises(ValueError, match=r"no class of .* has two videos"):
        load_folder(str(folder), "train", split_file=tmp_path / "s.json", new_split=True, seed=0)


def summary_of(folder: Path, tmp_path: Path, clip_seconds: float) -> dict:
    lists = [
        load_folder(str(folder), split, split_file=tmp_path / "s.json", new_split=True, seed=0)
        for split in ("train", "val")
    ]
    rows = {record.path: measure(record.path) for videos in lists for record in videos.records}
    return summarize_folder(str(folder), lists[0], lists[1], rows, clip_seconds)


def test_what_is_said_of_a_folder(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder("videos", a=5, b=5)
    (folder / "empty").mkdir()
    summary = summary_of(folder, tmp_path, clip_seconds=1.0)
    assert [(row["name"], row["train"], row["held_out"]) for row in summary["classes"]] == [
        ("a", 4, 1),
        ("b", 4, 1),
        ("empty", 0, 0),
    ]
    assert summary["seconds"]["total"] == pytest.approx(20, abs=0.1) and summary["num_short"] == 0
    assert [note.partition(":")[0] for note in summary["notes"]] == ["No training video"]
    short = summary_of(folder, tmp_path, clip_seconds=2.5)
    assert any(note.startswith("Shorter than a clip (2.50 s)") for note in short["notes"])
    html = folder_section(summary).html
    assert "10 videos in 3 classes" in html and "<svg" in html
    assert "All 2.0 seconds long." in html
    assert "  all 2.0 s long (median 2.0); 1 size (" in folder_text(summary)
    summary["seconds"]["most"] = 3.0
    assert "From 2.0 to 3.0 seconds long, median 2.0." in folder_section(summary).html
    assert "  2.0 to 3.0 s long (median 2.0); 1 size (" in folder_text(summary)


def test_many_classes_are_cut_to_the_largest_and_the_smallest(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    summary = summary_of(make_folder("videos", a=2, b=2), tmp_path, clip_seconds=1.0)
    entry = summary["classes"][0]
    summary["classes"] = [{**entry, "name": f"class {i}", "train": 100 - i} for i in range(60)]
    text = folder_text(summary)
    assert "class 0 " in text and "class 59 " in text and "class 30 " not in text
    assert "... and 40 classes between these" in text
    assert "The 20 largest and the 20 smallest of 60." in class_panel(summary["classes"]).caption


@pytest.mark.parametrize(
    ("theirs", "ours", "is_new"),
    [
        (["a", "b"], ["a", "b"], False),
        (["a", "b"], ["a", "c"], False),
        (["a", "b"], ["x", "y"], True),
        (None, ["x", "y"], False),
        (["a", "b", "c"], ["a", "b"], True),
        (None, ["a", "b", "c"], True),
    ],
)
def test_a_classifier_of_other_classes_is_replaced(
    theirs: list[str] | None,
    ours: list[str],
    is_new: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    classes = len(theirs) if theirs else 2
    trained = create_model("mvit_tiny", num_classes=classes, embed_dim=8)
    torch.save({"model": trained.state_dict(), "class_names": theirs, "vidformers": "0"}, tmp_path / "x.pyth")
    model = create_model("mvit_tiny", num_classes=len(ours), embed_dim=8)
    before = model.state_dict()["head.projection.weight"].clone()
    start_from_weights(model, str(tmp_path / "x.pyth"), ours, tmp_path)
    after = model.state_dict()["head.projection.weight"]
    assert torch.equal(after, before) == is_new
    assert ("the classifier is new" in capsys.readouterr().out) == is_new
    name = next(name for name in model.state_dict() if not name.startswith("head."))
    assert torch.equal(model.state_dict()[name], trained.state_dict()[name])
