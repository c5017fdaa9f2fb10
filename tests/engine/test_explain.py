"""`explain` of a video, and its command line."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vidformers as vf
from tests.engine.predicting import save_run
from vidformers.cli.explain import main
from vidformers.data.readers import VideoReadError
from vidformers.engine.explain import class_number, explain
from vidformers.engine.predict import Predictor

ROOT = Path(__file__).parents[2]


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor(weights=save_run(tmp_path, class_names=["blue", "red"]))


def test_the_frames_are_those_that_the_model_sees(predictor: Predictor, tiny_dataset: Path) -> None:
    video = tiny_dataset / "video_0.mp4"
    assert vf.explain is explain
    found = explain(predictor, video)
    assert found.frames.shape == (4, 32, 32, 3) and found.frames.dtype == np.uint8
    assert found.heat_map.shape == (4, 32, 32) and found.heat_map.min() >= 0 and found.heat_map.max() > 0
    assert found.frames_per_second == 6.0  # one frame of 2 at 12 a second
    # 4 frames, one of 2 at 12 a second, of a video with 10 a second.
    with vf.open_video(video) as reader:
        assert np.allclose(np.diff(found.seconds), 1 / 6, atol=1 / reader.fps)
        indices = (found.seconds * reader.fps).round().astype(int)
        assert indices[0] > 0 and indices[-1] < reader.num_frames - 1  # the middle view
    # The middle one of three temporal views, the second of two crops.
    prediction = predictor(video)
    view = prediction.view_probabilities[1 * 2 + 1]
    assert found.answer == found.class_name == ["blue", "red"][view.argmax()]
    assert found.probability == pytest.approx(view.max(), abs=1e-6)
    views = predictor.views(str(video))
    top, left, height, width = views.crops[1].tolist()
    expected = views.frames[views.view_index[1], top : top + height, left : left + width]
    assert np.array_equal(found.frames, expected.numpy())


def test_classes_views_and_methods(predictor: Predictor, tiny_dataset: Path) -> None:
    video = tiny_dataset / "video_0.mp4"
    maps = {
        (method, name, view): explain(predictor, video, method=method, class_name=name, view=view).heat_map
        for method in ("relevance", "gradcam")
        for name, view in (("blue", 0), ("1", 0), ("blue", 2))
    }
    maps["rollout", None, 0] = explain(predictor, video, method="rollout", view=0).heat_map
    assert len({map_.tobytes() for map_ in maps.values()}) == len(maps)
    for wrong, message in (
        ({"class_name": "rod"}, "did you mean 'red'"),
        ({"class_name": "2"}, "a number from 0 to 1"),
        ({"class_name": "red", "method": "rollout"}, "use 'relevance' or 'gradcam'"),
        ({"view": 3}, "view 3 is none of the 3 views"),
        ({"method": "saliency"}, "'rollout', 'relevance', 'gradcam'"),
    ):
        with pytest.raises(ValueError, match=message):
            explain(predictor, video, **wrong)
    with pytest.raises(VideoReadError):
        explain(predictor, tiny_dataset / "none.mp4")
    assert class_number("1", ["1", "0"]) == 0  # a name goes before a number


def test_command_line(tmp_path: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(save_run(tmp_path, class_names=["blue", "red"]))
    video, out = str(tiny_dataset / "video_0.mp4"), tmp_path / "out"
    other = tmp_path / "other" / "video_0.mp4"
    other.parent.mkdir()
    other.write_bytes(Path(video).read_bytes())
    common = ["--weights", run, "--method", "gradcam", "--class", "red", "--out", str(out)]
    assert main([video, str(other), str(tmp_path / "none.mp4"), *common]) == 1
    said = capsys.readouterr()
    assert said.out.count("% red") == 2 and "none.mp4: missing" in said.err
    stems = ("video_0_gradcam", "video_0_gradcam_2")
    assert {path.name for path in out.iterdir()} == {f"{s}.{e}" for s in stems for e in ("png", "gif", "mp4")}
    assert main([video, *common[:-2], "--out", run]) == 2
    assert "is a file; give a folder" in capsys.readouterr().err


def test_the_tool_has_help() -> None:
    tool = [sys.executable, str(ROOT / "tools" / "explain.py"), "--help"]
    assert "--class LABEL" in subprocess.run(tool, capture_output=True, text=True, check=True).stdout
