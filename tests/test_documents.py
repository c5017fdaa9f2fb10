"""The commands of docs/predict.md and docs/fine_tuning.md, run as they stand but for their size."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import vidformers as vf
from tests.conftest import write_video
from tests.documents import ROOT, code_blocks, run_blocks

VIDEOS = ROOT.parent / "shared" / "videos"
SHORTER = "SOLVER.MAX_EPOCH 1 SOLVER.WARMUP_EPOCHS 0.0 TRAIN.BATCH_SIZE 2 DATA_LOADER.NUM_WORKERS 0"
PUBLISHED = "MViTv2_S_16x4_k400_f302660347.pyth"


def put_video(folder: Path, name: str, seed: int) -> None:
    """The real video of that name where it is at hand, else one of three seconds."""
    if (VIDEOS / name).is_file():
        shutil.copyfile(VIDEOS / name, folder / name)
    else:
        write_video(folder / name, seed, num_frames=36)


def put_weights(folder: Path) -> None:
    """A small model under the name of published weights, and 400 class names."""
    model = vf.create_model("mvit_tiny", num_classes=400)
    torch.save({"model_state": model.state_dict()}, folder / PUBLISHED)
    (folder / "kinetics400.json").write_text(json.dumps([f"class {label}" for label in range(400)]))


def test_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_weights(tmp_path)
    (tmp_path / "my_videos").mkdir()
    for seed, name in enumerate(("video.mp4", "long.mp4", "my_videos/a.mp4")):
        write_video(tmp_path / name, seed, num_frames=36 if name != "long.mp4" else 120)
    printed, names = run_blocks(
        ROOT / "docs" / "predict.md", tmp_path, monkeypatch, {"mvit_v2_s_16x4": "mvit_tiny"}
    )
    assert printed.count("video.mp4") == 2 and "my_videos/a.mp4" in printed
    assert (tmp_path / "answers.csv").read_text().count("my_videos/a.mp4") == 5
    assert sorted(path.suffix for path in (tmp_path / "timelines").iterdir()) == [".csv", ".json", ".png"]
    assert names["answer"].view_probabilities.shape == (5, 400)
    assert names["timeline"].probabilities.shape == (4, 400)


def test_fine_tuning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, name in enumerate(("dog.mp4", "pancake.mkv", "mm_demo.mp4")):
        put_video(tmp_path, name, seed)
    config = "--cfg configs/finetune_folder.yaml"
    printed, _ = run_blocks(
        ROOT / "docs" / "fine_tuning.md", tmp_path, monkeypatch, {config: f"{config} {SHORTER}"}
    )
    assert "MODEL.NUM_CLASSES is 2" in printed and "MODEL.NUM_CLASSES is 3" in printed
    assert "the classifier is new" in printed and "pancake_timeline.csv" in printed
    for run in ("finetune_folder", "three_classes"):
        assert 'id="videos"' in (tmp_path / "output" / run / "report.html").read_text()
        assert (tmp_path / "output" / run / "folder_split.json").is_file()


def test_the_commands_of_the_readme_are_among_these() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    titles = ("What is in my video", "Fine-tune on my own videos")
    sections = "".join(text.partition(f"\n## {title}\n")[2].partition("\n## ")[0] for title in titles)
    run = [
        command
        for name in ("predict.md", "fine_tuning.md")
        for language, code in code_blocks(ROOT / "docs" / name)
        if language == "bash"
        for command in commands(code)
    ]
    readme = [
        line for code in re.findall(r"```bash\n(.*?)```", sections, re.DOTALL) for line in commands(code)
    ]
    assert len(readme) == 4
    for command in readme:
        command = command.replace("new.mp4", "dog.mp4 pancake.mkv")
        assert [other for other in run if other.startswith(command)], command


def commands(code: str) -> list[str]:
    """Lines of a shell block, those that go on joined."""
    return [" ".join(line.split()) for line in code.replace("\\\n", " ").splitlines() if line.strip()]
