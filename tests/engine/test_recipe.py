"""The training recipe: each of its settings reaches what it is for, and does what it says."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejson
import torch
from torch import nn

from tests.engine.test_run import make_cfg, run_training  # noqa: F401
from vidformers.engine import checkpoint as checkpoint_module
from vidformers.engine.build import load_videos
from vidformers.engine.test import load_test_weights
from vidformers.engine.train import Trainer
from vidformers.engine.trained_model import train_mode_

CLIPS = torch.randn(4, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
TARGETS = torch.eye(2)[[0, 1, 1, 0]]


def make_trainer(cfg) -> Trainer:
    return Trainer(cfg, load_videos(cfg, "train"), load_videos(cfg, "val"))


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# A value for each key, and others that must hold for it to matter.
RECIPE = ("AUG.ENABLE", "True", "MIXUP.ENABLE", "True", "MODEL.LOSS_FUNC", "soft_cross_entropy")
RESIZED = ("DATA.TRAIN_JITTER_SCALES_RELATIVE", "[0.5, 1.0]")
RESIZED += ("DATA.TRAIN_JITTER_ASPECT_RELATIVE", "[0.75, 1.33]")
SGD = ("SOLVER.OPTIMIZING_METHOD", "sgd")
STEPS = ("SOLVER.LR_POLICY", "steps_with_relative_lrs", "SOLVER.STEPS", "[0, 2]", "SOLVER.LRS", "[1, 0.1]")
KEYS = {
    "DATA.TRAIN_JITTER_SCALES": ("[40, 44]", ()),
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": ("[0.2, 0.9]", RESIZED),
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": ("[0.9, 1.1]", RESIZED),
    "DATA.TRAIN_JITTER_MOTION_SHIFT": ("True", RESIZED),
    "DATA.INV_UNIFORM_SAMPLE": ("True", ()),
    "DATA.RANDOM_FLIP": ("False", ()),
    "AUG.ENABLE": ("False", ()),
    "AUG.NUM_SAMPLE": ("3", ()),
    "AUG.AA_TYPE": ("rand-m9-n2-mstd0.5-inc1", ()),
    "AUG.INTERPOLATION": ("bilinear", ()),
    "AUG.COLOR_JITTER": ("0.4", ()),
    "AUG.RE_PROB": ("0.5", ()),
    "AUG.RE_COUNT": ("2", ()),
    "MIXUP.ENABLE": ("False", ()),
    "MIXUP.ALPHA": ("0.3", ()),
    "MIXUP.CUTMIX_ALPHA": ("0.3", ()),
    "MIXUP.PROB": ("0.5", ()),
    "MIXUP.SWITCH_PROB": ("0.2", ()),
    "MIXUP.LABEL_SMOOTH_VALUE": ("0.2", ()),
    "SOLVER.BASE_LR": ("2e-3", ()),
    "SOLVER.LR_POLICY": ("cosine", STEPS),
    "SOLVER.STEPS": ("[0, 1]", STEPS),
    "SOLVER.LRS": ("[1, 0.5]", STEPS),
    "SOLVER.MAX_EPOCH": ("4", ()),
    "SOLVER.WARMUP_EPOCHS": ("2.0", ()),
    "SOLVER.WARMUP_START_LR": ("1e-4", ()),
    "SOLVER.COSINE_END_LR": ("1e-4", ()),
    "SOLVER.COSINE_AFTER_WARMUP": ("False", ()),
    "SOLVER.OPTIMIZING_METHOD": ("adam", ()),
    "SOLVER.MOMENTUM": ("0.8", SGD),
    "SOLVER.DAMPENING": ("0.1", (*SGD, "SOLVER.NESTEROV", "False")),
    "SOLVER.NESTEROV": ("False", SGD),
    "SOLVER.BETAS": ("[0.8, 0.99]", ()),
    "SOLVER.WEIGHT_DECAY": ("0.3", ()),
    "SOLVER.ZERO_WD_1D_PARAM": ("False", ()),
    "SOLVER.ZERO_DECAY_POS_CLS": ("True", ()),
    "SOLVER.LAYER_DECAY": ("0.75", ()),
    "TRAIN.BATCH_SIZE": ("2", ()),
}


def settings(trainer: Trainer) -> list[object]:
    """What a trainer has made of its config: the crop, the copies, the mixing, the optimizer, the rates."""
    groups = trainer.optimizer.param_groups
    return [
        trainer.loader.dataset.transform,
        trainer.loader.dataset.num_samples,
        trainer.loader.batch_sampler.batch_size,
        vars(trainer.mixup) if trainer.mixup else None,
        type(trainer.optimizer),
        [{key: value for key, value in group.items() if key != "params"} for group in groups],
        [trainer._learning_rate(epoch) for epoch in (0.0, 0.5, 1.5, 2.5)],
    ]


@pytest.mark.parametrize("key", KEYS)
def test_the_key_reaches_what_it_is_for(make_cfg, key):  # noqa: F811
    value, others = KEYS[key]
    before = settings(make_trainer(make_cfg("run", *RECIPE, *others)))
    after = settings(make_trainer(make_cfg("run", *RECIPE, *others, key, value)))
    assert before == settings(make_trainer(make_cfg("run", *RECIPE, *others)))
    assert before != after


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
def test_erased_boxes_hold_what_the_mode_says(make_cfg, mode):  # noqa: F811
    trainer = make_trainer(make_cfg("run", "AUG.ENABLE", "True", "AUG.RE_MODE", mode))
    batch = {
        "clip": torch.full((1, 3, 4, 32, 32), 255, dtype=torch.uint8),
        "label": torch.tensor([1]),
        "erase_box": torch.tensor([[[0, 0, 8, 8]]]),
        "erase_seed": torch.tensor([5]),
    }
    clips, _ = trainer._prepare(batch, np.random.default_rng(0))
    box = clips[0, :, :, :8, :8]
    spread = {
        "pixel": box.std() > 0.5,
        "rand": 0 == box.std((1, 2, 3)).max() < box.std(),
        "const": not box.any(),
    }
    assert spread[mode]
    assert (clips[0, :, :, 8:] == clips[0, 0, 0, -1, -1]).all()


@pytest.mark.parametrize("loss", ["cross_entropy", "soft_cross_entropy", "bce_logit"])
def test_the_loss_is_the_one_asked_for(make_cfg, loss):  # noqa: F811
    trainer = make_trainer(make_cfg("run", "MODEL.LOSS_FUNC", loss))
    trainer.model.eval()
    logits = trainer.model(CLIPS).detach()
    wanted = {
        "cross_entropy": nn.functional.cross_entropy(logits, TARGETS.argmax(1)),
        "soft_cross_entropy": nn.functional.cross_entropy(logits, TARGETS),
        "bce_logit": nn.functional.binary_cross_entropy_with_logits(logits, TARGETS),
    }
    assert trainer.train_step(CLIPS, TARGETS)[0] == pytest.approx(wanted[loss].item(), rel=1e-5)


def test_whole_numbers_as_decay_rates(make_cfg):  # noqa: F811
    make_trainer(make_cfg("betas", "SOLVER.BETAS", "[0, 0]")).train_step(CLIPS, TARGETS)


def test_micro_batches_give_the_same_gradient(make_cfg):  # noqa: F811
    found, calls = {}, []
    for parts in (1, 2, 3):  # 4 clips in 3 parts: 2, 1 and 1
        trainer = make_trainer(make_cfg("run", "TRAIN.MICRO_BATCHES", str(parts)))
        trainer.model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
        loss, hits, _ = trainer.train_step(CLIPS, TARGETS)
        found[parts] = (loss, hits, gradients(trainer))
    assert calls == [4, 2, 2, 2, 1, 1]
    for parts in (2, 3):
        assert found[parts][0] == pytest.approx(found[1][0], rel=1e-5) and found[parts][1] == found[1][1]
        for name, gradient in found[1][2].items():
            torch.testing.assert_close(found[parts][2][name], gradient, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_by_norm(make_cfg):  # noqa: F811
    free = make_trainer(make_cfg("run", "SOLVER.CLIP_GRAD_L2NORM", "None"))
    assert free.train_step(CLIPS, TARGETS)[2] is None
    norm = torch.stack([g.norm() for g in gradients(free).values()]).norm().item()
    clipped = make_trainer(make_cfg("run", "SOLVER.CLIP_GRAD_L2NORM", str(norm / 4)))
    assert clipped.train_step(CLIPS, TARGETS)[2] == pytest.approx(norm, rel=1e-4)  # as it was before
    for name, gradient in gradients(clipped).items():
        torch.testing.assert_close(gradient, gradients(free)[name] / 4, rtol=1e-3, atol=1e-7)


def test_gradients_are_clipped_by_value(make_cfg):  # noqa: F811
    off = ("SOLVER.CLIP_GRAD_L2NORM", "None")
    free = make_trainer(make_cfg("run", *off))
    free.train_step(CLIPS, TARGETS)
    limit = max(g.abs().max().item() for g in gradients(free).values()) / 3
    clipped = make_trainer(make_cfg("run", *off, "SOLVER.CLIP_GRAD_VAL", str(limit)))
    clipped.train_step(CLIPS, TARGETS)
    for name, gradient in gradients(clipped).items():
        torch.testing.assert_close(gradient, gradients(free)[name].clamp(-limit, limit))


def test_the_average_of_the_weights_is_the_one_computed_by_hand(make_cfg, tmp_path):  # noqa: F811
    trainer = make_trainer(make_cfg("run", "SOLVER.EMA_DECAY", "0.75", "SOLVER.BASE_LR", "1e-2"))
    trainer.train_step(CLIPS, TARGETS)
    wanted = weights(trainer.model)  # the average begins with the weights after the first step
    for _ in range(3):
        trainer.train_step(CLIPS, TARGETS)
        wanted = {name: 0.75 * wanted[name] + 0.25 * value for name, value in weights(trainer.model).items()}
    averaged, last = weights(trainer.ema.module), weights(trainer.model)
    for name, value in wanted.items():
        torch.testing.assert_close(averaged[name], value, rtol=1e-5, atol=1e-7)
    assert any(not torch.allclose(averaged[name], last[name], rtol=1e-3) for name in last)
    # It is what is tested, and validated beside the weights themselves.
    trainer.state.save()
    fresh = make_trainer(make_cfg("other")).model
    load_test_weights(trainer.cfg, fresh, None)
    assert all(torch.equal(value, averaged[name]) for name, value in weights(fresh).items())
    assert {"top1", "ema_top1", "ema_loss"} <= trainer.validate(1).keys()


def test_without_a_decay_there_is_no_average(make_cfg):  # noqa: F811
    trainer = make_trainer(make_cfg("run"))
    assert trainer.ema is None and "ema_top1" not in trainer.validate(1)


def trained_and_still(trainer: Trainer) -> tuple[set[str], set[str]]:
    before = weights(trainer.model)
    train_mode_(trainer.model)
    for _ in range(2):
        trainer.train_step(CLIPS, TARGETS)
    after = weights(trainer.model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    return moved, before.keys() - moved


def test_a_frozen_backbone_leaves_the_classifier_to_train(make_cfg):  # noqa: F811
    drop = ("MODEL.ARGS", "{'embed_dim': 8, 'drop_path_rate': 0.5, 'head_dropout_rate': 0.5}")
    trainer = make_trainer(make_cfg("run", "MODEL.FREEZE", "['backbone']", *drop))
    moved, still = trained_and_still(trainer)
    assert moved == {"head.projection.weight", "head.projection.bias"} and len(still) > 20
    # No drop path in what does not learn, so that the classifier sees the features it will be tested on.
    assert not any(module.training for module in trainer.model.blocks.modules() if list(module.parameters()))
    assert trainer.model.head.training
    names = [name for group in trainer.optimizer.param_groups for name in group["names"]]
    assert sorted(names) == sorted(moved)


def test_frozen_beginnings_of_names(make_cfg):  # noqa: F811
    trainer = make_trainer(make_cfg("run", "MODEL.FREEZE", "['patch_embed', 'blocks.0.']"))
    moved, still = trained_and_still(trainer)
    assert {name for name in still if name.startswith(("patch_embed", "blocks.0."))} == {
        name for name, _ in trainer.model.named_parameters() if name.startswith(("patch_embed", "blocks.0."))
    }
    assert not trainer.model.patch_embed.training and not trainer.model.blocks[0].training
    assert trainer.model.blocks[1].training and any(name.startswith("blocks.1.") for name in moved)
    with pytest.raises(ValueError, match=r"MODEL.FREEZE: no parameter is named blok\.\.\.; use backbone or"):
        make_trainer(make_cfg("run", "MODEL.FREEZE", "['blok']"))


def test_a_loss_that_is_not_a_number_names_the_videos_of_its_batch(make_cfg, monkeypatch):  # noqa: F811
    cfg = make_cfg("nan")
    trainer = make_trainer(cfg)
    batches = list(trainer.loader)
    steps = iter([1.0, float("nan")])
    monkeypatch.setattr(trainer, "train_step", lambda clips, targets: (next(steps), 0.0, None))
    with pytest.raises(ValueError, match=r"loss became nan at epoch 1, step 2 of 2") as error:
        trainer.run()
    records = load_videos(cfg, "train").records
    paths = [records[index].path for index in batches[1]["index"]]
    assert len(paths) == 4 and all(path in str(error.value) for path in paths)
    lines = [simplejson.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["event"] == "bad_loss" and lines[-1]["videos"] == paths


def test_compiling_is_a_switch_of_training_alone(make_cfg, monkeypatch):  # noqa: F811
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or (lambda x: 2 * model(x)))
    plain = make_trainer(make_cfg("run"))
    assert plain.step_model is plain.model and not compiled
    trainer = make_trainer(make_cfg("run", "MODEL.COMPILE", "True"))
    assert compiled == [trainer.model]
    assert trainer.train_step(CLIPS, TARGETS)[0] != plain.train_step(CLIPS, TARGETS)[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_precision_is_that_of_the_matrices(make_cfg, precision):  # noqa: F811
    trainer = make_trainer(make_cfg("run", "TRAIN.PRECISION", precision))
    seen = []
    trainer.model.head.projection.register_forward_hook(lambda _, inputs, output: seen.append(output.dtype))
    trainer.train_step(CLIPS, TARGETS)
    assert seen == [{"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]]
    assert trainer.scaler.is_enabled() == (precision == "fp16")
    assert all(
        p.dtype == p.grad.dtype == torch.float32 for p in trainer.model.parameters() if p.grad is not None
    )


def test_validation_and_checkpoints_come_when_asked_for(make_cfg):  # noqa: F811
    cfg = make_cfg("run", "SOLVER.MAX_EPOCH", "4", "TRAIN.EVAL_PERIOD", "3", "TRAIN.CHECKPOINT_PERIOD", "2")
    run_training(cfg)
    lines = [simplejson.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if line["event"] == "val"] == [3, 4]
    names = {path.name for path in (Path(cfg.OUTPUT_DIR) / "checkpoints").iterdir()}
    assert names == {"best.pyth", "checkpoint_epoch_00002.pyth", "checkpoint_epoch_00004.pyth"}


def test_of_equal_accuracies_the_lower_loss_is_the_best(make_cfg, monkeypatch):  # noqa: F811
    trainer = make_trainer(make_cfg("run"))
    trainer.ema = None
    scores = iter([(50.0, 0.7), (50.0, 0.2), (50.0, 0.3), (40.0, 0.1), (60.0, 0.9)])
    written = []
    monkeypatch.setattr(trainer.state, "write_whole", lambda path: written.append(epoch))

    def next_scores(model: nn.Module) -> dict[str, float]:
        top1, loss = next(scores)
        return {"top1": top1, "top5": 100.0, "loss": loss, "num_videos": 2, "num_failed": 0}

    monkeypatch.setattr(trainer, "_validate", next_scores)
    for epoch in range(1, 6):
        trainer.validate(epoch)
    assert written == [1, 2, 5]
    assert (trainer.progress.best, trainer.progress.best_loss) == (60.0, 0.9)


def test_processes_that_found_different_checkpoints_are_stopped(make_cfg, monkeypatch):  # noqa: F811
    newest = "checkpoint_epoch_00005.pyth"
    monkeypatch.setattr(checkpoint_module, "gathered", lambda names: [names, [newest]])
    with pytest.raises(ValueError, match=r"the newest: none, checkpoint_epoch_00005.*must be a folder"):
        make_trainer(make_cfg("run"))


def test_the_order_of_an_epoch_under_way_stays(make_cfg):  # noqa: F811
    trainer = make_trainer(make_cfg("run"))
    trainer.progress.step = 1
    trainer.state.save()
    assert make_trainer(make_cfg("run")).progress.step == 1
    with pytest.raises(ValueError, match="that of RNG_SEED 0; with 7 some videos would come twice"):
        make_trainer(make_cfg("run", "RNG_SEED", "7"))


def test_each_process_and_step_draws_from_a_stream_of_its_own(make_cfg, monkeypatch):  # noqa: F811
    seeds = {}

    def step(self, clips, targets):
        seeds.setdefault(os.environ.get("RANK", "0"), []).append(torch.initial_seed())
        return 1.0, 0.0, None

    monkeypatch.setattr(Trainer, "train_step", step)
    for process in ("0", "1", "0"):
        monkeypatch.delenv("RANK", raising=False)
        trainer = make_trainer(make_cfg("run", "LOG_PERIOD", "100"))
        monkeypatch.setenv("RANK", process)
        for epoch in (0, 1):
            trainer.progress.step = 0
            trainer.train_epoch(epoch)
    assert len(set(seeds["1"])) == 4 and set(seeds["0"]).isdisjoint(seeds["1"])
    assert seeds["0"][:4] == seeds["0"][4:]


def test_a_step_waits_for_the_device_once(make_cfg, monkeypatch):  # noqa: F811
    """Each value that is read stops the host until a GPU has caught up."""
    trainer = make_trainer(make_cfg("run", "TRAIN.MICRO_BATCHES", "2", "SOLVER.CLIP_GRAD_L2NORM", "1.0"))
    read = []
    for name in ("item", "tolist", "cpu", "numpy", "__float__", "__bool__"):
        method = getattr(torch.Tensor, name)

        def counted(self, *arguments, name=name, method=method):
            # The optimizer's count of its steps lies on the CPU.
            if "torch/optim" not in sys._getframe(1).f_code.co_filename:
                read.append(name)
            return method(self, *arguments)

        monkeypatch.setattr(torch.Tensor, name, counted)
    trainer.train_step(CLIPS, TARGETS)
    assert read == ["tolist"]
