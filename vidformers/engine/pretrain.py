"""Self-supervised pre-training: the training loop of `train.py` around a model that sees masked clips.

Masks depend on (seed, epoch, video) in training, whatever the number of processes, and in validation on
(seed, video) alone: every validation hides the same.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from vidformers.data.datasets.clips import VideoViews
from vidformers.data.masking import draw_masks, num_masked
from vidformers.data.views import gather_views
from vidformers.engine.build import VideoList
from vidformers.engine.data_time import DataTime
from vidformers.engine.distributed import gathered, is_main_process, summed
from vidformers.engine.model import build_model
from vidformers.engine.test import autocast, micro_batches, share_of_videos
from vidformers.engine.train import Trainer
from vidformers.models.masked_autoencoder import (
    MaskedAutoencoder,
    hide,
    hog_targets,
    paint,
    paint_hog,
    pixel_targets,
    without_detail,
)
from vidformers.models.masked_mvit import MaskedMViT
from vidformers.models.mvit import MViT
from vidformers.models.vision_transformer import VisionTransformer
from vidformers.report.reconstruction import RECONSTRUCTION, save_reconstruction

_SHOWN = 4  # videos in reconstruction.png


def build_masked_model(cfg: CfgNode) -> MaskedAutoencoder | MaskedMViT:
    """The masked model of `cfg` with random weights. Raises ValueError for what cannot be masked."""
    settings = cfg.PRETRAIN
    encoder = build_model(cfg)
    decoder = {
        "decoder_dim": settings.DECODER_DIM,
        "decoder_depth": settings.DECODER_DEPTH,
        "decoder_heads": settings.DECODER_HEADS,
        "target": settings.TARGET,
    }
    model: MaskedAutoencoder | MaskedMViT
    if isinstance(encoder, VisionTransformer):
        model = MaskedAutoencoder(encoder, **decoder)
    elif isinstance(encoder, MViT):
        model = MaskedMViT(encoder, **decoder)
    else:
        raise ValueError(
            f"PRETRAIN.ENABLE is True, but MODEL.NAME {cfg.MODEL.NAME} is a {type(encoder).__name__}; wanted "
            "a VisionTransformer, such as videomae_b, or an MViT, such as mvit_v2_s_16x4."
        )
    num_masked(settings.MASKING, settings.MASK_RATIO, model.grid, settings.MASK_UNIT)
    return model


class Pretrainer(Trainer):
    """A Trainer that needs no labels: its loss is the squared error of what is hidden.

    Its checkpoints are what `TRAIN.CHECKPOINT_FILE_PATH` of an ordinary training of the same MODEL starts
    from. Each validation writes `reconstruction.png`.
    """

    def __init__(self, cfg: CfgNode, train_videos: VideoList, val_videos: VideoList) -> None:
        super().__init__(cfg, train_videos, val_videos)
        assert isinstance(self.model, MaskedAutoencoder | MaskedMViT)
        self.grid, self.patch = self.model.grid, self.model.patch

    def build(self) -> nn.Module:
        return build_masked_model(self.cfg)

    def _prepare(self, batch: dict, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """uint8 clips -> normalised (B, 3, T, H, W) floats and masks (B, N) on the device."""
        clips, _ = super()._prepare(batch, generator)
        videos = batch["index"].tolist()
        copies = len(videos) // len(batch["seconds"])
        now = (self.cfg.RNG_SEED, self.progress.epoch)
        return clips, self._masks([(*now, video, i % copies) for i, video in enumerate(videos)])

    def _masks(self, places: Sequence[tuple[int, ...]]) -> Tensor:
        """Masks (B, N), each a function of its place."""
        settings = self.cfg.PRETRAIN
        masks = [
            draw_masks(
                settings.MASKING,
                settings.MASK_RATIO,
                self.grid,
                1,
                np.random.default_rng(place),
                unit=settings.MASK_UNIT,
            )
            for place in places
        ]
        return torch.cat(masks).to(self.device)

    def _wanted(self, clips: Tensor, masks: Tensor) -> Tensor:
        if self.cfg.PRETRAIN.TARGET == "hog":
            return hog_targets(clips, masks, self.patch)
        return pixel_targets(clips, masks, self.patch, normalize=self.cfg.PRETRAIN.NORMALIZE_PIXELS)

    def loss_and_hits(self, clips: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared error over the hidden patches, which `targets` (B, N) marks; nothing can be hit."""
        wanted = self._wanted(clips, targets)
        with autocast(self.device, self.cfg.TRAIN.PRECISION):
            predicted = self.step_model(clips, targets)
        return F.mse_loss(predicted.float(), wanted), wanted.new_zeros(())

    def training_scores(self, hits: float, clips: float) -> dict[str, float]:
        return {}

    def verdict(self, results: dict[str, float]) -> tuple[str, float]:
        text = f"loss {results['loss']:.4f} (without any detail {results['mean_patch_loss']:.4f})"
        return text, -results["loss"]

    def _validate(self, model: nn.Module) -> dict[str, float]:
        return self._reconstruct(self._whole(model).eval())

    @torch.inference_mode()
    def _reconstruct(self, model: nn.Module) -> dict[str, float]:
        """Reconstruct the centre clip of every validation video.

        `loss` is as in training, `mean_patch_loss` what each hidden patch's own mean would have
        (`without_detail`): the best that a model can do without knowing anything of what is inside a patch.
        """
        cfg = self.cfg
        target = cfg.PRETRAIN.TARGET
        data_time = DataTime()
        failures: list[tuple[str, str, str]] = []
        loss = baseline = count = failed = 0.0
        shown: list[tuple[Tensor, ...]] = []
        videos = share_of_videos(
            self.val_loader, data_time, every=cfg.TEST.BATCH_SIZE, between=self._stop_if_told
        )

        def readable() -> Iterator[VideoViews]:
            nonlocal failed
            for video in videos:
                if video.failure is None:
                    yield video
                else:
                    failed += 1
                    path = self.val_loader.dataset.records[video.index].path  # type: ignore[attr-defined]
                    failures.append((path, *video.failure))

        def to_clips(video: VideoViews, rows: range) -> Tensor:
            mean, std = tuple(cfg.DATA.MEAN), tuple(cfg.DATA.STD)
            return gather_views(video, rows, mean=mean, std=std, device=self.device)

        group = self.val_loader.batch_sampler.group  # type: ignore[union-attr]
        for clips, places in micro_batches(readable(), cfg.TEST.BATCH_SIZE, to_clips, group=group):
            masks = self._masks([(cfg.RNG_SEED, index) for index, _ in places])
            wanted = self._wanted(clips, masks)
            with autocast(self.device, cfg.TEST.PRECISION):
                predicted = model(clips, masks).float()
            plain = without_detail(wanted, target, clips.shape[1])
            loss += (predicted - wanted).square().mean(dim=(1, 2)).sum().item()
            baseline += (plain - wanted).square().mean(dim=(1, 2)).sum().item()
            count += len(clips)
            if room := _SHOWN - len(shown):
                some = (part[:room] for part in (clips, masks, predicted))
                shown += list(zip(*self._pictures(*some), strict=True))
        if is_main_process() and shown:
            save_reconstruction(Path(cfg.OUTPUT_DIR) / RECONSTRUCTION, shown)
        self.failed.forget("val")
        self.failed.add("val", [failure for part in gathered(failures) for failure in part])
        loss, baseline, count, failed = summed(loss, baseline, count, failed)
        return {
            "loss": loss / count if count else float("nan"),
            "mean_patch_loss": baseline / count if count else float("nan"),
            "num_videos": int(count + failed),
            "num_failed": int(failed),
        } | data_time.values()

    def _pictures(self, clips: Tensor, masks: Tensor, predicted: Tensor) -> list[Tensor]:
        """Rows of reconstruction.png for each clip, (B, 3, T, H, W) from 0 to 1: the clip, what was visible
        of it, and what was made of it; of histograms of gradients the true ones before those."""
        settings = self.cfg.PRETRAIN
        mean, std = (torch.tensor(v).view(3, 1, 1, 1) for v in (self.cfg.DATA.MEAN, self.cfg.DATA.STD))
        filmed = [clips, hide(clips, masks, self.patch)]
        drawn: tuple[Tensor, ...] = ()
        if settings.TARGET == "hog":
            filmed = [part[:, :, :: self.patch[0]] for part in filmed]  # the frames that are described
            drawn = paint_hog(clips, masks, predicted, self.patch)
        else:
            normalized = settings.NORMALIZE_PIXELS
            filmed.append(paint(clips, masks, predicted, self.patch, normalized=normalized))
        return [part.cpu() * std + mean for part in filmed] + [part.cpu() for part in drawn]
