"""Self-supervised pre-training: the training loop of `train.py` around a masked autoencoder (VideoMAE).

Masks depend on (seed, epoch, step, process) in training, and in validation on (seed, video) alone: every
validation hides the same.
"""

from collections.abc import Iterator
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
from vidformers.engine.test import autocast, micro_batches
from vidformers.engine.train import Trainer
from vidformers.models.masked_autoencoder import MaskedAutoencoder, paint, pixel_targets
from vidformers.models.vision_transformer import VisionTransformer
from vidformers.report.reconstruction import save_reconstruction

_SHOWN = 4  # videos in reconstruction.png


def build_autoencoder(cfg: CfgNode) -> MaskedAutoencoder:
    """The masked autoencoder of `cfg` with random weights. Raises ValueError for what cannot be masked."""
    encoder = build_model(cfg)
    if not isinstance(encoder, VisionTransformer):
        raise ValueError(
            f"PRETRAIN.ENABLE is True, but MODEL.NAME {cfg.MODEL.NAME} is a {type(encoder).__name__}; wanted "
            "a VisionTransformer, such as videomae_b."
        )
    num_masked(cfg.PRETRAIN.MASKING, cfg.PRETRAIN.MASK_RATIO, encoder.grid)
    return MaskedAutoencoder(
        encoder,
        decoder_dim=cfg.PRETRAIN.DECODER_DIM,
        decoder_depth=cfg.PRETRAIN.DECODER_DEPTH,
        decoder_heads=cfg.PRETRAIN.DECODER_HEADS,
    )


class Pretrainer(Trainer):
    """A Trainer that needs no labels: its loss is the squared error of the hidden pixels.

    Its checkpoints are what `TRAIN.CHECKPOINT_FILE_PATH` of an ordinary training of the same MODEL starts
    from. Each validation writes `reconstruction.png`.
    """

    def __init__(self, cfg: CfgNode, train_videos: VideoList, val_videos: VideoList) -> None:
        super().__init__(cfg, train_videos, val_videos)
        assert isinstance(self.model, MaskedAutoencoder)
        self.grid, self.patch = self.model.encoder.grid, self.model.patch

    def build(self) -> nn.Module:
        return build_autoencoder(self.cfg)

    def _prepare(self, batch: dict, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """uint8 clips -> normalised (B, 3, T, H, W) floats and masks (B, N) on the device."""
        clips, _ = super()._prepare(batch, generator)
        return clips, self._masks(len(clips), generator)

    def _masks(self, num_clips: int, generator: np.random.Generator) -> Tensor:
        settings = self.cfg.PRETRAIN
        masks = draw_masks(settings.MASKING, settings.MASK_RATIO, self.grid, num_clips, generator)
        return masks.to(self.device)

    def loss_and_hits(self, clips: Tensor, targets: Tensor) -> tuple[Tensor, float]:
        """Mean squared error over the hidden patches, which `targets` (B, N) marks; nothing can be hit."""
        wanted = pixel_targets(clips, targets, self.patch, normalize=self.cfg.PRETRAIN.NORMALIZE_PIXELS)
        with autocast(self.device, self.cfg.TRAIN.PRECISION):
            predicted = self.step_model(clips, targets)
        return F.mse_loss(predicted.float(), wanted), 0.0

    def training_scores(self, hits: float, clips: float) -> dict[str, float]:
        return {}

    def verdict(self, results: dict[str, float]) -> tuple[str, float]:
        text = f"loss {results['loss']:.4f} (of a patch's mean colour {results['mean_patch_loss']:.4f})"
        return text, -results["loss"]

    @torch.inference_mode()
    def _validate(self, model: nn.Module) -> dict[str, float]:
        """Reconstruct the centre clip of every validation video.

        `loss` is as in training, `mean_patch_loss` what each hidden patch's own mean colour would have: the
        best that a model can do without knowing anything of what is inside a patch.
        """
        cfg = self.cfg
        model = self._whole(model).eval()
        normalize = cfg.PRETRAIN.NORMALIZE_PIXELS
        data_time = DataTime()
        failures: list[tuple[str, str, str]] = []
        loss = baseline = count = failed = 0.0
        shown: list[tuple[Tensor, Tensor, Tensor]] = []

        def readable() -> Iterator[VideoViews]:
            nonlocal failed
            for items in data_time.watch(self.val_loader):
                for video in items:
                    data_time.add(video.seconds, num_clips=video.num_views)
                    path = self.val_loader.dataset.records[video.index].path  # type: ignore[attr-defined]
                    if video.failure is None:
                        yield video
                    else:
                        failed += 1
                        failures.append((path, *video.failure))

        def to_clips(video: VideoViews, rows: range) -> Tensor:
            mean, std = tuple(cfg.DATA.MEAN), tuple(cfg.DATA.STD)
            return gather_views(video, rows, mean=mean, std=std, device=self.device)

        for clips, places in micro_batches(readable(), cfg.TEST.BATCH_SIZE, to_clips):
            masks = torch.cat(
                [self._masks(1, np.random.default_rng((cfg.RNG_SEED, index))) for index, _ in places]
            )
            wanted = pixel_targets(clips, masks, self.patch, normalize=normalize)
            with autocast(self.device, cfg.TEST.PRECISION):
                predicted = model(clips, masks)
            predicted = predicted.float()
            of_channels = wanted.unflatten(2, (-1, clips.shape[1]))
            deviation = of_channels - of_channels.mean(dim=2, keepdim=True)
            loss += (predicted - wanted).square().mean(dim=(1, 2)).sum().item()
            baseline += deviation.square().mean(dim=(1, 2, 3)).sum().item()
            count += len(clips)
            if room := _SHOWN - len(shown):
                hidden, painted = paint(clips, masks, predicted, self.patch, normalized=normalize)
                shown += list(zip(clips[:room], hidden[:room], painted[:room], strict=True))
        if is_main_process() and shown:
            save_reconstruction(
                Path(cfg.OUTPUT_DIR) / "reconstruction.png",
                [tuple(clip.cpu() for clip in row) for row in shown],
                mean=tuple(cfg.DATA.MEAN),
                std=tuple(cfg.DATA.STD),
            )
        self.failed.forget("val")
        self.failed.add("val", [failure for part in gathered(failures) for failure in part])
        loss, baseline, count, failed = summed(loss, baseline, count, failed)
        return {
            "loss": loss / count if count else float("nan"),
            "mean_patch_loss": baseline / count if count else float("nan"),
            "num_videos": int(count + failed),
            "num_failed": int(failed),
        } | data_time.values()
