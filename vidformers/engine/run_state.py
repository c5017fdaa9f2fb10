"""How far a training run is, what its checkpoints hold, and going on from one."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import nn
from torch.distributed.checkpoint import CheckpointException
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

import vidformers
from vidformers.engine.checkpoint import (
    check_class_names,
    check_num_classes,
    checkpoint_path,
    keep_last,
    save_checkpoint,
    save_sharded,
)
from vidformers.engine.distributed import full_state, is_main_process, same_buffers_, summed, wait_for_all
from vidformers.engine.logs import say
from vidformers.engine.protocol import checkpoint_config
from vidformers.engine.training_settings import changed_settings, with_training_of


@dataclass
class Totals:
    """Sums of the log line under way, over the steps of an epoch and the clips of this process."""

    loss: float = 0.0
    hits: float = 0.0
    clips: float = 0.0


@dataclass
class Progress:
    """Finished epochs, finished steps of the epoch begun, and what was measured on the way.

    best: the best validation score so far, best_loss: the loss beside it; last_epoch_loss: that of the log's
    last line.
    """

    epoch: int = 0
    step: int = 0
    totals: Totals = field(default_factory=Totals)
    best: float | None = None
    best_loss: float = float("inf")
    last_epoch_loss: float = float("nan")


class RunState:
    """All that changes during a run, as its checkpoints hold it (`engine/checkpoint.py` has the format)."""

    def __init__(
        self,
        cfg: CfgNode,
        *,
        model: nn.Module,
        ema: AveragedModel | None,
        optimizer: Optimizer,
        scaler: torch.amp.GradScaler,
        class_names: Sequence[str] | None,
    ) -> None:
        self.cfg = cfg
        self.settings = cfg  # those that the weights are trained with, for config.yaml and the checkpoints
        self.model = model
        self.ema = ema
        self.optimizer = optimizer
        self.scaler = scaler
        self.class_names = class_names
        self.folder = Path(cfg.OUTPUT_DIR) / "checkpoints"
        self.progress = Progress()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.progress.epoch >= self.cfg.SOLVER.MAX_EPOCH

    def save(self) -> None:
        """Write a checkpoint of this moment, and delete those beyond TRAIN.KEEP_CHECKPOINTS."""
        now, sharded = self.progress, self.cfg.TRAIN.SHARD
        path = checkpoint_path(self.folder, now.epoch, now.step, sharded=sharded)
        self.same_buffers()
        rest = self._rest()
        if sharded:
            save_sharded(path, self._sharded_tensors(), rest)
        elif is_main_process():
            save_checkpoint(
                path,
                {
                    **rest,
                    "model": self.model.state_dict(),
                    "ema": self.ema.module.state_dict() if self.ema else None,
                    "optimizer": self.optimizer.state_dict(),
                },
            )
        if is_main_process() and self.cfg.TRAIN.KEEP_CHECKPOINTS:
            keep_last(self.folder, self.cfg.TRAIN.KEEP_CHECKPOINTS, written=path)
        wait_for_all()

    def write_whole(self, path: Path) -> None:
        """The weights to use, averaged where they are, as one file without the optimizer."""
        model = self.ema.module if self.ema else self.model
        weights = full_state(model) if self.cfg.TRAIN.SHARD else model.state_dict()
        rest = self._rest()
        if is_main_process():
            save_checkpoint(path, {**rest, "model": weights})
        wait_for_all()

    def same_buffers(self) -> None:
        """What is scored and saved is one model, and what a resumed run has, the straight one has too."""
        same_buffers_(self.model)
        if self.ema:
            same_buffers_(self.ema.module)

    def resume(self, path: Path, state: dict) -> None:
        """Continue from `state`, read from `path`; settings that changed since are named, and the new ones
        hold, unless nothing is left to train. Raises ValueError where they do not fit it."""
        sharded = path.is_dir()
        missing = {"epoch", "config", "vidformers"} - state.keys()
        if not sharded:
            missing |= {"model", "optimizer", "scaler"} - state.keys()
        if missing:
            raise ValueError(
                f"{path} is not a checkpoint of this library (it lacks {', '.join(sorted(missing))}). To "
                "start from its weights set TRAIN.CHECKPOINT_FILE_PATH, and OUTPUT_DIR to another folder."
            )
        if sharded != self.cfg.TRAIN.SHARD:
            raise ValueError(
                f"{path} was written with TRAIN.SHARD {sharded}, which is {self.cfg.TRAIN.SHARD} now; set it "
                "back, or start from the weights (TRAIN.CHECKPOINT_FILE_PATH; tools/export_checkpoint.py "
                "makes a file of a folder) in another OUTPUT_DIR."
            )
        if not self.cfg.PRETRAIN.ENABLE:  # which has no classifier
            check_num_classes(
                path,
                state.get("num_classes"),
                state.get("class_names"),
                self.cfg.MODEL.NUM_CLASSES,
                self.class_names,
                purpose="go on with it",
            )
        check_class_names(path, state.get("class_names"), self.class_names, Path(self.cfg.OUTPUT_DIR))
        try:
            old = checkpoint_config(state)
        except ValueError as error:
            raise ValueError(f"{path} cannot be gone on with: {error}; set another OUTPUT_DIR.") from None
        assert old is not None
        changed = changed_settings(old, self.cfg)
        self._check_changed(path, old, changed, step=state.get("step", 0))
        settings = [
            {key: group[key] for key in group if key != "params"} for group in self.optimizer.param_groups
        ]
        try:
            if sharded:
                self._load_sharded(path)
            else:
                self.model.load_state_dict(state["model"])
                self.optimizer.load_state_dict(state["optimizer"])
                if self.ema:
                    self.ema.module.load_state_dict(state.get("ema") or state["model"])
        except (KeyError, RuntimeError, ValueError, CheckpointException) as error:
            reason = " ".join(str(error).split())[:300]
            text = f" Settings changed since: {'; '.join(changed.values())}." if changed else ""
            raise ValueError(
                f"{path} does not fit this run's model ({reason}).{text} Use those it was written with, "
                "or another OUTPUT_DIR for a new run."
            ) from error
        if self.ema:
            self.ema.n_averaged.fill_(1)  # 0 would copy the model over the average
        for group, values in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(values)
        if state.get("scaler") and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        now = self.progress
        now.epoch, now.step = state["epoch"], state.get("step", 0)
        if is_main_process():
            now.totals = Totals(*state.get("totals", ()))
        now.best, now.best_loss = state.get("best"), state.get("best_loss", float("inf"))
        now.last_epoch_loss = state.get("last_epoch_loss", float("nan"))
        last = self.cfg.SOLVER.MAX_EPOCH
        if self.finished:
            self.settings = with_training_of(old, self.cfg)
            say(
                f"Nothing is left to train: {now.epoch} epochs are done ({path}), and SOLVER.MAX_EPOCH is "
                f"{last}. Raise it to go on, or set another OUTPUT_DIR for a new run."
            )
            if changed:
                text = "; ".join(changed.values())
                say(f"  settings that differ from those of this training, which config.yaml keeps: {text}")
            return
        steps = f" and {now.step} steps" if now.step else ""
        say(f"Resuming from {path} after {now.epoch} of {last} epochs{steps}.")
        if changed:
            say(f"  settings changed since: {'; '.join(changed.values())}")

    def _check_changed(self, path: Path, old: CfgNode, changed: Mapping[str, str], *, step: int) -> None:
        """ValueError for a setting changed since `old` that `path`, of `step` steps in an epoch, cannot go on
        with."""
        if "SOLVER.OPTIMIZING_METHOD" in changed or "SOLVER.LAYER_DECAY" in changed:
            raise ValueError(
                f"{path} was written with other optimizer settings ({'; '.join(changed.values())}), whose "
                "state does not fit. Use the old ones, or another OUTPUT_DIR."
            )
        if not step:
            return
        if not {"TRAIN.BATCH_SIZE", "AUG.NUM_SAMPLE"}.isdisjoint(changed):
            raise ValueError(
                f"{path} was written within an epoch, with other batches ({'; '.join(changed.values())}). "
                "Use the old ones until the epoch is finished, or another OUTPUT_DIR."
            )
        if "RNG_SEED" in changed:
            raise ValueError(
                f"{path} was written within an epoch, whose order is that of RNG_SEED {old.RNG_SEED}; with "
                f"{self.cfg.RNG_SEED} some videos would come twice. Use the old one until the epoch is "
                "finished, or another OUTPUT_DIR."
            )

    def _rest(self) -> dict:
        """All of a checkpoint but the tensors that may be sharded."""
        now = self.progress
        return {
            "scaler": self.scaler.state_dict(),
            "epoch": now.epoch,
            "step": now.step,
            "totals": summed(*astuple(now.totals)),
            "best": now.best,
            "best_loss": now.best_loss,
            "last_epoch_loss": now.last_epoch_loss,
            "num_classes": self.cfg.MODEL.NUM_CLASSES,
            "class_names": self.class_names,
            "multi_label": self.cfg.MODEL.LOSS_FUNC == "bce_logit",
            "config": self.settings.dump(),
            "vidformers": vidformers.__version__,
        }

    def _sharded_tensors(self) -> dict:
        from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_state_dict

        model, optimizer = get_state_dict(self.model, self.optimizer)
        state = {"model": model, "optimizer": optimizer}
        return state | {"ema": get_model_state_dict(self.ema.module)} if self.ema else state

    def _load_sharded(self, path: Path) -> None:
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_state_dict

        state = self._sharded_tensors()
        dcp.load(state, checkpoint_id=path)
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
        if self.ema:
            set_model_state_dict(self.ema.module, state["ema"])
