"""What MViT and Rev-MViT share: PySlowFast's absolute position embeddings and its initialisation."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from vidformers.layers.head import ClassifierHead
from vidformers.layers.initialise import reset_slowfast
from vidformers.layers.mlp import Mlp
from vidformers.layers.patch_embed import PatchEmbed
from vidformers.layers.pooling_attention import PoolingAttention
from vidformers.layers.position import resize_joint, sincos_3d
from vidformers.layers.sizes import Grid, triple
from vidformers.models.video_classifier import VideoClassifier, feature

POSITION_EMBEDDINGS = ("none", "joint", "separable", "sincos")


class MViTBase(VideoClassifier):
    """Base class and not a layer, because PySlowFast names these parameters as the model's own.

    A model sets the attributes below before it calls `_add_position_embedding` and `reset_parameters`.
    """

    grid: Grid
    position_embedding: str
    rel_pos_zero_init: bool
    head: ClassifierHead
    patch_embed: PatchEmbed
    norm: nn.LayerNorm
    head_init_scale: float

    @property
    def feature_info(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """See `VideoClassifier`; a stage is the blocks of one grid; of two streams, one counts."""
        found: list[dict[str, Any]] = []
        grid, token = self.grid, triple(self.patch_embed.proj.stride)
        for name, module in self.named_modules():
            if not isinstance(module, PoolingAttention):
                continue
            block = name.removesuffix(".attn").removesuffix(".F")
            shrinks = module.query_grid != grid
            steps = [round(old / new) for old, new in zip(grid, module.query_grid, strict=True)]
            grid, token = module.query_grid, triple([n * s for n, s in zip(token, steps, strict=True)])
            mlp = next(m for m in self.get_submodule(block).modules() if isinstance(m, Mlp))
            entry = feature(block, mlp.fc2.out_features, token)
            found = [*found, entry] if shrinks or not found else [*found[:-1], entry]
        return found

    @property
    def num_features(self) -> int:
        """Channels of `forward_features`."""
        return self.norm.normalized_shape[0]

    def no_weight_decay(self) -> set[str]:
        """Full names of the position and class embedding parameters."""
        prefixes = ("pos_embed", "cls_token", "rel_pos_")
        return {n for n, _ in self.named_parameters() if n.rpartition(".")[2].startswith(prefixes)}

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises as PySlowFast does, biases of 0.02 included; also fills the fixed position table."""
        reset_slowfast(self)
        for name, parameter in self.named_parameters():
            if name.startswith(("cls_token", "pos_embed")):
                nn.init.trunc_normal_(parameter, std=0.02)
            elif ".rel_pos_" in name and self.rel_pos_zero_init:
                nn.init.zeros_(parameter)
            elif ".rel_pos_" in name:
                nn.init.trunc_normal_(parameter, std=0.02)
        if self.position_embedding == "sincos":
            table = sincos_3d(self.pos_embed.shape[-1], self.grid, self.pos_embed.device)
            self.pos_embed.zero_()  # a class token's row stays zero
            self.pos_embed[:, -table.shape[0] :] = table
        self.head.projection.weight.mul_(self.head_init_scale)
        self.head.projection.bias.mul_(self.head_init_scale)

    def _add_position_embedding(self, dim: int, class_token: bool) -> None:
        T, H, W = self.grid
        if self.position_embedding == "separable":
            self.pos_embed_spatial = nn.Parameter(torch.zeros(1, H * W, dim))
            self.pos_embed_temporal = nn.Parameter(torch.zeros(1, T, dim))
            self.pos_embed_class = nn.Parameter(torch.zeros(1, 1, dim)) if class_token else None
        elif self.position_embedding in ("joint", "sincos"):
            if self.position_embedding == "sincos" and dim % 16:
                raise ValueError(
                    f"position_embedding='sincos' needs embed_dim divisible by 16, got {dim}; "
                    f"use {max(dim // 16, 1) * 16} or {(dim // 16 + 1) * 16}"
                )
            learned = self.position_embedding == "joint"
            table = torch.zeros(1, int(class_token) + T * H * W, dim)
            self.pos_embed = nn.Parameter(table, requires_grad=learned)

    def _position(self, grid: Grid) -> Tensor:
        """Position embedding of the class token, if any, and of the tokens of a grid: (1, [1 +] T*H*W, C)."""
        if self.position_embedding == "separable":
            # (1, T, 1, C) + (1, 1, H*W, C) -> (1, T*H*W, C)
            patches = (self.pos_embed_temporal[:, :, None] + self.pos_embed_spatial[:, None]).flatten(1, 2)
            prefix: list[Tensor] = [] if self.pos_embed_class is None else [self.pos_embed_class]
        else:
            first = self.pos_embed.shape[1] - math.prod(self.grid)
            # The fixed one is added twice, as PySlowFast's checkpoints expect.
            scale = 2 if self.position_embedding == "sincos" else 1
            prefix = [scale * self.pos_embed[:, :first]]
            patches = scale * self.pos_embed[:, first:]
        return torch.cat([*prefix, resize_joint(patches, self.grid, grid)], dim=1)
