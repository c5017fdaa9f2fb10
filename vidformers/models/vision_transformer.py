"""Vision Transformers (Dosovitskiy et al., arXiv 2010.11929) for clips: all tokens of one resolution.

Three ways to attend over T x H x W: to all tokens (the ViT baseline of the MViT paper, 2104.11227, section 4;
VideoMAE, 2203.12602), first along time and then within each frame (TimeSformer, 2102.05095, section 3), or
within each frame alone. Parameter names are those of timm and TimeSformer.

Shape letters: B clips, T H W tokens along time, height and width (the "grid"), S = H*W tokens of a frame, N
any number of tokens, C channels, d channels of a head. A class token comes first.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vidformers.layers.attention import attention as attend
from vidformers.layers.checks import (
    check_choice,
    check_counts,
    check_finite,
    check_heads,
    check_positive,
    check_rates,
    checked_triple,
    height_and_width,
)
from vidformers.layers.clip import as_clip
from vidformers.layers.conv import Conv3d
from vidformers.layers.drop_path import DropPath
from vidformers.layers.head import ClassifierHead
from vidformers.layers.mlp import Mlp
from vidformers.layers.position import (
    resize_joint,
    resize_spatial,
    resize_temporal,
    sincos_3d,
    sinusoid,
)
from vidformers.layers.sizes import Grid, triple
from vidformers.models.registry import register_model
from vidformers.models.video_classifier import VideoClassifier, feature

ATTENTIONS = ("joint", "divided", "space_only")
POSITION_EMBEDDINGS = ("none", "joint", "spatial", "separable", "sincos", "sinusoid")
FIXED = ("sincos", "sinusoid")


class PatchEmbed(nn.Module):
    """Clip (B, in_channels, T, H, W) of any size -> tokens (B, T'*H'*W', C), T-major, and their grid.

    What does not fill a patch is padded: in time with the last frame, so that a still clip stays still, in
    space with zeros.
    """

    def __init__(self, in_channels: int, embed_dim: int, kernel: Sequence[int], stride: Sequence[int]):
        super().__init__()
        self.proj = Conv3d(
            in_channels, embed_dim, kernel, stride, time_padding="replicate", space_padding="ceil"
        )

    def forward(self, clip: Tensor) -> tuple[Tensor, Grid]:
        x = self.proj(clip)
        # (B, C, T', H', W') -> (B, T'*H'*W', C)
        return x.flatten(2).transpose(1, 2), triple(x.shape[2:])


class Attention(nn.Module):
    """Multi-head self-attention over (B, N, C), with an optional bias for every key (1, 1, 1, N).

    With `key_bias` False (VideoMAE) q and v have biases and k has none; a bias of k adds the same to all of a
    query's logits, so the softmax does not see it.
    """

    q_bias: nn.Parameter | None
    v_bias: nn.Parameter | None

    def __init__(self, *, dim: int, num_heads: int, qkv_bias: bool, key_bias: bool, dropout_rate: float):
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias and key_bias)
        separate = qkv_bias and not key_bias
        self.q_bias = nn.Parameter(torch.zeros(dim)) if separate else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if separate else None
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(dropout_rate)

    def forward(self, x: Tensor, key_logits: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.q_bias is not None:
            q, v = q + self.q_bias, v + self.v_bias
        # (B, N, heads*d) -> (B, heads, N, d)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (q, k, v))
        out = attend(q, k, v, key_logits, self.scale)
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))  # (B, heads, N, d) -> (B, N, C)


class Block(nn.Module):
    """Attention and MLP, both pre-norm and residual, over tokens (B, [1 +] N, C) of a grid.

    `class_token_log_frames` counts the class key once a frame: so an image model with a class token, run on a
    clip of equal frames, attends as it does on the image.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        key_bias: bool,
        class_token: bool,
        class_token_log_frames: bool,
        dropout_rate: float,
        drop_path_rate: float,
        layer_scale_init_value: float,
        norm_eps: float,
    ):
        super().__init__()
        self.class_token = class_token
        self.class_token_log_frames = class_token_log_frames
        self.layer_scale_init_value = layer_scale_init_value
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(
            dim=dim, num_heads=num_heads, qkv_bias=qkv_bias, key_bias=key_bias, dropout_rate=dropout_rate
        )
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim, dropout_rate)
        self.drop_path = DropPath(drop_path_rate)
        has_scale = layer_scale_init_value > 0
        self.gamma_1 = nn.Parameter(torch.empty(dim)) if has_scale else None
        self.gamma_2 = nn.Parameter(torch.empty(dim)) if has_scale else None

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        branch = self.attn(self.norm1(x), self._key_logits(x, grid))
        return self._mlp(self._add_attention(x, branch))

    def _add_attention(self, x: Tensor, branch: Tensor) -> Tensor:
        return x + self.drop_path(branch if self.gamma_1 is None else branch * self.gamma_1)

    def _mlp(self, x: Tensor) -> Tensor:
        branch = self.mlp(self.norm2(x))
        return x + self.drop_path(branch if self.gamma_2 is None else branch * self.gamma_2)

    def _key_logits(self, x: Tensor, grid: Grid) -> Tensor | None:
        if not self.class_token_log_frames:
            return None
        class_key = x.new_full((1, 1, 1, 1), math.log(grid[0]))
        return nn.functional.pad(class_key, (0, x.shape[1] - 1))


class DividedBlock(Block):
    """Attention along time, attention within each frame, MLP (TimeSformer's "T+S").

    Along time the patches of each place attend to each other, without the class token. In space every frame
    has its copy of the class token, whose update is the mean over the frames.
    """

    def __init__(
        self, *, dim: int, num_heads: int, qkv_bias: bool, key_bias: bool, norm_eps: float, **rest: Any
    ):
        super().__init__(
            dim=dim, num_heads=num_heads, qkv_bias=qkv_bias, key_bias=key_bias, norm_eps=norm_eps, **rest
        )
        self.temporal_norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.temporal_attn = Attention(
            dim=dim,
            num_heads=num_heads,
            qkv_bias=qkv_bias,
            key_bias=key_bias,
            dropout_rate=rest["dropout_rate"],
        )
        self.temporal_fc = nn.Linear(dim, dim)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        T, S = grid[0], grid[1] * grid[2]
        first = int(self.class_token)
        class_token, patches = x[:, :first], x[:, first:]

        # (B, T*S, C) -> (B, T, S, C) -> (B*S, T, C)
        tracks = self.temporal_norm1(patches).unflatten(1, (T, S)).transpose(1, 2).flatten(0, 1)
        branch = self.temporal_fc(self.temporal_attn(tracks))
        branch = branch.unflatten(0, (-1, S)).transpose(1, 2).flatten(1, 2)  # (B*S, T, C) -> (B, T*S, C)
        patches = patches + self.drop_path(branch)

        # (B, T*S, C) -> (B*T, [1 +] S, C)
        copies = class_token.repeat_interleave(T, dim=0)
        frames = torch.cat([copies, patches.reshape(-1, S, patches.shape[-1])], dim=1)
        branch = self.attn(self.norm1(frames)).unflatten(0, (-1, T))  # (B, T, [1 +] S, C)
        class_branch = branch[:, :, :first].mean(dim=1)
        branch = torch.cat([class_branch, branch[:, :, first:].flatten(1, 2)], dim=1)
        return self._mlp(self._add_attention(torch.cat([class_token, patches], dim=1), branch))


class VisionTransformer(VideoClassifier):
    """Vision Transformer for clips and for images.

    forward: clip (B, in_channels, T, H, W), float, normalised, or images (B, in_channels, H, W) = clips of
    one frame -> logits (B, num_classes). T, H and W may differ from `num_frames` and `image_size`: position
    embeddings are interpolated (space bicubic with antialiasing, as timm does; time linear; joint and fixed
    ones trilinear), and what does not fill a patch is padded, in time with the last frame, in space with
    zeros. Of the other projects TimeSformer's code takes the nearest position instead, and PySlowFast's and
    VideoMAE's run at one size only.

    Input:
      num_frames, image_size (pixels, int or (height, width)), in_channels, num_classes
      patch_kernel, patch_stride: (t, h, w) of the patch embedding. An image model has kernel and stride 1 in
        time and num_frames=1.
      position_embedding: "joint" (a vector a token), "spatial" (a vector a place, the same in all frames),
        "separable" (spatial + a vector a time step, none if there is one step only), or fixed: "sincos" (a
        part of the channels for each axis, as in MAE), "sinusoid" (of the token's number, as in VideoMAE);
        or "none"
    Blocks:
      embed_dim, depth, num_heads, mlp_ratio
      attention: "joint" (all tokens), "divided" (along time, then within frames) or "space_only" (within
        frames; the frames' tokens are averaged at the end)
      qkv_bias, key_bias: whether q, k and v have biases; key_bias=False leaves out that of k, as in VideoMAE
      layer_scale_init_value: 0 for none; norm_eps
    Output:
      class_token: the head sees norm(x)[0]; with mean_pooling, and always without a class token, it sees
        norm(mean of the patches)
      class_token_log_frames: add log(frames) to the class key of joint attention: for image weights run on
        clips; the other attentions need no such thing
    Training:
      drop_path_rate (of the last block; grows linearly from 0), dropout_rate (tokens and branches),
      head_dropout_rate, head_init_scale, activation_checkpointing (recompute blocks in the backward pass)

    Raises ValueError, saying what would work, for arguments that do not go together.
    """

    pos_embed: Tensor | None
    head: ClassifierHead

    def __init__(
        self,
        *,
        num_frames: int = 16,
        image_size: int | Sequence[int] = 224,
        in_channels: int = 3,
        num_classes: int = 400,
        patch_kernel: Sequence[int] = (2, 16, 16),
        patch_stride: Sequence[int] = (2, 16, 16),
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        key_bias: bool = True,
        attention: str = "joint",
        class_token: bool = True,
        class_token_log_frames: bool = False,
        mean_pooling: bool = False,
        position_embedding: str = "separable",
        drop_path_rate: float = 0.0,
        dropout_rate: float = 0.0,
        head_dropout_rate: float = 0.0,
        head_init_scale: float = 1.0,
        norm_eps: float = 1e-6,
        layer_scale_init_value: float = 0.0,
        activation_checkpointing: bool = False,
    ):
        super().__init__()
        height, width = height_and_width(image_size)
        check_counts(
            num_frames=num_frames,
            in_channels=in_channels,
            num_classes=num_classes,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
        )
        check_positive(mlp_ratio=mlp_ratio, norm_eps=norm_eps)
        check_finite(head_init_scale=head_init_scale)
        check_rates(
            drop_path_rate=drop_path_rate, dropout_rate=dropout_rate, head_dropout_rate=head_dropout_rate
        )
        check_choice("attention", attention, ATTENTIONS)
        check_choice("position_embedding", position_embedding, POSITION_EMBEDDINGS)
        check_heads(embed_dim, num_heads)
        if class_token_log_frames and not (class_token and attention == "joint"):
            raise ValueError("class_token_log_frames=True needs class_token=True and attention='joint'")

        self.in_channels = in_channels
        self.num_layers = depth
        self.attention = attention
        self.position_embedding = position_embedding
        self.mean_pooling = mean_pooling or not class_token
        self.activation_checkpointing = activation_checkpointing
        self.head_init_scale = head_init_scale

        kernel, stride = (
            checked_triple("patch_kernel", patch_kernel),
            checked_triple("patch_stride", patch_stride),
        )
        self.patch_embed = PatchEmbed(in_channels, embed_dim, kernel, stride)
        sizes = zip((num_frames, height, width), stride, strict=True)
        self.grid = triple([-(-size // s) for size, s in sizes])
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if class_token else None
        self._add_position_embedding(embed_dim)
        self.pos_drop = nn.Dropout(dropout_rate)
        self.blocks = nn.ModuleList(
            (DividedBlock if attention == "divided" else Block)(
                dim=embed_dim,
                num_heads=num_heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                key_bias=key_bias,
                class_token=class_token,
                class_token_log_frames=class_token_log_frames,
                dropout_rate=dropout_rate,
                drop_path_rate=drop_path_rate * i / max(depth - 1, 1),
                layer_scale_init_value=layer_scale_init_value,
                norm_eps=norm_eps,
            )
            for i in range(depth)
        )
        self.feature_info = [feature(f"blocks.{depth - 1}", embed_dim, stride)]
        # Two places, as in timm: the class token is taken from normed tokens, a mean is normed afterwards.
        self.norm = nn.Identity() if self.mean_pooling else nn.LayerNorm(embed_dim, eps=norm_eps)
        self.fc_norm = nn.LayerNorm(embed_dim, eps=norm_eps) if self.mean_pooling else nn.Identity()
        self.head = ClassifierHead(embed_dim, num_classes, head_dropout_rate)
        self.register_load_state_dict_post_hook(_reset_buffers)
        self.reset_parameters()

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, in_channels, T, H, W) or images (B, in_channels, H, W) -> logits (B, num_classes)."""
        class_token, patches = self.forward_tokens(clip)
        use_mean = self.mean_pooling or class_token is None
        x = patches.mean(dim=(1, 2, 3)) if use_mean else self.norm(class_token)
        return self.head(self.fc_norm(x))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip -> last feature map (B, T', H', W', C) after the final norm, without the class token."""
        _, patches = self.forward_tokens(clip)
        return self.fc_norm(self.norm(patches))

    def forward_tokens(self, clip: Tensor) -> tuple[Tensor | None, Tensor]:
        """Clip -> class token (B, C) or None, and patches (B, T', H', W', C), not yet normed."""
        x, grid = self.embed_patches(clip)
        batch, T = x.shape[0], grid[0]
        if self.attention == "space_only":
            x = x.unflatten(1, (T, -1)).flatten(0, 1)  # (B, T*S, C) -> (B*T, S, C)
        x = self.run_blocks(x, grid)
        first = int(self.cls_token is not None)
        patches = x[:, first:].reshape(batch, *grid, x.shape[-1])
        if self.cls_token is None:
            return None, patches
        # (B, 1, C), or (B*T, 1, C) of space_only, -> (B, C)
        tokens = T if self.attention == "space_only" else 1
        return x[:, 0].unflatten(0, (-1, tokens)).mean(dim=1), patches

    def embed_patches(self, clip: Tensor) -> tuple[Tensor, Grid]:
        """Clip -> patches with their positions (B, T'*H'*W', C), T-major, and their grid."""
        x, grid = self.patch_embed(as_clip(clip, self.in_channels))
        position = self._position(grid)
        return (x if position is None else x + position), grid

    def run_blocks(self, x: Tensor, grid: Grid) -> Tensor:
        """Patches (B, N, C) of `grid`, of joint attention also some of them -> tokens (B, [1 +] N, C)."""
        if self.cls_token is not None:
            class_token: Tensor = self.cls_token
            if self.pos_embed is not None and self.position_embedding not in FIXED:
                class_token = class_token + self.pos_embed[:, :1]
            x = torch.cat([class_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.pos_drop(x)
        for block in self.blocks:
            if self.activation_checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, grid, use_reentrant=False)
            else:
                x = block(x, grid)
        return x

    def no_weight_decay(self) -> set[str]:
        """Full names of the position and class embedding parameters."""
        prefixes = ("pos_embed", "cls_token", "time_embed")
        return {name for name, _ in self.named_parameters() if name.startswith(prefixes)}

    def layer_id(self, name: str) -> int:
        """Depth of a parameter, for layer-wise decay: 0 the stem, i + 1 block i, num_layers + 1 the rest."""
        if name.startswith(("cls_token", "pos_embed", "time_embed", "patch_embed")):
            return 0
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.num_layers + 1

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises as TimeSformer does: time_embed and all temporal branches but the first start at 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Conv3d) and module.bias is not None:
                bound = module.weight[0].numel() ** -0.5
                nn.init.uniform_(module.weight, -bound, bound)
                nn.init.uniform_(module.bias, -bound, bound)
            if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
            if isinstance(module, Attention):
                for bias in (module.q_bias, module.v_bias):
                    if bias is not None:
                        nn.init.zeros_(bias)
            if isinstance(module, Block):
                for gamma in (module.gamma_1, module.gamma_2):
                    if gamma is not None:
                        nn.init.constant_(gamma, module.layer_scale_init_value)
        for block in self.blocks[1:]:
            if isinstance(block, DividedBlock):
                nn.init.zeros_(block.temporal_fc.weight)
        for name, parameter in self.named_parameters():
            if name in ("cls_token", "pos_embed"):
                nn.init.trunc_normal_(parameter, std=0.02)
        if self.time_embed is not None:
            nn.init.zeros_(self.time_embed)
        self.head.projection.weight.mul_(self.head_init_scale)
        self.reset_buffers()

    @torch.no_grad()
    def reset_buffers(self) -> None:
        """Computes the fixed position table, which no state dict holds, anew, where the weights are.

        Called after every load_state_dict too: a model built on the meta device has no table until then.
        """
        if self.pos_embed is None or self.position_embedding not in FIXED:
            return
        weight, dim = self.patch_embed.proj.weight, self.pos_embed.shape[-1]
        if self.position_embedding == "sincos":
            table = sincos_3d(dim, self.grid, weight.device)
        else:
            table = sinusoid(dim, math.prod(self.grid), weight.device)
        # Rounded to float32 in a float64 model too: so are the tables that checkpoints were trained with.
        self.pos_embed = table.float()[None].to(weight.dtype)

    def _add_position_embedding(self, dim: int) -> None:
        T, H, W = self.grid
        kind = self.position_embedding
        first = int(self.cls_token is not None)
        divisor = {"sincos": 16, "sinusoid": 2}.get(kind, 1)
        if dim % divisor:
            raise ValueError(
                f"position_embedding={kind!r} needs embed_dim divisible by {divisor}, got {dim}; "
                f"use {max(dim // divisor, 1) * divisor} or {(dim // divisor + 1) * divisor}"
            )
        if kind in FIXED:
            self.register_buffer("pos_embed", torch.zeros(1, T * H * W, dim), persistent=False)
        elif kind == "none":
            self.pos_embed = None
        else:
            num_tokens = T * H * W if kind == "joint" else H * W
            self.pos_embed = nn.Parameter(torch.zeros(1, first + num_tokens, dim))
        has_time = kind == "separable" and T > 1
        self.time_embed = nn.Parameter(torch.zeros(1, T, dim)) if has_time else None

    def _position(self, grid: Grid) -> Tensor | None:
        """Position embedding of a grid's patches (1, T*H*W, C), or None."""
        if self.pos_embed is None:
            return None
        if self.position_embedding in FIXED:
            return resize_joint(self.pos_embed, self.grid, grid)
        patches = self.pos_embed[:, int(self.cls_token is not None) :]
        if self.position_embedding == "joint":
            return resize_joint(patches, self.grid, grid)
        patches = resize_spatial(patches, self.grid[1:], grid[1:], antialias=True)
        if self.time_embed is None:
            return patches.repeat(1, grid[0], 1)
        # (1, T, 1, C) + (1, 1, S, C) -> (1, T*S, C)
        time = resize_temporal(self.time_embed, grid[0])
        return (time[:, :, None] + patches[:, None]).flatten(1, 2)


def _reset_buffers(model: nn.Module, _: Any) -> None:  # a function, for models to be pickled
    assert isinstance(model, VisionTransformer)
    model.reset_buffers()


# The published sizes. GFLOPs: fvcore, checked by the tests. Accuracies: the projects' own tables.

_SMALL = {"embed_dim": 384, "num_heads": 6}
_LARGE = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
_HUGE = {"embed_dim": 1280, "depth": 32, "num_heads": 16}


@register_model(VisionTransformer)
def vit_b() -> dict[str, Any]:
    """ViT-B/16 in time, for timm's image weights (86.6 M, ImageNet-1k): 86.7 M parameters, 180.6 GFLOPs."""
    return {"class_token_log_frames": True}


@register_model(VisionTransformer)
def vit_s() -> dict[str, Any]:
    """ViT-S/16 in time, for timm's image weights (22.1 M, ImageNet-1k): 22.1 M parameters, 57.0 GFLOPs."""
    return {**vit_b(), **_SMALL}


@register_model(VisionTransformer)
def vit_b_16x4() -> dict[str, Any]:
    """The MViT paper's ViT-B baseline, 1x16x16 patches of every second frame: 87.2 M, 179.7 GFLOPs,
    Kinetics-400 68.5 from scratch, 79.3 from ImageNet-21k."""
    return {"patch_kernel": (1, 16, 16), "position_embedding": "joint"}


@register_model(VisionTransformer)
def timesformer_b() -> dict[str, Any]:
    """TimeSformer, 8 frames of 224 pixels, one in 32: 121.6 M, 196.0 GFLOPs, Kinetics-400 77.9."""
    patch = (1, 16, 16)
    return {"num_frames": 8, "patch_kernel": patch, "patch_stride": patch, "attention": "divided"}


@register_model(VisionTransformer)
def timesformer_b_joint() -> dict[str, Any]:
    """TimeSformer's joint space-time attention, 8 frames: 86.1 M, 179.7 GFLOPs."""
    return {**timesformer_b(), "attention": "joint"}


@register_model(VisionTransformer)
def timesformer_b_space_only() -> dict[str, Any]:
    """TimeSformer's attention within frames alone, 8 frames averaged: 86.1 M, 140.7 GFLOPs."""
    return {**timesformer_b(), "attention": "space_only", "position_embedding": "spatial"}


@register_model(VisionTransformer)
def timesformer_hr() -> dict[str, Any]:
    """TimeSformer-HR, 16 frames of 448 pixels, one in 16: 122.0 M, 1704 GFLOPs, Kinetics-400 79.6."""
    return {**timesformer_b(), "num_frames": 16, "image_size": 448}


@register_model(VisionTransformer)
def timesformer_l() -> dict[str, Any]:
    """TimeSformer-L, 96 frames of 224 pixels, one in 4: 121.6 M, 2382 GFLOPs, Kinetics-400 80.6."""
    return {**timesformer_b(), "num_frames": 96}


@register_model(VisionTransformer)
def videomae_b() -> dict[str, Any]:
    """VideoMAE's fine-tuned ViT-B: 86.5 M, 180.5 GFLOPs, Kinetics-400 81.5 (1600 epochs of pre-training)."""
    return {"key_bias": False, "class_token": False, "position_embedding": "sinusoid"}


@register_model(VisionTransformer)
def videomae_s() -> dict[str, Any]:
    """VideoMAE's fine-tuned ViT-S: 22.0 M, 57.0 GFLOPs, Kinetics-400 79.0."""
    return {**videomae_b(), **_SMALL}


@register_model(VisionTransformer)
def videomae_l() -> dict[str, Any]:
    """VideoMAE's fine-tuned ViT-L: 304 M, 597 GFLOPs, Kinetics-400 85.2."""
    return {**videomae_b(), **_LARGE}


@register_model(VisionTransformer)
def videomae_h() -> dict[str, Any]:
    """VideoMAE's fine-tuned ViT-H: 632 M, 1192 GFLOPs, Kinetics-400 86.6."""
    return {**videomae_b(), **_HUGE}


@register_model(VisionTransformer)
def vit_tiny() -> dict[str, Any]:
    """Not published: for tests and for demonstrations that train on a CPU. 8 frames of 64 pixels."""
    patch = {"patch_kernel": (2, 8, 8), "patch_stride": (2, 8, 8)}
    small = {"num_frames": 8, "image_size": 64, "num_classes": 10}
    return {**patch, **small, "embed_dim": 96, "depth": 4, "num_heads": 3}
