"""The base class of every family: what timm's users ask a model for, beside the forward pass."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vidformers.layers.sizes import Grid


class VideoClassifier(nn.Module):
    """A model (B, C, T, H, W) -> logits (B, num_classes), whose classifier is `head.projection`.

    feature_info: a dict for each stage, from the first: "module", the name of its last block; "num_chs", the
    channels of that block's output; "reduction", how many (frames, pixels, pixels) of the clip a token of it
    stands for, rounded up at the borders.
    """

    in_channels: int
    num_layers: int
    head: nn.Module
    feature_info: list[dict[str, Any]]

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip -> last feature map (B, T', H', W', C), class tokens and the like left out."""
        raise NotImplementedError

    def layer_id(self, name: str) -> int:
        """Depth of a parameter: 0 the stem, i + 1 block i, num_layers + 1 what follows."""
        raise NotImplementedError

    @property
    def num_features(self) -> int:
        """Channels of `forward_features`."""
        return self.feature_info[-1]["num_chs"]

    @property
    def num_classes(self) -> int:
        """Number of logits; 0 without a classifier."""
        classifier = self.get_classifier()
        return classifier.out_features if isinstance(classifier, nn.Linear) else 0

    def get_classifier(self) -> nn.Module:
        """The Linear that gives the logits; an Identity after `reset_classifier(0)`."""
        classifier = self.head.projection
        assert isinstance(classifier, nn.Module)
        return classifier

    def reset_classifier(self, num_classes: int) -> None:
        """A new classifier with random weights, for `num_classes` classes, where the old one was.

        With 0 there is none: the model gives what the classifier saw, (B, its channels).
        """
        from vidformers.checkpoints.metadata import metadata_of  # which imports the models

        if num_classes < 0:
            raise ValueError(f"got num_classes={num_classes}; wanted 1 or more, or 0 for no classifier")
        metadata = metadata_of(self)
        if metadata is not None:
            arguments = {**metadata.model_arguments, "num_classes": num_classes}
            self.metadata = replace(metadata, model_arguments=arguments, labels=None, multi_label=False)
        weight = next(self.head.parameters(), next(self.parameters()))
        if num_classes == 0:
            self.head.projection = nn.Identity()
            return
        linear = nn.Linear(self._classified_features(), num_classes, device=weight.device, dtype=weight.dtype)
        with torch.no_grad():
            nn.init.trunc_normal_(linear.weight, std=0.02)
            linear.weight.mul_(getattr(self, "head_init_scale", 1.0))
            nn.init.zeros_(linear.bias)
        self.head.projection = linear

    def _classified_features(self) -> int:
        """Channels that the classifier sees."""
        return self.num_features


class MeanClassifier(VideoClassifier):
    """A model whose logits are those of the mean of its feature map."""

    def forward_head(self, features: Tensor) -> Tensor:
        """(B, T', H', W', C), as `forward_features` gives them -> logits (B, num_classes)."""
        return self.head(features.mean(dim=(1, 2, 3)))


def stage_info(
    blocks: str, channels: Sequence[int], depths: Sequence[int], *, first: Sequence[int]
) -> list[dict[str, Any]]:
    """`feature_info` of stages that each halve height and width of the one before.

    blocks: the name of a stage's last block, with the number of the stage and of the block in it, such as
    "layers.{stage}.blocks.{block}"; first: (frames, pixels, pixels) of a token of the first stage.
    """
    t, h, w = first
    return [
        feature(blocks.format(stage=i, block=depth - 1), dim, (t, h * 2**i, w * 2**i))
        for i, (dim, depth) in enumerate(zip(channels, depths, strict=True))
    ]


def feature(module: str, num_chs: int, reduction: Grid) -> dict[str, Any]:
    """One entry of `feature_info`."""
    return {"module": module, "num_chs": num_chs, "reduction": reduction}
