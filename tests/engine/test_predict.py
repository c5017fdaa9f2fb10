"""`vf.predict` and `Predictor`: the answers of the multi-view test, from whatever the weights say."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import vidformers as vf
from tests.engine.predicting import save_run
from vidformers.analysis.explain import explain_clips
from vidformers.checkpoints.metadata import Metadata, Protocol, to_header
from vidformers.config import load_config
from vidformers.data.readers import VideoReadError
from vidformers.engine.build import load_videos
from vidformers.engine.convert import convert_weights
from vidformers.engine.model import build_model
from vidformers.engine.predict import Predictor
from vidformers.engine.protocol import checkpoint_config, config_protocol
from vidformers.engine.ready_model import ready_model
from vidformers.engine.test import test as run_test

ROOT = Path(__file__).parents[2]


def test_the_answers_are_those_of_the_multi_view_test(tmp_path: Path, tiny_dataset: Path) -> None:
    run = save_run(tmp_path, class_names=["blue", "red"])
    fixed = ["DATA.PATH_TO_DATA_DIR", str(tiny_dataset), "TEST.CHECKPOINT_FILE_PATH", str(run)]
    cfg = load_config(
        tmp_path / "run.yaml", [*fixed, "OUTPUT_DIR", str(tmp_path), "DATA_LOADER.NUM_WORKERS", "0"]
    )
    run_test(cfg)
    predictor = Predictor(weights=run, batch_size=4)
    with np.load(tmp_path / "predictions.npz") as tested:
        for row, record in enumerate(load_videos(cfg, "test").records[:3]):
            answer = predictor(record.path)
            assert answer.view_probabilities.shape == (6, 2)
            assert np.allclose(answer.view_probabilities, tested["view_scores"][row], atol=1e-6)
            assert np.allclose(answer.probabilities, tested["scores"][row], atol=1e-6)
    assert predictor.class_names == ["blue", "red"] and predictor.name == "mvit_tiny"
    assert [name for name, _ in answer.top(5)] in (["blue", "red"], ["red", "blue"])
    assert answer.top(1)[0][1] == pytest.approx(answer.probabilities.max())
    assert answer.probabilities.std() > 0.05  # classes that all have 1/K would hide a mistake


def test_a_model_of_the_callers_keeps_its_mode_and_its_protocol(tiny_dataset: Path) -> None:
    model = vf.create_model("mvit_tiny", num_classes=2, embed_dim=8)
    model.head.dropout.p = 0.9  # type: ignore[union-attr, assignment]
    video = tiny_dataset / "video_0.mp4"
    first = vf.predict(model, video, labels=["a", "b"])
    assert model.training
    assert np.array_equal(first.probabilities, vf.predict(model, video).probabilities)
    # Neither the model nor a YAML file says how it is tested: the usual views, the model's own sizes.
    protocol = first.protocol
    assert (protocol.num_frames, protocol.crop_size, protocol.num_temporal_views) == (8, 64, 5)
    notes = Predictor(model).notes
    assert "the usual protocol is assumed" in notes[0] and "numbered from 0 to 1" in notes[1]


def test_a_registered_name_gets_the_protocol_of_its_file() -> None:
    with torch.device("meta"):
        model = vf.create_model("swin3d_t", num_classes=7)
    ready = ready_model(model)
    assert ready.protocol == config_protocol(load_config(ROOT / "configs" / "swin3d_t_32x2.yaml"))
    assert "swin3d_t_32x2.yaml" in ready.notes[0] and ready.num_classes == 7


def test_weights_with_metadata_say_everything(tmp_path: Path, tiny_dataset: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    protocol = Protocol(
        num_frames=8,
        sampling_rate=2,
        target_fps=10.0,
        num_temporal_views=2,
        num_spatial_crops=3,
        short_side=32,
        crop_size=32,
    )
    arguments = {"num_classes": 3, "embed_dim": 8, "image_size": 32}
    metadata = Metadata(
        model_name="mvit_tiny", model_arguments=arguments, protocol=protocol, labels=("a", "b", "c")
    )
    model = vf.create_model("mvit_tiny", **arguments)
    path = tmp_path / "x.safetensors"
    safetensors.save_file(model.state_dict(), path, metadata=to_header(metadata))
    answer = vf.predict(path, tiny_dataset / "video_0.mp4")
    assert answer.protocol == protocol and answer.class_names == ["a", "b", "c"]
    assert answer.view_probabilities.shape == (6, 3)
    assert Predictor("mvit_tiny", weights=path).notes == ()
    with pytest.raises(ValueError, match="holds a mvit_tiny, but vit_tiny was asked for"):
        Predictor("vit_tiny", weights=path)


def test_weights_of_others_need_a_name_and_bring_their_number_of_classes(tmp_path: Path) -> None:
    state = vf.create_model("mvit_tiny", num_classes=6).state_dict()
    path = tmp_path / "x.pyth"
    torch.save({"model_state": state}, path)
    assert Predictor("mvit_tiny", weights=path).class_names[-1] == "class 5"
    with pytest.raises(ValueError, match=r"does not say which model it is of; give its name.*mvit_b_16x4"):
        Predictor(weights=path)
    with pytest.raises(ValueError, match="named 'mvit_tyni'; did you mean mvit_tiny"):
        Predictor("mvit_tyni", weights=path)
    with pytest.raises(ValueError, match="would have random weights"):
        Predictor("mvit_tiny")
    headless = {name: value for name, value in state.items() if not name.startswith("head.")}
    torch.save({"model_state": headless}, path)
    with pytest.raises(ValueError, match="holds no classifier"):
        Predictor("mvit_tiny", weights=path)


def test_a_yaml_file_by_its_path_says_the_protocol(tmp_path: Path) -> None:
    run = save_run(tmp_path)
    other = tmp_path / "other.yaml"
    other.write_text("_BASE_: run.yaml\nTEST: {NUM_ENSEMBLE_VIEWS: 7}\n")
    assert Predictor(weights=run).protocol.num_temporal_views == 3
    assert Predictor(other, weights=run).protocol.num_temporal_views == 7
    assert Predictor(other, weights=run, num_temporal_views=1).protocol.num_temporal_views == 1


def test_several_labels_a_video_are_a_sigmoid_a_class(tmp_path: Path, tiny_dataset: Path) -> None:
    video = tiny_dataset / "video_0.mp4"
    one = vf.predict(save_run(tmp_path), video)
    run = save_run(tmp_path, "MODEL.LOSS_FUNC", "bce_logit")
    several = vf.predict(run, video)
    assert one.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert several.probabilities.sum() != pytest.approx(1, abs=1e-2)
    # Whatever way the weights take to the prediction.
    converted = tmp_path / "several.safetensors"
    assert convert_weights(run, converted).multi_label
    loaded = vf.create_model("mvit_tiny", num_classes=2, embed_dim=8, num_frames=4, image_size=32)
    vf.load_weights(loaded, converted)
    for source in (converted, vf.from_pretrained(converted), loaded):
        assert np.allclose(vf.predict(source, video).probabilities, several.probabilities, atol=1e-6)
    assert np.allclose(
        vf.predict("mvit_tiny", video, weights=run).probabilities, several.probabilities, atol=1e-6
    )
    clips = torch.zeros(1, 3, 4, 32, 32)
    assert explain_clips(loaded, clips).probabilities.sum() != pytest.approx(1, abs=1e-2)
    new = vf.from_pretrained(converted, num_classes=3)
    assert not new.metadata.multi_label
    loaded.reset_classifier(2)
    assert not loaded.metadata.multi_label


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "a cat\n'a dog'\n"),
        ("list.json", json.dumps(["a cat", "a dog"])),
        ("pyslowfast.json", json.dumps({'"a dog"': 1, "a cat": 0})),
        ("by_label.json", json.dumps({"1": "a dog", "0": "a cat"})),
    ],
)
def test_labels_from_a_file(name: str, text: str, tmp_path: Path) -> None:
    run = save_run(tmp_path, class_names=["x", "y"])
    (tmp_path / name).write_text(text)
    assert Predictor(weights=run, labels=tmp_path / name).class_names == ["a cat", "a dog"]
    assert Predictor(weights=run).class_names == ["x", "y"]


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    run = save_run(tmp_path)
    (tmp_path / "three.txt").write_text("a\nb\nc\n")
    with pytest.raises(ValueError, match=r"three\.txt names 3 classes, but mvit_tiny has 2"):
        Predictor(weights=run, labels=tmp_path / "three.txt")
    with pytest.raises(FileNotFoundError, match=r"no file of class names .*none\.txt"):
        Predictor(weights=run, labels=tmp_path / "none.txt")
    (tmp_path / "odd.json").write_text('{"a": 0, "b": 2}')
    with pytest.raises(ValueError, match="without gaps"):
        Predictor(weights=run, labels=tmp_path / "odd.json")


def test_an_unreadable_video_says_why(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    predictor = Predictor(weights=save_run(tmp_path))
    with pytest.raises(VideoReadError) as error:
        predictor(tmp_path / "text.mp4")
    assert error.value.reason == "not a video"
    with pytest.raises(VideoReadError, match="missing file"):
        predictor(tmp_path / "none.mp4")


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (["a.mp4"], r"got a list; wanted the path of one video; for several make a vidformers\.Predictor"),
        (torch.zeros(1, 3, 4, 32, 32), r"got a Tensor; wanted .*Predictor\(\.\.\.\)\.score\(clips\)"),
        (np.zeros((1, 3, 4, 32, 32)), "got a ndarray; wanted the path of one video; clips"),
        (None, "got a NoneType; wanted the path"),
    ],
)
def test_what_is_no_path_of_a_video(video: object, message: str, tmp_path: Path) -> None:
    predictor = Predictor(weights=save_run(tmp_path))
    calls = (
        predictor,
        partial(vf.predict, "none.pyth"),
        partial(vf.explain, predictor),
        partial(vf.predict_timeline, predictor),
    )
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call(video)  # type: ignore[operator]


ARGUMENTS = {"num_classes": 2, "embed_dim": 8, "num_frames": 4, "image_size": 32}


def test_load_weights_brings_the_protocol_of_a_run_too(tmp_path: Path, tiny_dataset: Path) -> None:
    """Whatever way the weights of a run take to the prediction, the answer is the same."""
    video = tiny_dataset / "video_0.mp4"
    run = save_run(tmp_path, "DATA.SAMPLING_RATE", "1", class_names=["blue", "red"])
    wanted = vf.predict(run, video)
    assert wanted.protocol.sampling_rate == 1 and wanted.protocol.mean == (0.4, 0.5, 0.6)
    converted = tmp_path / "converted.safetensors"
    convert_weights(run, converted)
    vf.save_pretrained(vf.from_pretrained(run), tmp_path / "folder")
    for file in (run, converted, tmp_path / "folder"):
        model = vf.create_model("mvit_tiny", **ARGUMENTS)
        assert vf.load_weights(model, file).metadata.protocol == wanted.protocol
        of_class = type(model)(**{**vf.model_arguments("mvit_tiny"), **ARGUMENTS})
        made = vf.create_model("mvit_tiny", weights=file, **ARGUMENTS)
        for source in (model, made, file, vf.from_pretrained(file)):
            answer = vf.predict(source, video)
            assert answer.protocol == wanted.protocol and answer.class_names == ["blue", "red"]
            np.testing.assert_array_equal(answer.view_probabilities, wanted.view_probabilities)
        answer = vf.predict(of_class, video, weights=file)  # it has no metadata of its own
        np.testing.assert_array_equal(answer.view_probabilities, wanted.view_probabilities)
    assert Predictor(model).notes == ()


def test_a_model_of_another_size_keeps_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = vf.create_model("mvit_tiny", **{**ARGUMENTS, "num_frames": 8, "image_size": 64})
    vf.load_weights(model, save_run(tmp_path))
    protocol = Predictor(model).protocol
    assert (protocol.num_frames, protocol.crop_size, protocol.short_side) == (8, 64, 64)
    assert protocol.sampling_rate == 2 and protocol.mean == (0.4, 0.5, 0.6)
    assert caplog.text == ""  # it was asked for
    unasked = vf.create_model("mvit_tiny", num_classes=2, embed_dim=8, image_size=32)
    vf.load_weights(unasked, tmp_path / "run.pyth")
    assert "of a model with num_frames=4; this one has its default, num_frames=8, and is" in caplog.text
    assert Predictor(unasked).protocol.num_frames == 8
    new = vf.from_pretrained(tmp_path / "run.pyth", num_classes=7)
    assert new.num_classes == 7 and new.metadata.protocol.num_frames == 4


def test_a_run_whose_config_is_broken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = torch.load(save_run(tmp_path), weights_only=True)
    model = vf.create_model("mvit_tiny", **ARGUMENTS)
    bomb = "a: &a {x: 1}\nb: &b {x: *a, y: *a}\nMODEL: {NAME: mvit_tiny, ARGS: *b}\n"
    absurd = state["config"].replace("NUM_ENSEMBLE_VIEWS: 3", "NUM_ENSEMBLE_VIEWS: 1000000")
    for config, message in (
        ("DATA: [", "while parsing"),
        ("MODEL: {NAME: gone}", "no model is named 'gone'"),
        (bomb, "it repeats parts"),
        (absurd, "wanted whole numbers from 1 to 10000"),
    ):
        torch.save({**state, "config": config}, tmp_path / "broken.pyth")
        caplog.clear()
        vf.load_weights(model, tmp_path / "broken.pyth")  # the weights are whole
        assert message in caplog.text and model.metadata.protocol is None
        for read in (Predictor, vf.from_pretrained):
            with pytest.raises(ValueError, match=rf"broken\.pyth says of itself .*{message}"):
                read(tmp_path / "broken.pyth")


def test_weights_that_do_not_fit_name_their_model(tmp_path: Path) -> None:
    """MODEL.ARGS as a YAML file takes them, without what is of the data and of the recipe."""
    overrides = ["MODEL.ARGS.drop_path_rate", "0.1", "MODEL.ARGS.pool_q_stride", "[[1, 1, 2, 2]]"]
    overrides += ["MODEL.ARGS.pool_kvq_kernel", "None"]
    run = save_run(tmp_path, *overrides)
    said = r'It says that it is of MODEL\.NAME (mvit_tiny) MODEL\.ARGS "(.*)"; set these, or in Python'
    with pytest.raises(ValueError, match=said) as caught:
        vf.load_weights(vf.create_model("mvit_tiny", num_classes=5), run, strict=False)
    found = re.search(said, str(caught.value))
    assert found is not None
    arguments = {"embed_dim": 8, "pool_q_stride": [[1, 1, 2, 2]], "pool_kvq_kernel": None}
    config = str(ROOT / "configs" / "finetune_folder.yaml")
    (tmp_path / "new.yaml").write_text(
        f"_BASE_: {config}\nMODEL: {{NAME: {found[1]}, ARGS: {found[2]}, NUM_CLASSES: 5}}"
    )
    in_yaml = load_config(tmp_path / "new.yaml")
    typed = ["MODEL.NAME", found[1], "MODEL.ARGS", found[2], "MODEL.NUM_CLASSES", "5"]
    for cfg in (in_yaml, load_config(config, typed)):
        assert dict(cfg.MODEL.ARGS) == arguments
        info = vf.load_weights(build_model(cfg), run, strict=False)
        assert info.missing == ["head.projection.weight", "head.projection.bias"]


def test_the_averaged_weights_of_a_run_are_used(tmp_path: Path) -> None:
    run = save_run(tmp_path)
    state = torch.load(run, weights_only=True)
    torch.save({**state, "ema": {name: value + 1 for name, value in state["model"].items()}}, run)
    model = vf.create_model("mvit_tiny", **ARGUMENTS)
    vf.load_weights(model, run)
    for loaded in (Predictor(weights=run).model, vf.from_pretrained(run), model):
        bias = loaded.state_dict()["head.projection.bias"]
        assert torch.equal(bias, state["model"]["head.projection.bias"] + 1)


def test_a_config_of_another_version_is_read(tmp_path: Path) -> None:
    run = save_run(tmp_path)
    state = torch.load(run, weights_only=True)
    assert checkpoint_config({"model_state": {}, "config": state["config"]}) is None
    cfg = checkpoint_config({**state, "config": state["config"] + "GONE:\n  KEY: 1\n"})
    assert cfg is not None and cfg.DATA.TARGET_FPS == 12.0 and dict(cfg.MODEL.ARGS) == {"embed_dim": 8}


def test_a_checkpoint_of_pyslowfast_says_its_model_and_its_clips(tmp_path: Path) -> None:
    theirs = """
MODEL: {ARCH: mvit, MODEL_NAME: MViT, NUM_CLASSES: 3}
DATA: {NUM_FRAMES: 8, SAMPLING_RATE: 2, TRAIN_CROP_SIZE: 64, TEST_CROP_SIZE: 64,
       TRAIN_JITTER_SCALES: [72, 80]}
TEST: {NUM_ENSEMBLE_VIEWS: 2, NUM_SPATIAL_CROPS: 1}
MVIT: {DEPTH: 2, EMBED_DIM: 16, NUM_HEADS: 1, PATCH_KERNEL: [3, 7, 7],
       PATCH_STRIDE: [2, 4, 4], PATCH_PADDING: [1, 3, 3]}
"""
    (tmp_path / "theirs.yaml").write_text(theirs)
    cfg = load_config(tmp_path / "theirs.yaml")
    state = {"model_state": build_model(cfg).state_dict(), "cfg": theirs}
    torch.save(state, tmp_path / "x.pyth")
    predictor = Predictor(weights=tmp_path / "x.pyth")
    assert predictor.name == "mvit" and len(predictor.class_names) == 3
    assert predictor.protocol == config_protocol(cfg) and predictor.protocol.num_temporal_views == 2
    assert not predictor.multi_label
    several_labels = theirs.replace("DATA: {", "DATA: {MULTI_LABEL: True, ")
    several_labels = several_labels.replace("MODEL: {", "MODEL: {HEAD_ACT: sigmoid, LOSS_FUNC: bce, ")
    several = {**state, "cfg": several_labels}
    torch.save(several, tmp_path / "several.pyth")
    assert Predictor(weights=tmp_path / "several.pyth").multi_label
    assert Predictor(tmp_path / "theirs.yaml", weights=tmp_path / "x.pyth").multi_label is False
    torch.save({**state, "cfg": "MODEL: {ARCH: slowfast, MODEL_NAME: SlowFast}"}, tmp_path / "x.pyth")
    with pytest.raises(ValueError, match="does not say which model it is of"):
        Predictor(weights=tmp_path / "x.pyth")
