"""MixUp and CutMix for batches of clips, with label smoothing, and the loss for their targets.

MixUp: Zhang et al., https://arxiv.org/abs/1710.09412; CutMix: Yun et al., https://arxiv.org/abs/1905.04899.
The choices are PySlowFast's: one weight a batch, clip i mixed with clip B-1-i, one box for all frames.
torchvision's versions pair neighbours, smooth no labels and take no generator.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class MixUp:
    """Mixes a batch with its own reverse and turns labels into class distributions.

    With probability `prob` a batch is mixed: by CutMix with probability `switch_prob` if both alphas are
    above 0, else by the one whose alpha is. `alpha` and `cutmix_alpha` are the parameters of the Beta
    distribution of the weight. `label_smoothing` s gives every class s / num_classes and the label's class 1
    - s more, mixed or not.
    """

    def __init__(
        self,
        alpha: float = 0.8,
        cutmix_alpha: float = 1.0,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        label_smoothing: float = 0.1,
        num_classes: int = 400,
    ) -> None:
        if prob > 0 and alpha <= 0 and cutmix_alpha <= 0:
            raise ValueError(
                f"prob={prob}, but alpha and cutmix_alpha are both 0; give one of them, or prob=0."
            )
        self.alpha = alpha
        self.cutmix_alpha = cutmix_alpha
        self.prob = prob
        self.switch_prob = switch_prob
        self.label_smoothing = label_smoothing
        self.num_classes = num_classes

    def __call__(
        self, clips: Tensor, labels: Tensor, generator: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Clips (B, C, T, H, W) float, labels (B,) int64 -> mixed clips, targets (B, num_classes) float32.

        `clips` itself is left as it is.
        """
        lam = 1.0
        if generator.random() < self.prob:
            if self._choose_cutmix(generator):
                lam = float(generator.beta(self.cutmix_alpha, self.cutmix_alpha))
                clips, lam = self._cutmix(clips, lam, generator)
            else:
                lam = float(generator.beta(self.alpha, self.alpha))
                clips = torch.lerp(clips.flip(0), clips, lam)
        return clips, self.targets(labels, lam)

    def targets(self, labels: Tensor, lam: float) -> Tensor:
        """Smoothed distributions (B, K) of labels (B,): `lam` of each clip, 1 - `lam` of its partner."""
        off = self.label_smoothing / self.num_classes
        on = 1.0 - self.label_smoothing + off
        own = torch.full((len(labels), self.num_classes), off, device=labels.device)
        own.scatter_(1, labels[:, None], on)
        return own * lam + own.flip(0) * (1.0 - lam)

    def _choose_cutmix(self, generator: np.random.Generator) -> bool:
        if self.alpha > 0 and self.cutmix_alpha > 0:
            return bool(generator.random() < self.switch_prob)
        return self.cutmix_alpha > 0

    @staticmethod
    def _cutmix(clips: Tensor, lam: float, generator: np.random.Generator) -> tuple[Tensor, float]:
        height, width = clips.shape[-2:]
        # A box of 1 - lam of the area around a random pixel; what falls outside the frame is lost, hence the
        # new lam.
        box_height, box_width = (int(size * (1.0 - lam) ** 0.5) for size in (height, width))
        y, x = int(generator.integers(height)), int(generator.integers(width))
        top, bottom = max(y - box_height // 2, 0), min(y + box_height // 2, height)
        left, right = max(x - box_width // 2, 0), min(x + box_width // 2, width)
        mixed = clips.clone()
        mixed[..., top:bottom, left:right] = clips.flip(0)[..., top:bottom, left:right]
        return mixed, 1.0 - (bottom - top) * (right - left) / (height * width)


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch and the classes of the cross-entropy of each class's sigmoid, in float32.

    Logits (B, K); targets (B, K) from 0 to 1. PySlowFast's `bce_logit`.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), targets.float())


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch of -sum(targets * log_softmax(logits)), in float32.

    Logits (B, K); targets (B, K) distributions, or (B,) int64 labels, which count as one-hot.
    """
    if targets.ndim == 1:
        return F.cross_entropy(logits.float(), targets)
    return -(targets * F.log_softmax(logits.float(), dim=-1)).sum(dim=-1).mean()
