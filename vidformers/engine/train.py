"""Training: one loop over epochs, with validation, checkpoints, resume and a count of bad videos.

Follows PySlowFast's recipe: the learning rate is set every iteration at the fractional epoch, the gradient is
clipped, mixup and label smoothing turn labels into soft targets. Every random choice depends on (seed, epoch,
step, process) alone, so that a run that was killed repeats the steps after its newest checkpoint bit by bit.
"""

import math
import resource
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import AveragedModel

from vidformers.data.augment import erase_clips_
from vidformers.data.transforms import normalize_clips
from vidformers.engine.build import (
    VideoList,
    build_test_loader,
    build_train_loader,
    resolve_device,
)
from vidformers.engine.checkpoint import BEST, checkpoint_path, load_newest_checkpoint, newest_place
from vidformers.engine.data_time import DataTime
from vidformers.engine.distributed import (
    full_state,
    gathered,
    is_main_process,
    largest,
    rank,
    replicated,
    shard_,
    summed,
    world_size,
)
from vidformers.engine.logs import FailedVideos, JsonlLog, say
from vidformers.engine.mixup import MixUp, binary_cross_entropy, soft_cross_entropy
from vidformers.engine.model import build_model
from vidformers.engine.optim import build_optimizer, learning_rate, parameter_groups, set_learning_rate
from vidformers.engine.predictions import mean_loss, summarize
from vidformers.engine.run_state import RunState, Totals
from vidformers.engine.signals import StopSignals
from vidformers.engine.tensorboard import TensorBoardLog
from vidformers.engine.test import autocast, score_videos
from vidformers.engine.trained_model import (
    freeze_,
    moving_average,
    norms_in_fp32,
    start_from_weights,
    train_mode_,
)


class Trainer:
    """One training run as `cfg` describes it; `run()` does all of it, the other methods are its steps."""

    def __init__(self, cfg: CfgNode, train_videos: VideoList, val_videos: VideoList) -> None:
        self.cfg = cfg
        self.output = Path(cfg.OUTPUT_DIR)
        self.log = JsonlLog(self.output / "log.jsonl")
        self.failed = FailedVideos(self.output / "failed_videos.csv", backend=cfg.DATA.DECODING_BACKEND)
        self.device = resolve_device(cfg.DEVICE)
        self.train_videos = train_videos
        self.loader = build_train_loader(cfg, train_videos)
        self.val_loader = build_test_loader(cfg, val_videos, num_views=1, num_crops=1)
        torch.manual_seed(cfg.RNG_SEED)
        self.model: nn.Module = self.build()
        self.signals = StopSignals()
        resumed = load_newest_checkpoint(self.checkpoints, sharded=cfg.TRAIN.SHARD)
        if resumed is not None and not cfg.TRAIN.AUTO_RESUME:
            raise ValueError(
                f"TRAIN.AUTO_RESUME is False, but {self.checkpoints} holds checkpoints of an earlier run; "
                "set another OUTPUT_DIR, or move them away."
            )
        if resumed is None and cfg.TRAIN.CHECKPOINT_FILE_PATH:
            start_from_weights(
                self.model, cfg.TRAIN.CHECKPOINT_FILE_PATH, train_videos.class_names, self.output
            )
        freeze_(self.model, cfg.MODEL.FREEZE)
        self.model.to(self.device)
        if self.device.type == "cpu" and cfg.TRAIN.PRECISION != "fp32":
            norms_in_fp32(self.model)
        solver = cfg.SOLVER
        self.ema = None
        if solver.EMA_DECAY:
            self.ema = AveragedModel(
                self.model, multi_avg_fn=moving_average(solver.EMA_DECAY), use_buffers=True
            )
        if cfg.TRAIN.SHARD:
            shard_(self.model, self.device)
            if self.ema:
                shard_(self.ema.module, self.device)
        self.parallel = self.model if cfg.TRAIN.SHARD else replicated(self.model, self.device)
        self.step_model = torch.compile(self.parallel) if cfg.MODEL.COMPILE else self.parallel
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
            betas=tuple(map(float, solver.BETAS)),  # torch takes no whole numbers
            fused=self.device.type == "cuda",
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
        self.state = RunState(
            cfg,
            model=self.model,
            ema=self.ema,
            optimizer=self.optimizer,
            scaler=self.scaler,
            class_names=train_videos.class_names,
        )
        self.progress = now = self.state.progress
        if resumed is not None:
            self.state.resume(*resumed)
            if not self.state.finished:
                self.log.write("resume", epoch=now.epoch + 1, step=now.step, checkpoint=str(resumed[0]))
        self.start_epoch = now.epoch
        self.tensorboard = None
        if cfg.TENSORBOARD.ENABLE and is_main_process() and not self.state.finished:
            self.tensorboard = TensorBoardLog(
                self.output / "tensorboard", first_step=self._steps_done(now.epoch, now.step) + 1
            )
        if not now.step and not self.state.finished:
            self.failed.forget("train")  # they may have been repaired since

    def build(self) -> nn.Module:
        """The model to train, with random weights."""
        return build_model(self.cfg)

    @property
    def checkpoints(self) -> Path:
        return self.output / "checkpoints"

    def run(self) -> dict[str, float]:
        """Train to SOLVER.MAX_EPOCH; returns the last validation's numbers (empty if already finished).

        SIGTERM and SIGUSR1, by which schedulers announce that they take the machine away, end the run after
        the step or the batch of a validation under way, with a checkpoint: SystemExit of 128 + the signal's
        number. Ctrl-C ends it at once, with those written before. Both say where the same command goes on.
        """
        cfg, now = self.cfg, self.progress
        results: dict[str, float] = {}
        finished_before = self.state.finished
        if not finished_before:
            num_parameters = sum(p.numel() for p in self.model.parameters())
            devices = f"{world_size()} x {self.device.type}" if world_size() > 1 else self.device.type
            say(
                f"Training {cfg.MODEL.NAME} ({num_parameters / 1e6:.2f} M parameters) on "
                f"{len(self.train_videos.records)} videos of {self.train_videos.source}, {devices}, "
                f"{cfg.TRAIN.PRECISION}, epochs {now.epoch} to {cfg.SOLVER.MAX_EPOCH}."
            )
            try:
                with self.signals.heeded():
                    results = self._train_epochs()
            except KeyboardInterrupt:
                say(f"Ctrl-C: stopped; {self._goes_on(*newest_place(self.checkpoints))}.")
                raise
        whole = checkpoint_path(self.checkpoints, now.epoch, now.step)
        # Of a run that was finished before it is there, unless that was killed just before.
        if cfg.TRAIN.SHARD and largest(int(not (finished_before and whole.exists()))):
            self.state.write_whole(whole)
        if self.tensorboard:
            self.tensorboard.close()
        return results

    def _train_epochs(self) -> dict[str, float]:
        cfg, now = self.cfg, self.progress
        results: dict[str, float] = {}
        for epoch in range(now.epoch, cfg.SOLVER.MAX_EPOCH):
            self.train_epoch(epoch)
            for failures in gathered([(r.path, r.reason, r.detail) for r in self.failed.of("train")]):
                self._count_failures(failures)
            finished, last = epoch + 1, epoch + 1 == cfg.SOLVER.MAX_EPOCH
            if last or finished % cfg.TRAIN.EVAL_PERIOD == 0:
                # The epoch is not over before it: a run that is stopped in it goes on with it.
                results = self.validate(finished)
            now.epoch, now.step, now.totals = finished, 0, Totals()
            if last or finished % cfg.TRAIN.CHECKPOINT_PERIOD == 0:
                self.state.save()
            self._stop_if_told()
        return results

    def train_epoch(self, epoch: int) -> None:
        """One pass over the training videos, or what is left of it."""
        from tqdm import tqdm

        cfg, now = self.cfg, self.progress
        train_mode_(self.model)
        self.loader.set_epoch(epoch, start_batch=now.step)  # type: ignore[attr-defined]
        first, steps = now.step, now.step + len(self.loader)
        data_time = DataTime()
        progress = tqdm(
            total=steps * cfg.TRAIN.BATCH_SIZE,
            initial=first * cfg.TRAIN.BATCH_SIZE,
            desc=f"epoch {epoch + 1}/{cfg.SOLVER.MAX_EPOCH}",
            unit="video",
            dynamic_ncols=True,
            mininterval=0.5,
            leave=False,
            disable=not is_main_process(),
        )
        for step, batch in enumerate(data_time.watch(self.loader), start=first):
            for seconds in batch["seconds"]:
                data_time.add(seconds, num_clips=1)
            self._count_failures(batch["failures"])
            lr = self._learning_rate(epoch + step / steps)
            set_learning_rate(self.optimizer, lr)
            # Dropout, drop path and mixup depend on these numbers alone: a resumed run repeats them.
            place = (cfg.RNG_SEED, epoch, step, rank())
            torch.manual_seed(_seed(place))
            clips, targets = self._prepare(batch, np.random.default_rng(place))
            loss, hits, gradient_norm = self.train_step(clips, targets)
            if largest(int(not math.isfinite(loss))):
                # The whole step's: the loss may be bad in one process alone, and all of them stop.
                parts = gathered((loss, batch["index"].tolist()))
                bad = next(value for value, _ in parts if not math.isfinite(value))
                self._stop_for_loss(bad, epoch, step, steps, lr, [i for _, part in parts for i in part])
            now.totals.loss += loss * len(clips)
            now.totals.hits += hits
            now.totals.clips += len(clips)
            progress.update(cfg.TRAIN.BATCH_SIZE)
            now.step = step + 1
            if (step + 1) % cfg.LOG_PERIOD == 0 or step + 1 == steps:
                elapsed = time.perf_counter() - data_time.started
                total_loss, total_hits, total_clips = summed(*astuple(now.totals))
                values = {
                    "epoch": epoch + 1,
                    "step": step + 1,
                    "loss": total_loss / total_clips,
                    **self.training_scores(total_hits, total_clips),
                    "lr": lr,
                    "gradient_norm": gradient_norm,
                    "videos_per_second": (step + 1 - first) * cfg.TRAIN.BATCH_SIZE / elapsed,
                    **data_time.values(),
                    "memory_gb": memory_gb(self.device),
                    "eta_seconds": elapsed
                    / (step + 1 - first)
                    * (steps * (cfg.SOLVER.MAX_EPOCH - epoch) - step - 1),
                }
                now.last_epoch_loss = values["loss"]
                self.log.write("train", **values)
                if self.tensorboard:
                    self.tensorboard.write("train", values, step=self._steps_done(epoch, step + 1))
                progress.set_postfix(
                    loss=f"{values['loss']:.3f}",
                    lr=f"{lr:.2g}",
                    wait=f"{values['waiting_for_data']:.0%}",
                    mem=f"{values['memory_gb']:.1f}G",
                    eta=tqdm.format_interval(values["eta_seconds"]),
                )
            every = cfg.TRAIN.CHECKPOINT_STEPS
            if every and (step + 1) % every == 0 and step + 1 < steps:
                self.state.save()
            # After the last step too: who was warned may not have the time to validate.
            self._stop_if_told()
        progress.close()

    def train_step(self, clips: Tensor, targets: Tensor) -> tuple[float, float, float | None]:
        """Forward, backward, optimizer step; returns loss, number of hits and the gradient norm before
        clipping, of this process's clips. The clips go through the model in TRAIN.MICRO_BATCHES parts. The
        device is waited for once, at the end."""
        solver = self.cfg.SOLVER
        self.optimizer.zero_grad(set_to_none=True)
        loss = hits = torch.zeros((), dtype=torch.float64, device=self.device)
        parts = min(self.cfg.TRAIN.MICRO_BATCHES, len(clips))
        for part, (some, wanted) in enumerate(
            zip(clips.tensor_split(parts), targets.tensor_split(parts), strict=True), start=1
        ):
            share = len(some) / len(clips)
            with self._no_reduction(part < parts):
                part_loss, part_hits = self.loss_and_hits(some, wanted)
                part_loss = part_loss * share
                self.scaler.scale(part_loss).backward()
            loss = loss + part_loss.detach()
            hits = hits + part_hits
        self.scaler.unscale_(self.optimizer)
        measured = [loss, hits]
        if solver.CLIP_GRAD_VAL:
            nn.utils.clip_grad_value_(self.model.parameters(), solver.CLIP_GRAD_VAL)
        elif solver.CLIP_GRAD_L2NORM:
            total = nn.utils.clip_grad_norm_(self.model.parameters(), solver.CLIP_GRAD_L2NORM)
            measured.append((total.full_tensor() if isinstance(total, DTensor) else total).to(loss))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema:
            self.ema.update_parameters(self.model)
        loss_value, num_hits, *norm = torch.stack(measured).tolist()
        return loss_value, num_hits, norm[0] if norm else None

    def loss_and_hits(self, clips: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss of the clips (B, 3, T, H, W) against targets (B, K), and how many of them are hit."""
        with autocast(self.device, self.cfg.TRAIN.PRECISION):
            logits = self.step_model(clips)
        # The loss is taken in fp32: half-precision log-softmax loses the small probabilities.
        loss = self.loss(logits.float(), targets)
        # Of a set of labels one is enough; a video without any cannot be hit.
        answered = targets.gather(1, logits.argmax(1, keepdim=True))[:, 0]
        return loss, (answered >= targets.amax(1).clamp(1e-9)).sum()

    def training_scores(self, hits: float, clips: float) -> dict[str, float]:
        """What a line of the log says of the hits among the training clips."""
        return {"top1_of_mixed_batches" if self.mixup else "top1": 100 * hits / clips}

    def validate(self, epoch: int) -> dict[str, float]:
        """Score one view (centre crop) of every validation video; logs and prints top-1, top-5 and loss.

        With an average of the weights (SOLVER.EMA_DECAY) that is scored too, and decides which weights are
        the best so far (`checkpoints/best.pyth`). Of equal scores, which few videos often have, the lower
        loss is the better.
        """
        now = self.progress
        self.state.same_buffers()
        results = self._validate(self.model)
        text, score = self.verdict(results)
        loss = results["loss"]
        if self.ema:
            average = self._validate(self.ema.module)
            loss = average["loss"]
            results |= {
                f"ema_{key}": average[key] for key in ("top1", "top5", "loss", "map") if key in average
            }
            average_text, score = self.verdict(average)
            text += f"; of the averaged weights {average_text}"
        self.log.write("val", epoch=epoch, train_loss=now.last_epoch_loss, **results)
        if self.tensorboard:
            self.tensorboard.write("val", results, step=self._steps_done(epoch, 0))
        say(
            f"epoch {epoch}/{self.cfg.SOLVER.MAX_EPOCH}: training loss {now.last_epoch_loss:.3f}, "
            f"validation {text}"
            + (f", {results['num_failed']} videos unreadable" if results["num_failed"] else "")
        )
        if now.best is None or (score, -loss) > (now.best, -now.best_loss):
            now.best, now.best_loss = score, loss
            self.state.write_whole(self.checkpoints / BEST)
        return results

    def verdict(self, results: dict[str, float]) -> tuple[str, float]:
        """A validation in words, and the score by which the best weights are chosen (higher is better)."""
        return _scores_text(results), results.get("map", results["top1"])

    def _whole(self, model: nn.Module) -> nn.Module:
        if not self.cfg.TRAIN.SHARD:
            return model
        # Every process scores other videos in its own time, which a sharded model does not allow.
        whole = self.build().to(self.device)
        whole.load_state_dict(full_state(model))
        return whole

    def _validate(self, model: nn.Module) -> dict[str, float]:
        cfg = self.cfg
        data_time = DataTime()
        predictions, failures = score_videos(
            self._whole(model),
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
            between_batches=self._stop_if_told,
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
        return results | data_time.values()

    def _stop_if_told(self) -> None:
        """Leave with a checkpoint once any process got a signal; all of them do, after the same step."""
        number = self.signals.agreed()
        if not number:
            return
        with torch.inference_mode(mode=False):  # in which a validation is
            self.state.save()
        name = signal.Signals(number).name
        now = self.progress
        say(f"{name}: stopped with a checkpoint; {self._goes_on(now.epoch, now.step)}.")
        self.log.write("stopped", signal=name, epoch=now.epoch + 1, step=now.step)
        sys.exit(128 + number)

    def _goes_on(self, epoch: int, step: int) -> str:
        """What the same command does with a checkpoint of `epoch` epochs and `step` steps of the next."""
        command = "the same command"
        if not self.cfg.TRAIN.AUTO_RESUME:
            command += ", with TRAIN.AUTO_RESUME True,"
        if epoch >= self.cfg.SOLVER.MAX_EPOCH:
            return f"{command} goes on with what comes after training"
        return f"{command} goes on from epoch {epoch + 1}" + (f", after step {step} of it" if step else "")

    def _no_reduction(self, on: bool) -> AbstractContextManager[object]:
        """Gradients of all but a step's last part stay in the process that made them."""
        if on and isinstance(self.parallel, nn.parallel.DistributedDataParallel):
            return self.parallel.no_sync()
        return nullcontext()

    def _stop_for_loss(
        self, loss: float, epoch: int, step: int, steps: int, lr: float, indices: list[int]
    ) -> None:
        paths = list(dict.fromkeys(self.train_videos.records[i].path for i in indices))
        self.log.write("bad_loss", epoch=epoch + 1, step=step + 1, loss=str(loss), lr=lr, videos=paths)
        raise ValueError(
            f"The training loss became {loss} at epoch {epoch + 1}, step {step + 1} of {steps} "
            f"(learning rate {lr:.3g}). Try a lower SOLVER.BASE_LR, a longer SOLVER.WARMUP_EPOCHS, "
            "SOLVER.CLIP_GRAD_L2NORM 1.0 or TRAIN.PRECISION bf16. The videos of the step (all are in "
            f"{self.log.path}): {', '.join(paths[:4])}{', ...' if len(paths) > 4 else ''}"
        )

    def _steps_done(self, epoch: int, step: int) -> int:
        """Steps from the beginning of training to `step` of `epoch`."""
        return epoch * (len(self.train_videos.records) // self.cfg.TRAIN.BATCH_SIZE) + step

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


def _scores_text(results: dict[str, float]) -> str:
    text = f"top-1 {results['top1']:.2f} %, loss {results['loss']:.3f}"
    return text + (f", mAP {results['map']:.2f} %" if "map" in results else "")


def memory_gb(device: torch.device) -> float:
    """Peak memory so far: of tensors on CUDA, of the whole process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**30


def _seed(place: tuple[int, ...]) -> int:
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> np.uint64(1))
