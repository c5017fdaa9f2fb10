"""GG-Transformer: glance and gaze attention (Yu et al., arXiv 2106.02277), extended in time.

There is no official code: this is the paper's section 3 on Swin's layout. The attention of each block is the
sum of two branches. *Glance*: attention within groups of M x M tokens that are spread evenly over the map.
*Gaze*: a depthwise convolution of the same values on the map, which sees the neighbours that a glance misses.
In time: tubelets of `patch_size[0]` frames, glance groups that spread over time too, and gaze kernels of
`gaze_frames` frames.

Shape letters: B clips, T H W tokens along time, height and width, C channels, N tokens of a group, G groups
of a clip. Volumes are (B, T, H, W, C).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidformers.layers.checks import check_counts, check_positive, check_rates, check_stages
from vidformers.layers.clip import as_clip
from vidformers.layers.conv import Conv3d
from vidformers.layers.drop_path import DropPath
from vidformers.layers.group_attention import GroupAttention
from vidformers.layers.head import ClassifierHead
from vidformers.layers.initialise import reset_pyramid
from vidformers.layers.mlp import Mlp
from vidformers.layers.partition import clip_group, grid_interval, group_mask, partition, unpartition
from vidformers.layers.pyramid import drop_path_rates, stage_layer_id
from vidformers.layers.sizes import triple
from vidformers.layers.stage import Stage
from vidformers.models.registry import register_model
from vidformers.models.swin import PatchMerging, SwinPatchEmbed
from vidformers.models.video_classifier import MeanClassifier, stage_info


class GlanceGaze(nn.Module):
    """proj(attention in spread groups + depthwise convolution of the values); (B, T, H, W, C) -> the same.

    A group has `glance` (t, h, w) tokens, one from each of t x h x w equal parts of the map. On a map that
    cannot be divided so, what is missing is padded, and hidden from both branches; along an axis shorter than
    the group, the group is that axis.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        glance: Sequence[int],
        gaze_kernel: Sequence[int],
        dropout_rate: float,
    ):
        super().__init__()
        self.size = triple(glance)
        self.glance = GroupAttention(dim, num_heads, dropout_rate=dropout_rate)
        padding = [k // 2 for k in gaze_kernel]
        self.gaze = Conv3d(dim, dim, gaze_kernel, padding=padding, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[1:4]
        group = clip_group(self.size, size)
        interval = grid_interval(size, group)
        mask = group_mask(size, group, interval, device=x.device)
        glanced, values = self.glance.attend(partition(x, group, interval), group, mask)  # (B*G, N, C) both
        volume = unpartition(values, size, group, interval)
        gazed = self.gaze(volume.permute(0, 4, 1, 2, 3)).permute(
            0, 2, 3, 4, 1
        )  # there and back: channels 2nd
        x = unpartition(glanced, size, group, interval) + gazed
        return self.glance.proj_drop(self.glance.proj(x))


class Block(nn.Module):
    """Glance and gaze, then MLP, both pre-norm and residual: (B, T, H, W, C) -> the same shape."""

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        norm_eps: float,
        dropout_rate: float,
        drop_path_rate: float,
        **attention_arguments: Any,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = GlanceGaze(dim, num_heads, dropout_rate=dropout_rate, **attention_arguments)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim, dropout_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class GGTransformer(MeanClassifier):
    """GG-Transformer for clips and for images.

    forward: clip (B, in_channels, T, H, W), float, normalised, or images (B, in_channels, H, W) = clips of
    one frame -> logits (B, num_classes). Any T, H and W will do.

    Input:
      num_frames, image_size (pixels, int or (height, width)): the size that the model is meant for; no weight
        depends on it. in_channels, num_classes
      patch_size: (t, h, w) frames and pixels of a token. An image model has num_frames=1, patch_size
        (1, 4, 4), a glance of one frame and gaze_frames=1.
    Blocks:
      embed_dim: width of the first stage; each further one is twice as wide, on half the height and width
      depths, num_heads: number of blocks and heads of each stage
      glance: (t, h, w) tokens of a group; gaze_sides: side of each stage's gaze kernel in tokens, odd, and
        gaze_frames its extent in time (the paper's "adaptive" sides are (9, 5, 3, 3))
      mlp_ratio, norm_eps
    Training:
      drop_path_rate (of the last block; grows linearly from 0), dropout_rate (branches), head_dropout_rate,
      activation_checkpointing (recompute blocks in the backward pass)

    Raises ValueError, saying what would work, for arguments that do not go together.
    """

    def __init__(
        self,
        *,
        num_frames: int = 16,
        image_size: int | Sequence[int] = 224,
        in_channels: int = 3,
        num_classes: int = 400,
        patch_size: Sequence[int] = (2, 4, 4),
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        glance: Sequence[int] = (4, 7, 7),
        gaze_sides: Sequence[int] = (9, 5, 3, 3),
        gaze_frames: int = 3,
        mlp_ratio: float = 4.0,
        norm_eps: float = 1e-5,
        drop_path_rate: float = 0.0,
        dropout_rate: float = 0.0,
        head_dropout_rate: float = 0.0,
        activation_checkpointing: bool = False,
    ):
        super().__init__()
        check_counts(in_channels=in_channels, num_classes=num_classes)
        check_rates(
            drop_path_rate=drop_path_rate, dropout_rate=dropout_rate, head_dropout_rate=head_dropout_rate
        )
        check_positive(mlp_ratio=mlp_ratio, norm_eps=norm_eps)
        embed_dims = [embed_dim * 2**i for i in range(len(depths))]
        check_stages(
            {"embed_dims": embed_dims, "depths": depths, "num_heads": num_heads, "gaze_sides": gaze_sides}
        )
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        for name, sizes in (
            ("num_frames and image_size", (num_frames, height, width)),
            ("patch_size", patch_size),
            ("glance", glance),
        ):
            if min(sizes) < 1:
                raise ValueError(f"{name} must be at least 1 along each axis, got {tuple(sizes)}")
        if any(k < 1 or k % 2 == 0 for k in (*gaze_sides, gaze_frames)):
            raise ValueError(
                f"gaze_sides={tuple(gaze_sides)} and gaze_frames={gaze_frames} must be odd, such as 1, 3 or 5"
            )
        self.in_channels = in_channels
        self.num_layers = sum(depths)
        self.depths = tuple(depths)

        self.patch_embed = SwinPatchEmbed(in_channels, embed_dim, triple(patch_size), "replicate", norm_eps)
        self.stages = nn.ModuleList()
        rates = drop_path_rates(drop_path_rate, depths)
        for i, (dim, heads, side) in enumerate(zip(embed_dims, num_heads, gaze_sides, strict=True)):
            blocks = [
                Block(
                    dim=dim,
                    num_heads=heads,
                    glance=glance,
                    gaze_kernel=(gaze_frames, side, side),
                    mlp_ratio=mlp_ratio,
                    norm_eps=norm_eps,
                    dropout_rate=dropout_rate,
                    drop_path_rate=rate,
                )
                for rate in rates[i]
            ]
            merge = PatchMerging(dim // 2, norm_eps) if i else None
            self.stages.append(Stage(blocks, merge=merge, activation_checkpointing=activation_checkpointing))
        self.feature_info = stage_info("stages.{stage}.blocks.{block}", embed_dims, depths, first=patch_size)
        self.norm = nn.LayerNorm(embed_dims[-1], eps=norm_eps)
        self.head = ClassifierHead(embed_dims[-1], num_classes, head_dropout_rate)
        self.reset_parameters()

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, in_channels, T, H, W) or images (B, in_channels, H, W) -> logits (B, num_classes)."""
        return self.head(self.forward_features(clip).mean(dim=(1, 2, 3)))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip -> last feature map (B, T', H', W', C) after the final norm."""
        x = self.patch_embed(as_clip(clip, self.in_channels))
        for stage in self.stages:
            x = stage(x)
        return self.norm(x)

    def no_weight_decay(self) -> set[str]:
        """No names: there are no position embeddings."""
        return set()

    def layer_id(self, name: str) -> int:
        """Depth of a parameter, for layer-wise decay: 0 the patch embedding, i + 1 block i (and the merge
        before it), num_layers + 1 the rest."""
        part, *rest = name.split(".")
        if part == "patch_embed":
            return 0
        if part == "stages":
            return stage_layer_id(int(rest[0]), int(rest[2]) if rest[1] == "blocks" else 0, self.depths)
        return self.num_layers + 1

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises convolutions by their fan-out and Linears with a standard deviation of 0.02."""
        reset_pyramid(self)


# The paper's sizes. Parameters (400 classes) and GFLOPs (16 frames of 224 pixels) of the video models as
# counted here; of the image models as the paper gives them, with its ImageNet-1k accuracy at 224 pixels. No
# weights were published.


@register_model(GGTransformer)
def gg_t() -> dict[str, Any]:
    """GG-T: 28.0 M parameters, 41.0 GFLOPs (image model 28 M, 4.5, 82.0)."""
    return {}


@register_model(GGTransformer)
def gg_s() -> dict[str, Any]:
    """GG-S: 49.4 M parameters, 77.4 GFLOPs (image model 50 M, 8.7, 83.4)."""
    return {"depths": (2, 2, 18, 2)}


@register_model(GGTransformer)
def gg_tiny() -> dict[str, Any]:
    """Not published: for tests and for demonstrations that train on a CPU. 8 frames of 64 pixels."""
    small = {"num_frames": 8, "image_size": 64, "num_classes": 10, "mlp_ratio": 2.0, "glance": (4, 4, 4)}
    sizes = {"embed_dim": 32, "depths": (1, 1, 1), "num_heads": (1, 2, 4), "gaze_sides": (5, 3, 3)}
    return {**small, **sizes}
