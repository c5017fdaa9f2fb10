"""Masked pre-training of MViT: MaskFeat (Wei et al., arXiv 2112.09133), as PySlowFast's MaskMViT.

A map that is pooled cannot leave tokens out: hidden ones are replaced by one learned token after the patch
embedding, and what they hid is predicted from the cells of the last feature map, by one Linear (MaskFeat) or
by a decoder of blocks. Where the patch embedding's kernels overlap, as MViT's do, the pixels at the edge of a
hidden cell reach its neighbours; so it is in PySlowFast.

Shape letters: B clips, N cells of the last feature map of a clip, M of them hidden, C channels of a clip.
"""

import torch
from torch import Tensor, nn

from vidformers.layers.checks import check_choice, check_counts, check_heads
from vidformers.layers.position import sinusoid
from vidformers.layers.sizes import triple
from vidformers.models.masked_autoencoder import TARGETS, Decoder, check_mask, chosen, num_values
from vidformers.models.mvit import MViT


class MaskedMViT(nn.Module):
    """An MViT that predicts what the hidden cells of its last feature map hold.

    forward: clip (B, C, T, H, W) of the encoder's size, float, normalised, and mask, bool (B, N), T-major,
    True = hidden, as many in every clip -> predictions for the hidden cells in their order (B, M, values), to
    be compared with `pixel_targets` or `hog_targets` of patches that are the cells.

    encoder: becomes a part of this model, without its classifier.
    decoder_depth: 0 (PySlowFast's "separate" head: a norm and a Linear), or blocks of decoder_dim channels
      and decoder_heads heads, which see the tokens of all cells.
    target: what is predicted of a cell, its "pixels" or "hog" (`layers/hog.py`).
    grid: cells (t, h, w); patch: the pixels of one.

    Raises ValueError for an encoder whose last feature map does not divide its tokens evenly.
    """

    def __init__(
        self,
        encoder: MViT,
        *,
        decoder_dim: int = 384,
        decoder_depth: int = 0,
        decoder_heads: int = 6,
        target: str = "pixels",
    ):
        super().__init__()
        if decoder_depth:
            check_counts(decoder_dim=decoder_dim, decoder_depth=decoder_depth, decoder_heads=decoder_heads)
            check_heads(decoder_dim, decoder_heads)
        check_choice("target", target, TARGETS)
        self.target = target
        self.grid = encoder.feature_grid
        if any(size % cells for size, cells in zip(encoder.grid, self.grid, strict=True)):
            raise ValueError(
                f"got an encoder whose {encoder.grid} tokens are pooled to {self.grid}; masked pre-training "
                "wanted whole tokens in each; try an image_size that all strides divide"
            )
        self.pooled = triple([size // cells for size, cells in zip(encoder.grid, self.grid, strict=True)])
        stride = encoder.patch_embed.stride
        self.patch = triple([size * tokens for size, tokens in zip(stride, self.pooled, strict=True)])
        dim = encoder.head.projection.in_features
        width = decoder_dim if decoder_depth else dim
        # A decoder without blocks brings the norm that the tokens need.
        encoder.norm = nn.LayerNorm(dim, eps=1e-6) if decoder_depth else nn.Identity()  # type: ignore[assignment]
        encoder.head = nn.Identity()  # type: ignore[assignment]
        self.encoder = encoder
        self.encoder_to_decoder = nn.Linear(dim, width, bias=False) if decoder_depth else nn.Identity()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, encoder.patch_embed.proj.out_channels))
        self.decoder = Decoder(
            dim=width,
            depth=decoder_depth,
            num_heads=decoder_heads,
            num_values=num_values(target, self.patch, encoder.in_channels),
        )
        self.reset_parameters()

    def forward(self, clip: Tensor, mask: Tensor) -> Tensor:
        """Clip (B, C, T, H, W) and mask (B, N) -> what the hidden cells hold (B, M, values).

        ValueError for a clip of another size, or a mask that does not fit.
        """
        x, grid = self.encoder.embed_patches(clip)
        if grid != self.encoder.grid:
            raise ValueError(f"got a clip of {grid} tokens; masked pre-training wanted {self.encoder.grid}")
        check_mask(mask, len(x), self.grid[0] * self.grid[1] * self.grid[2])
        hidden = mask.unflatten(1, self.grid)
        for axis, tokens in enumerate(self.pooled, start=1):
            hidden = hidden.repeat_interleave(tokens, dim=axis)
        x = torch.where(hidden.flatten(1).unsqueeze(2), self.mask_token, x)
        x, grid = self.encoder.run_blocks(x, grid)
        x = self.encoder.norm(x if self.encoder.cls_token is None else x[:, 1:])
        x = self.encoder_to_decoder(x)
        if self.decoder.blocks:
            x = x + sinusoid(x.shape[-1], x.shape[1], x.device).to(x.dtype)
        x = torch.cat([chosen(x, ~mask), chosen(x, mask)], dim=1)
        return self.decoder(x, grid, int(mask[0].sum()))

    def no_weight_decay(self) -> set[str]:
        """Full names of the position, class and mask embedding parameters."""
        return {"mask_token", *(f"encoder.{name}" for name in self.encoder.no_weight_decay())}

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises what pre-training adds as PySlowFast does; the encoder keeps its own values."""
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        for module in (*self.decoder.modules(), self.encoder_to_decoder):
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
