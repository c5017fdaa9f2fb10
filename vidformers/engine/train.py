"""Training: one loop over epochs, with validation, checkpoints, resume and a count of bad videos.

Follows PySlowFast's recipe: the learning rate is set every iteration at the fractional epoch, the gradient is
clipped, mixup and label smoothing turn labels into soft targets.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

import vidformers
from vidformers.checkpoints import load_weights
from vidformers.data.augment import erase_clips_
from vidformers.data.transforms import normalize_clips
from vidformers.engine.build import (
    VideoList,
    build_test_loader,
    build_train_loader,
    resolve_device,
)
from vidformers.engine.checkpoint import (
    check_class_names,
    checkpoint_path,
    load_newest_checkpoint,
    save_checkpoint,
)
from vidformers.engine.data_time import DataTime
from vidformers.engine.logs import FailedVideos, JsonlLog, say
from vidformers.engine.mixup import MixUp, binary_cross_entropy, soft_cross_entropy
from vidformers.engine.model import build_model
from vidformers.engine.optim import build_optimizer, learning_rate, parameter_groups, set_learning_rate
from vidformers.engine.predictions import mean_loss, summarize
from vidformers.engine.test import autocast, score_videos


class Trainer:
    """One training run as `cfg` describes it; `run()` does all of it, the other methods are its steps."""

    def __init__(self, cfg: CfgNode, train_videos: VideoList, val_videos: VideoList) -> None:
        self.cfg = cfg
        self.output = Path(cfg.OUTPUT_DIR)
        self.log = JsonlLog(self.output / "log.jsonl")
        self.failed = FailedVideos(self.output / "failed_videos.csv")
        self.failed.forget("train")  # they may have been repaired since
        self.device = resolve_device(cfg.DEVICE)
        self.train_videos = train_videos
        self.loader = build_train_loader(cfg, train_videos)
        self.val_loader = build_test_loader(cfg, val_videos, num_views=1, num_crops=1)
        torch.manual_seed(cfg.RNG_SEED)
        self.model: nn.Module = build_model(cfg)
        self.start_epoch = 0
        resumed = load_newest_checkpoint(self.checkpoints)
        if resumed is not None and not cfg.TRAIN.AUTO_RESUME:
            raise ValueError(
                f"TRAIN.AUTO_RESUME is False, but {self.checkpoints} holds checkpoints of an earlier run; "
                "set another OUTPUT_DIR, or move them away."
            )
        if resumed is None and cfg.TRAIN.CHECKPOINT_FILE_PATH:
            start_from_weights(
                self.model, cfg.TRAIN.CHECKPOINT_FILE_PATH, train_videos.class_names, self.output
            )
        self.model.to(self.device)
        if self.device.type == "cpu" and cfg.TRAIN.PRECISION != "fp32":
            norms_in_fp32(self.model)
        self.step_model = torch.compile(self.model) if cfg.MODEL.COMPILE else self.model
        solver = cfg.SOLVER
        groups = parameter_groups(
            self.model,
            base_weight_decay=solver.WEIGHT_DECAY,
            layer_decay=solver.LAYER_DECAY,
            zero_decay_pos_cls=solver.ZERO_DECAY_POS_CLS,
            zero_wd_1d_param=solver.ZERO_WD_1D_PARAM,
        )
        self.optimizer = build_optimizer(
            groups,
            method=solver.OPTIMIZING_METHOD,
            lr=solver.BASE_LR,
            momentum=solver.MOMENTUM,
            dampening=solver.DAMPENING,
            nesterov=solver.NESTEROV,
            betas=tuple(solver.BETAS),
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=cfg.TRAIN.PRECISION == "fp16")
        self.loss = binary_cross_entropy if cfg.MODEL.LOSS_FUNC == "bce_logit" else soft_cross_entropy
        self.mixup = None
        if cfg.MIXUP.ENABLE:
            self.mixup = MixUp(
                alpha=cfg.MIXUP.ALPHA,
                cutmix_alpha=cfg.MIXUP.CUTMIX_ALPHA,
                prob=cfg.MIXUP.PROB,
                switch_prob=cfg.MIXUP.SWITCH_PROB,
                label_smoothing=cfg.MIXUP.LABEL_SMOOTH_VALUE,
                num_classes=cfg.MODEL.NUM_CLASSES,
            )
        if resumed is not None:
            self._resume(*resumed)

    @property
    def checkpoints(self) -> Path:
        return self.output / "checkpoints"

    def _resume(self, path: Path, state: dict) -> None:
        """Continue from `state`; settings that changed since are named, and the new ones hold."""
        missing = {"model", "optimizer", "scaler", "epoch", "config"} - state.keys()
        if missing:
            raise ValueError(
                f"{path} is not a checkpoint of this library (it lacks {', '.join(sorted(missing))}). To "
                "start from its weights set TRAIN.CHECKPOINT_FILE_PATH, and OUTPUT_DIR to another folder."
            )
        check_class_names(path, state.get("class_names"), self.train_videos.class_names, self.output)
        changed = _changed_settings(CfgNode.load_cfg(state["config"]), self.cfg)
        if "SOLVER.OPTIMIZING_METHOD" in changed or "SOLVER.LAYER_DECAY" in changed:
            raise ValueError(
                f"{path} was written with other optimizer settings ({'; '.join(changed.values())}), whose "
                "state does not fit. Use the old ones, or another OUTPUT_DIR."
            )
        settings = [
            {key: group[key] for key in group if key != "params"} for group in self.optimizer.param_groups
        ]
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"{path} does not fit this run's model ({reason}). Use the config it was written with, or "
                "another OUTPUT_DIR."
            ) from error
        for group, values in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(values)
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.start_epoch = state["epoch"]
        say(f"Resuming from {path} after {self.start_epoch} of {self.cfg.SOLVER.MAX_EPOCH} epochs.")
        if changed:
            say(f"  settings changed since: {'; '.join(changed.values())}")

    def run(self) -> dict[str, float]:
        """Train to SOLVER.MAX_EPOCH; returns the last validation's numbers (empty if already finished)."""
        cfg = self.cfg
        num_parameters = sum(p.numel() for p in self.model.parameters())
        say(
            f"Training {cfg.MODEL.NAME} ({num_parameters / 1e6:.2f} M parameters) on "
            f"{len(self.train_videos.records)} videos of {self.train_videos.source}, {self.device.type}, "
            f"{cfg.TRAIN.PRECISION}, epochs {self.start_epoch} to {cfg.SOLVER.MAX_EPOCH}."
        )
        results: dict[str, float] = {}
        for epoch in range(self.start_epoch, cfg.SOLVER.MAX_EPOCH):
            self.train_epoch(epoch)
            finished, last = epoch + 1, epoch + 1 == cfg.SOLVER.MAX_EPOCH
            if last or finished % cfg.TRAIN.EVAL_PERIOD == 0:
                results = self.validate(finished)
            if last or finished % cfg.TRAIN.CHECKPOINT_PERIOD == 0:
                save_checkpoint(checkpoint_path(self.checkpoints, finished), self._state(finished))
        return results

    def train_epoch(self, epoch: int) -> None:
        """One pass over the training videos."""
        from tqdm import tqdm

        cfg = self.cfg
        self.model.train()
        self.loader.set_epoch(epoch)  # type: ignore[attr-defined]
        steps = len(self.loader)
        total_loss = total_hits = total_clips = 0.0
        data_time = DataTime()
        progress = tqdm(
            total=steps * cfg.TRAIN.BATCH_SIZE,
            desc=f"epoch {epoch + 1}/{cfg.SOLVER.MAX_EPOCH}",
            unit="video",
            dynamic_ncols=True,
            mininterval=0.5,
            leave=False,
        )
        for step, batch in enumerate(data_time.watch(self.loader)):
            for seconds in batch["seconds"]:
                data_time.add(seconds, num_clips=1)
            self._count_failures(batch["failures"])
            lr = self._learning_rate(epoch + step / steps)
            set_learning_rate(self.optimizer, lr)
            # Dropout, drop path and mixup depend on (seed, epoch, step) alone: a resumed run repeats them.
            torch.manual_seed(_step_seed(cfg.RNG_SEED, epoch, step))
            clips, targets = self._prepare(batch, np.random.default_rng((cfg.RNG_SEED, epoch, step)))
            loss, logits, gradient_norm = self.train_step(clips, targets)
            if not math.isfinite(loss):
                raise ValueError(
                    f"The training loss became {loss} at epoch {epoch + 1}, step {step + 1} of {steps} "
                    f"(learning rate {lr:.3g}). Try a lower SOLVER.BASE_LR, a longer SOLVER.WARMUP_EPOCHS, "
                    "SOLVER.CLIP_GRAD_L2NORM 1.0 or TRAIN.PRECISION bf16."
                )
            # Of a set of labels one is enough; a video without any cannot be hit.
            best = targets.gather(1, logits.argmax(1)[:, None])[:, 0]
            hits = (best >= targets.amax(1).clamp(1e-9)).sum().item()
            total_loss, total_hits = total_loss + loss * len(clips), total_hits + hits
            total_clips += len(clips)
            progress.update(cfg.TRAIN.BATCH_SIZE)
            if (step + 1) % cfg.LOG_PERIOD == 0 or step + 1 == steps:
                elapsed = time.perf_counter() - data_time.started
                remaining = steps * (cfg.SOLVER.MAX_EPOCH - epoch) - step - 1
                values = {
                    "epoch": epoch + 1,
                    "step": step + 1,
                    "loss": total_loss / total_clips,
                    "top1_of_mixed_batches" if self.mixup else "top1": 100 * total_hits / total_clips,
                    "lr": lr,
                    "gradient_norm": gradient_norm,
                    "videos_per_second": (step + 1) * cfg.TRAIN.BATCH_SIZE / elapsed,
                    **data_time.values(),
                    "eta_seconds": elapsed / (step + 1) * remaining,
                }
                self.log.write("train", **values)
                progress.set_postfix(loss=f"{values['loss']:.3f}", lr=f"{lr:.2g}")
        progress.close()
        self.last_epoch_loss = total_loss / max(total_clips, 1)

    def train_step(self, clips: Tensor, targets: Tensor) -> tuple[float, Tensor, float | None]:
        """Forward, backward, optimizer step; returns loss, logits and the gradient norm before clipping."""
        solver = self.cfg.SOLVER
        with autocast(self.device, self.cfg.TRAIN.PRECISION):
            logits = self.step_model(clips)
        # The loss is taken in fp32: half-precision log-softmax loses the small probabilities.
        loss = self.loss(logits.float(), targets)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = None
        if solver.CLIP_GRAD_VAL:
            nn.utils.clip_grad_value_(self.model.parameters(), solver.CLIP_GRAD_VAL)
        elif solver.CLIP_GRAD_L2NORM:
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), solver.CLIP_GRAD_L2NORM).item()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.item(), logits.detach(), norm

    def validate(self, epoch: int) -> dict[str, float]:
        """Score one view (centre crop) of every validation video; logs and prints top-1, top-5 and loss."""
        cfg = self.cfg
        data_time = DataTime()
        predictions, failures = score_videos(
            self.model,
            self.val_loader,
            data_time=data_time,
            num_classes=cfg.MODEL.NUM_CLASSES,
            num_temporal_views=1,
            num_spatial_crops=1,
            ensemble_method="sum",
            batch_size=cfg.TEST.BATCH_SIZE,
            mean=tuple(cfg.DATA.MEAN),
            std=tuple(cfg.DATA.STD),
            device=self.device,
            precision=cfg.TEST.PRECISION,
            description="validate",
        )
        self.failed.forget("val")
        self.failed.add("val", failures)
        summary = summarize(predictions, None)
        results = {
            "top1": float(summary["top1"]),  # type: ignore[arg-type]
            "top5": float(summary["top5"]),  # type: ignore[arg-type]
            "loss": mean_loss(predictions),
            "num_videos": len(predictions.labels),
            "num_failed": int(predictions.failed.sum()),
        }
        if "map" in summary:
            results["map"] = float(summary["map"])  # type: ignore[arg-type]
        times = data_time.values()
        self.log.write("val", epoch=epoch, train_loss=self.last_epoch_loss, **results, **times)
        say(
            f"epoch {epoch}/{cfg.SOLVER.MAX_EPOCH}: training loss {self.last_epoch_loss:.3f}, validation "
            f"top-1 {results['top1']:.2f} %, loss {results['loss']:.3f}"
            + (f", mAP {results['map']:.2f} %" if "map" in results else "")
            + (f", {results['num_failed']} videos unreadable" if results["num_failed"] else "")
        )
        return results

    def _learning_rate(self, epoch: float) -> float:
        solver = self.cfg.SOLVER
        return learning_rate(
            epoch,
            base_lr=solver.BASE_LR,
            policy=solver.LR_POLICY,
            max_epoch=solver.MAX_EPOCH,
            warmup_epochs=solver.WARMUP_EPOCHS,
            warmup_start_lr=solver.WARMUP_START_LR,
            cosine_end_lr=solver.COSINE_END_LR,
            cosine_after_warmup=solver.COSINE_AFTER_WARMUP,
            steps=solver.STEPS,
            relative_lrs=solver.LRS,
        )

    def _prepare(self, batch: dict, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """uint8 clips and labels -> normalised (B, 3, T, H, W) floats and (B, K) targets on the device."""
        cfg = self.cfg
        clips = batch["clip"].to(self.device, non_blocking=True)
        clips = normalize_clips(clips, mean=tuple(cfg.DATA.MEAN), std=tuple(cfg.DATA.STD))
        erase_clips_(clips, batch["erase_box"], batch["erase_seed"], mode=cfg.AUG.RE_MODE)
        labels = batch["label"].to(self.device)
        if self.mixup is not None:
            return self.mixup(clips, labels, generator)
        if labels.ndim == 2:  # sets of labels, as targets already
            return clips, labels
        return clips, F.one_hot(labels, cfg.MODEL.NUM_CLASSES).float()

    def _count_failures(self, failures: Sequence[Sequence[str]]) -> None:
        """Name each new unreadable video; stop when they are too many to call the epoch an epoch."""
        for row in self.failed.add("train", failures):
            say(f"Unreadable training video, another is used instead: {row.path}: {row.detail}")
        count, total = self.failed.count("train"), len(self.train_videos.records)
        if count > self.cfg.DATA.MAX_BAD_VIDEO_FRACTION * total:
            reasons = ", ".join(f"{n} {reason}" for reason, n in self.failed.reasons("train").items())
            raise ValueError(
                f"{count} of {total} training videos cannot be read ({reasons}), more than "
                f"DATA.MAX_BAD_VIDEO_FRACTION={self.cfg.DATA.MAX_BAD_VIDEO_FRACTION:g} allows. They are "
                f"listed in {self.failed.path}; repair them, take them off the list, check DATA.PATH_PREFIX, "
                "or raise the limit."
            )

    def _state(self, epoch: int) -> dict:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": epoch,
            "num_classes": self.cfg.MODEL.NUM_CLASSES,
            "class_names": self.train_videos.class_names,
            "config": self.cfg.dump(),
            "vidformers": vidformers.__version__,
        }


def start_from_weights(model: nn.Module, path: str, class_names: Sequence[str] | None, output: Path) -> None:
    """Load `path` to fine-tune from; the classifier starts afresh when the number of classes differs.

    If it does not, its classes are compared with those of the videos, `class_names` (`check_class_names`).
    Raises ValueError when anything but the classifier does not fit: half a backbone is no starting point.
    """
    info = load_weights(model, path, strict=False)
    misfits = [name for name in (*info.missing, *info.unexpected) if not name.startswith("head.")]
    if misfits:
        raise ValueError(
            f"{path} ({info.source}) does not fit the model: {len(misfits)} parameters besides the "
            f"classifier are missing or left over, such as {', '.join(misfits[:5])}. Set MODEL.NAME and "
            "MODEL.ARGS to the model that the file was trained as."
        )
    if not any(name.startswith("head.") for name in info.missing):
        check_class_names(path, info.class_names, class_names, output)
    say(f"Starting from {path} ({info.source}): {len(info.matched)} tensors loaded.")
    if info.resized:
        say(f"  resized: {', '.join(sorted(info.resized))}")
    if info.inflated:
        say(f"  inflated from images: {', '.join(sorted(info.inflated))}")
    if info.missing:
        say(f"  left at random initialisation: {', '.join(sorted(info.missing))}")


def _changed_settings(old: CfgNode, new: CfgNode) -> dict[str, str]:
    """Keys of the model and the solver that differ, each with a text `KEY old -> new`."""
    changed = {}
    for section in ("MODEL", "SOLVER", "AUG", "MIXUP", "TRAIN"):
        before, after = dict(old.get(section, {})), dict(new[section])
        for key in sorted(before.keys() | after.keys()):
            if key not in ("ENABLE", "AUTO_RESUME") and before.get(key) != after.get(key):
                name = f"{section}.{key}"
                changed[name] = f"{name} {before.get(key)} -> {after.get(key)}"
    return changed


def norms_in_fp32(model: nn.Module) -> None:
    """Give every LayerNorm float32 input, as autocast does on CUDA but not on the CPU.

    torch (seen in 2.13) sums the gradient of a LayerNorm's bias in half precision there: with 7000 tokens
    it is off by 90 %.
    """
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))


def _step_seed(seed: int, epoch: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, epoch, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))
