"""Pre-training on a few tiny videos: what it logs, draws and saves, and fine-tuning from it."""

from functools import partial
from pathlib import Path

import pytest
import simplejson
import torch
from PIL import Image

from tests.engine.test_run import make_cfg, run_training  # noqa: F401
from vidformers.engine.build import load_videos
from vidformers.engine.pretrain import Pretrainer
from vidformers.models.masked_autoencoder import patchify

ARGS = "{'embed_dim': 24, 'depth': 2, 'class_token': False}"
MODEL = ("MODEL.NAME", "vit_tiny", "MODEL.ARGS", ARGS)
SMALL = "{'patch_kernel': [2, 4, 4], 'patch_stride': [2, 4, 4]}"
SMALL_PATCHES = ("MODEL.NAME", "vit_tiny", "MODEL.ARGS", SMALL)
# Two blocks, of which the second pools 8 x 8 tokens to 4 x 4 cells of 8 x 8 pixels.
MVIT = (
    "MODEL.NAME",
    "mvit_tiny",
    "MODEL.ARGS",
    "{'embed_dim': 16, 'depth': 2, 'dim_mul': [[1, 2.0]], 'head_mul': [[1, 2.0]], "
    "'pool_q_stride': [[1, 1, 2, 2]], 'patch_kernel': [2, 4, 4], 'patch_padding': [0, 0, 0]}",
)
PRETRAIN = (
    "PRETRAIN.ENABLE",
    "True",
    "PRETRAIN.MASK_RATIO",
    "0.75",
    "TEST.ENABLE",
    "False",
    "LOG_PERIOD",
    "1",
)
PRETRAIN += ("PRETRAIN.DECODER_DIM", "16", "PRETRAIN.DECODER_DEPTH", "1", "PRETRAIN.DECODER_HEADS", "2")
PRETRAIN += ("SOLVER.WARMUP_EPOCHS", "0.0")


def make_pretrainer(cfg) -> Pretrainer:
    return Pretrainer(cfg, load_videos(cfg, "train"), load_videos(cfg, "val"))


def lines_of(cfg, event: str) -> list[dict]:
    lines = [simplejson.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def test_it_learns_and_fine_tuning_starts_from_it(make_cfg, capsys):  # noqa: F811
    settings = ("PRETRAIN.NORMALIZE_PIXELS", "False", "SOLVER.BASE_LR", "3e-3", "SOLVER.MAX_EPOCH", "12")
    cfg = make_cfg("pretrain", *MODEL, *PRETRAIN, *settings, "TRAIN.EVAL_PERIOD", "1")
    trainer = make_pretrainer(cfg)
    trainer.run()
    validations = lines_of(cfg, "val")
    assert validations[-1]["loss"] < 0.7 * validations[0]["loss"]
    assert len({line["mean_patch_loss"] for line in validations}) == 1  # the same is hidden each time
    assert {line["num_videos"] for line in validations} == {8}
    assert not any("top1" in line for line in [*validations, *lines_of(cfg, "train")])
    # 4 clips of 3 rows of 4 frames, each enlarged to 96 pixels, with gaps of 4, and of 8 between clips.
    with Image.open(Path(cfg.OUTPUT_DIR) / "reconstruction.png") as image:
        assert image.size == (4 * 100, 12 * 100 + 3 * 8)

    weights = str(Path(cfg.OUTPUT_DIR) / "checkpoints" / "best.pyth")
    still = ("SOLVER.MAX_EPOCH", "1", "SOLVER.WARMUP_EPOCHS", "0.0", "SOLVER.BASE_LR", "1e-12")
    still += ("SOLVER.COSINE_END_LR", "0.0", "SOLVER.WARMUP_START_LR", "0.0")
    tuned = run_training(make_cfg("tuned", *MODEL, "TRAIN.CHECKPOINT_FILE_PATH", weights, *still))
    assert "random initialisation: head.projection.bias, head.projection.weight" in capsys.readouterr().out
    for name, value in trainer.model.encoder.state_dict().items():
        if not name.startswith("norm."):
            torch.testing.assert_close(tuned.model.state_dict()[name], value, atol=1e-9, rtol=1e-6)


def test_the_loss_is_that_of_the_hidden_patches_alone(make_cfg):  # noqa: F811
    trainer = make_pretrainer(make_cfg("run", *MODEL, *PRETRAIN, "PRETRAIN.NORMALIZE_PIXELS", "False"))
    trainer.model.eval()
    clips = torch.randn(4, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    masks = trainer._masks([(0, video) for video in range(4)])
    with torch.no_grad():
        predicted = trainer.model(clips, masks)
        wanted = patchify(clips, (2, 8, 8)).flatten(2)[masks].unflatten(0, (4, -1))
        expected = (predicted - wanted).square().mean().item()
        assert trainer.loss_and_hits(clips, masks)[0].item() == pytest.approx(expected, rel=1e-5)
    assert trainer.train_step(clips, masks)[0] == pytest.approx(expected, rel=1e-5)


def test_a_resumed_pretraining_repeats_the_straight_one(make_cfg):  # noqa: F811
    epochs = ("SOLVER.MAX_EPOCH", "3", "TRAIN.EVAL_PERIOD", "3")
    straight = make_cfg("straight", *MODEL, *PRETRAIN, *epochs)
    make_pretrainer(straight).run()
    cfg = make_cfg("resumed", *MODEL, *PRETRAIN, *epochs)
    make_pretrainer(cfg).run()
    for epoch in (2, 3):
        (Path(cfg.OUTPUT_DIR) / "checkpoints" / f"checkpoint_epoch_{epoch:05d}.pyth").unlink()
    make_pretrainer(cfg).run()
    wanted = [line["loss"] for line in (*lines_of(straight, "train"), *lines_of(straight, "val"))]
    found = [line["loss"] for line in (*lines_of(cfg, "train")[-4:], lines_of(cfg, "val")[-1])]
    assert len(wanted) == 7 and found == wanted[2:]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("TEST.ENABLE", "True"), "no classifier that could be tested"),
        (("MIXUP.ENABLE", "True", "MODEL.LOSS_FUNC", "soft_cross_entropy"), "no labels to mix"),
        (("TRAIN.CHECKPOINT_FILE_PATH", "weights.pyth"), "random weights"),
        (("SOLVER.LAYER_DECAY", "0.75"), "one rate for all layers"),
        (("PRETRAIN.MASKING", "tubes"), "did you mean tube"),
        (("PRETRAIN.TARGET", "hogs"), "did you mean hog"),
        (("PRETRAIN.MASK_UNIT", "[1, 0, 1]"), "three whole numbers"),
        (("MODEL.FREEZE", "['backbone']"), "trains all from random weights"),
    ],
)
def test_settings_that_contradict_pretraining_are_refused(make_cfg, settings, message):  # noqa: F811
    with pytest.raises(ValueError, match=message):
        make_cfg("run", *MODEL, *PRETRAIN, *settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("MODEL.NAME", "swin_tiny", "MODEL.ARGS", "{}"), "is a Swin; wanted a VisionTransformer"),
        (("MODEL.NAME", "rev_mvit_tiny", "MODEL.ARGS", "{}"), "is a RevMViT; wanted a VisionTransformer"),
        ((*MODEL, "PRETRAIN.MASK_UNIT", "[1, 3, 1]"), r"units of \(1, 3, 1\) tokens, which do not fill"),
        ((*MODEL, "PRETRAIN.DECODER_DEPTH", "0"), "decoder_depth=0 must be a whole number of at least 1"),
        ((*MODEL, "PRETRAIN.DECODER_HEADS", "3"), "not divisible by num_heads=3"),
        ((*MVIT, "PRETRAIN.DECODER_HEADS", "3"), "not divisible by num_heads=3"),
        ((*SMALL_PATCHES, "PRETRAIN.TARGET", "hog"), "wanted a multiple of the 8 x 8 cells"),
    ],
)
def test_a_model_that_cannot_be_masked_is_refused(make_cfg, settings, message):  # noqa: F811
    with pytest.raises(ValueError, match=message):
        make_pretrainer(make_cfg("run", *PRETRAIN, *settings))


@pytest.mark.parametrize("masking", ["tube", "random", "cube"])
@pytest.mark.parametrize("target", ["pixels", "hog"])
def test_an_mvit_learns_and_fine_tuning_starts_from_it(make_cfg, masking, target, capsys):  # noqa: F811
    settings = ("PRETRAIN.NORMALIZE_PIXELS", "False", "SOLVER.BASE_LR", "1e-2", "SOLVER.MAX_EPOCH", "8")
    settings += ("PRETRAIN.MASKING", masking, "PRETRAIN.TARGET", target, "PRETRAIN.MASK_RATIO", "0.5")
    settings += ("PRETRAIN.DECODER_DEPTH", "0" if target == "hog" else "1")
    cfg = make_cfg("pretrain", *PRETRAIN, *MVIT, *settings, "TRAIN.EVAL_PERIOD", "1")
    trainer = make_pretrainer(cfg)
    trainer.run()
    first, *_, last = lines_of(cfg, "val")
    assert last["loss"] < 0.9 * first["loss"]
    # Of histograms the frames that they describe, beside two pictures of them.
    frames, rows = (2, 4) if target == "hog" else (4, 3)
    with Image.open(Path(cfg.OUTPUT_DIR) / "reconstruction.png") as image:
        assert image.size == (frames * 100, 4 * rows * 100 + 3 * 8)
    weights = str(Path(cfg.OUTPUT_DIR) / "checkpoints" / "checkpoint_epoch_00008.pyth")
    still = ("SOLVER.MAX_EPOCH", "1", "SOLVER.WARMUP_EPOCHS", "0.0", "SOLVER.BASE_LR", "1e-12")
    still += ("SOLVER.COSINE_END_LR", "0.0", "SOLVER.WARMUP_START_LR", "0.0")
    tuned = run_training(make_cfg("tuned", *MVIT, "TRAIN.CHECKPOINT_FILE_PATH", weights, *still))
    assert "random initialisation: head.projection.bias, head.projection.weight" in capsys.readouterr().out
    for name, value in trainer.model.encoder.state_dict().items():
        if not name.startswith("norm."):
            torch.testing.assert_close(tuned.model.state_dict()[name], value, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("model", ["MODEL", "MVIT"])
def test_micro_batches_averages_and_compilation(make_cfg, model, monkeypatch):  # noqa: F811
    """Each gives the plain run's loss, and the average its own validation."""
    plain = ("SOLVER.MAX_EPOCH", "2", "SOLVER.OPTIMIZING_METHOD", "sgd", *PRETRAIN, *globals()[model])
    if model == "MVIT":
        plain += ("PRETRAIN.MASK_RATIO", "0.5")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    losses = {}
    for option in (("TRAIN.MICRO_BATCHES", "1"), ("TRAIN.MICRO_BATCHES", "3"), ("SOLVER.EMA_DECAY", "0.5"),
                   ("MODEL.COMPILE", "True")):  # fmt: skip
        cfg = make_cfg("".join(option), *plain, *option)
        trainer = make_pretrainer(cfg)
        assert (trainer.step_model is trainer.model) == (option[0] != "MODEL.COMPILE")
        trainer.run()
        losses[option] = [line["loss"] for line in (*lines_of(cfg, "train"), *lines_of(cfg, "val"))]
        assert ("ema_loss" in lines_of(cfg, "val")[-1]) == (option[0] == "SOLVER.EMA_DECAY")
    first, *others = losses.values()
    assert len(first) == 5
    for other in others:
        assert other == pytest.approx(first, rel=1e-4)


def test_copies_of_a_clip_hide_different_places_and_processes_do_not_count(make_cfg, monkeypatch):  # noqa: F811
    copies = ("AUG.ENABLE", "True", "AUG.NUM_SAMPLE", "2")
    trainer = make_pretrainer(make_cfg("run", *MODEL, *PRETRAIN, *copies))
    (batch, *_) = trainer.loader
    _, masks = trainer._prepare(batch, None)
    assert len(masks) == 8 and len({tuple(mask.tolist()) for mask in masks}) == 8
    monkeypatch.setenv("RANK", "1")
    assert torch.equal(trainer._prepare(batch, None)[1], masks)
    trainer.progress.epoch = 1
    assert not torch.equal(trainer._prepare(batch, None)[1], masks)
