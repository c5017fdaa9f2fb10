"""Masked autoencoders for clips: VideoMAE (Tong et al., arXiv 2203.12602), after MAE (He et al., 2111.06377).

Most patches of a clip are hidden. A VisionTransformer sees the others alone; a narrow decoder sees its output
and, in place of every hidden patch, one learned token, and predicts the hidden pixels. Parameter names are
those of VideoMAE's official pre-training.

Shape letters: B clips, N patches of a clip, M of them hidden, P pixels of a patch (t*h*w), C channels.
"""

import torch
from torch import Tensor, nn

from vidformers.layers.checks import check_choice, check_counts, check_heads
from vidformers.layers.hog import BINS, draw_hog, hog_patches, hog_values
from vidformers.layers.position import sinusoid
from vidformers.layers.sizes import Grid, triple
from vidformers.models.vision_transformer import Attention, Block, VisionTransformer

TARGETS = ("pixels", "hog")
_EPS = 1e-6  # VideoMAE's, beside the standard deviation of a patch


class Decoder(nn.Module):
    """Tokens (B, N, dim), those to predict at the end -> what they hide (B, num_predicted, num_values)."""

    def __init__(self, *, dim: int, depth: int, num_heads: int, num_values: int):
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(
                dim=dim,
                num_heads=num_heads,
                mlp_ratio=4.0,
                qkv_bias=True,
                key_bias=False,
                class_token=False,
                class_token_log_frames=False,
                dropout_rate=0.0,
                drop_path_rate=0.0,
                layer_scale_init_value=0.0,
                norm_eps=1e-6,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_values)

    def forward(self, x: Tensor, grid: Grid, num_predicted: int) -> Tensor:
        for block in self.blocks:
            x = block(x, grid)
        return self.head(self.norm(x[:, -num_predicted:]))


class MaskedAutoencoder(nn.Module):
    """VideoMAE's pre-training of a VisionTransformer with joint attention.

    forward: clip (B, C, T, H, W), float, normalised, and mask, bool (B, N), T-major, True = hidden, as many
    in every clip -> predictions for the hidden patches in their order (B, M, values), to be compared with
    `pixel_targets` or
    `hog_targets`.

    encoder: becomes a part of this model, without its classifier and with a norm of its tokens in its place.
    decoder_dim, decoder_depth, decoder_heads: of VideoMAE's ViT-B 384, 4 and 6.
    target: what is predicted of a patch, its "pixels" (P*C values) or "hog" (`layers/hog.py`).
    grid: patches (t, h, w) of a clip of the encoder's size; patch: their pixels.

    Raises ValueError for an encoder whose blocks need all patches ("divided" or "space_only" attention) or
    whose patches overlap, as then the neighbours give away what is hidden.
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        *,
        decoder_dim: int = 384,
        decoder_depth: int = 4,
        decoder_heads: int = 6,
        target: str = "pixels",
    ):
        super().__init__()
        check_counts(decoder_dim=decoder_dim, decoder_depth=decoder_depth, decoder_heads=decoder_heads)
        check_heads(decoder_dim, decoder_heads)
        check_choice("target", target, TARGETS)
        if encoder.attention != "joint":
            raise ValueError(
                f"got an encoder with attention={encoder.attention!r}; masked pre-training wanted 'joint', "
                "which takes any of a clip's patches; try videomae_b or another model with joint attention"
            )
        self.target = target
        self.grid = encoder.grid
        conv = encoder.patch_embed.proj
        self.patch = triple(conv.stride)
        if any(kernel > stride for kernel, stride in zip(conv.kernel_size, self.patch, strict=True)):
            raise ValueError(
                f"got an encoder with patch_kernel={tuple(conv.kernel_size)} over patch_stride={self.patch}; "
                "masked pre-training wanted patches that do not overlap; try patch_kernel equal to it"
            )
        dim = encoder.patch_embed.proj.out_channels
        eps = next(module.eps for module in encoder.modules() if isinstance(module, nn.LayerNorm))
        encoder.norm = nn.LayerNorm(dim, eps=eps)
        encoder.fc_norm = nn.Identity()
        encoder.head = nn.Identity()  # type: ignore[assignment]
        self.encoder = encoder
        self.encoder_to_decoder = nn.Linear(dim, decoder_dim, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        self.decoder = Decoder(
            dim=decoder_dim,
            depth=decoder_depth,
            num_heads=decoder_heads,
            num_values=num_values(target, self.patch, encoder.in_channels),
        )
        self.reset_parameters()

    def forward(self, clip: Tensor, mask: Tensor) -> Tensor:
        """Clip (B, C, T, H, W) and mask (B, N) -> what the hidden patches hold (B, M, values)."""
        visible, grid = self.encode(clip, mask)
        x = self.encoder_to_decoder(visible)
        # VideoMAE's decoder knows a patch by its number, whatever position embedding the encoder has.
        table = sinusoid(x.shape[-1], mask.shape[1], x.device).to(x.dtype)
        table = table.expand(len(x), -1, -1)
        visible = x + chosen(table, ~mask)
        hidden = self.mask_token + chosen(table, mask)
        return self.decoder(torch.cat([visible, hidden], dim=1), grid, hidden.shape[1])

    def encode(self, clip: Tensor, mask: Tensor) -> tuple[Tensor, Grid]:
        """Clip and mask -> the encoder's normed tokens of the visible patches (B, N - M, dim), and the grid.

        Raises ValueError for a mask of another number of patches, or that hides more in one clip.
        """
        x, grid = self.encoder.embed_patches(clip)
        check_mask(mask, x.shape[0], x.shape[1])
        x = self.encoder.run_blocks(chosen(x, ~mask), grid)
        return self.encoder.norm(x[:, int(self.encoder.cls_token is not None) :]), grid

    def no_weight_decay(self) -> set[str]:
        """Full names of the position, class and mask embedding parameters."""
        return {"mask_token", *(f"encoder.{name}" for name in self.encoder.no_weight_decay())}

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises as VideoMAE's pre-training does: Xavier for every Linear."""
        self.encoder.norm.reset_parameters()  # type: ignore[operator]
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, Attention) and module.q_bias is not None and module.v_bias is not None:
                nn.init.zeros_(module.q_bias)
                nn.init.zeros_(module.v_bias)
        nn.init.trunc_normal_(self.mask_token, std=0.02)


def chosen(x: Tensor, choice: Tensor) -> Tensor:
    """(B, N, D) and bool (B, N), as many True in each row -> those in their order (B, K, D)."""
    return x[choice].unflatten(0, (len(x), -1))


def check_mask(mask: Tensor, num_clips: int, num_patches: int) -> None:
    """ValueError for a mask of another shape, or that hides more in one clip than in another."""
    counts = sorted(set(mask.sum(dim=1).tolist()))
    if mask.shape != (num_clips, num_patches) or len(counts) > 1:
        raise ValueError(
            f"got a mask {tuple(mask.shape)} that hides {counts} patches of a clip; wanted "
            f"{(num_clips, num_patches)}, as many hidden in every clip; try draw_masks"
        )


def num_values(target: str, patch: Grid, channels: int) -> int:
    """Numbers to predict of a patch."""
    return hog_values(patch, channels) if target == "hog" else channels * patch[0] * patch[1] * patch[2]


def patchify(clip: Tensor, patch: Grid) -> Tensor:
    """Clip (B, C, T, H, W) -> patches (B, N, P, C), T-major, in the order that VideoMAE's decoder predicts.

    ValueError for a clip that patches of (t, h, w) do not fill.
    """
    sizes = list(zip(clip.shape[2:], patch, strict=True))
    if any(size % part for size, part in sizes):
        raise ValueError(
            f"got a clip (T, H, W) = {tuple(clip.shape[2:])}; wanted multiples of the patch {patch}; try "
            f"{tuple(max(size - size % part, part) for size, part in sizes)}"
        )
    t, h, w = patch
    x = clip.unflatten(4, (-1, w)).unflatten(3, (-1, h)).unflatten(2, (-1, t))
    # (B, C, T', t, H', h, W', w) -> (B, T', H', W', t, h, w, C) -> (B, N, P, C)
    return x.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4, 6).flatten(1, 3)


def unpatchify(patches: Tensor, patch: Grid, grid: Grid) -> Tensor:
    """The inverse of `patchify`: patches (B, N, P, C) of `grid` -> clip (B, C, T, H, W)."""
    x = patches.unflatten(1, grid).unflatten(4, patch)
    # (B, T', H', W', t, h, w, C) -> (B, C, T', t, H', h, W', w) -> (B, C, T, H, W)
    return x.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of each patch (B, N, P, C) -> twice (B, N, 1, C)."""
    return patches.mean(dim=2, keepdim=True), patches.std(dim=2, keepdim=True) + _EPS


def pixel_targets(clip: Tensor, mask: Tensor, patch: Grid, *, normalize: bool) -> Tensor:
    """What a masked model with the target "pixels" shall predict: those of the hidden patches (B, M, P*C).

    normalize: each channel of each patch has its mean subtracted and is divided by its standard deviation
    (MAE, section 3, "reconstruction target").
    """
    patches = patchify(clip, patch)
    if normalize:
        mean, std = patch_statistics(patches)
        patches = (patches - mean) / std
    return chosen(patches.flatten(2), mask)


def hog_targets(clip: Tensor, mask: Tensor, patch: Grid) -> Tensor:
    """What a masked model with the target "hog" shall predict: of the hidden patches (B, M, C*9*cells)."""
    return chosen(hog_patches(clip, patch), mask)


def without_detail(wanted: Tensor, target: str, channels: int) -> Tensor:
    """Of each hidden patch (B, M, values) its mean colour everywhere, or in each cell and colour of its "hog"
    the mean of all directions: what can be said of it without knowing what is inside."""
    if target == "hog":
        return wanted.unflatten(2, (channels, BINS, -1)).mean(dim=3, keepdim=True).expand(
            -1, -1, -1, BINS, -1).flatten(2)  # fmt: skip
    colours = wanted.unflatten(2, (-1, channels))
    return colours.mean(dim=2, keepdim=True).expand_as(colours).flatten(2)


def hide(clip: Tensor, mask: Tensor, patch: Grid) -> Tensor:
    """The clip with its hidden patches at 0."""
    patches = patchify(clip, patch).clone()
    patches[mask] = 0
    return unpatchify(patches, patch, _grid(clip, patch))


def paint(clip: Tensor, mask: Tensor, predicted: Tensor, patch: Grid, *, normalized: bool) -> Tensor:
    """The clip with what was predicted (B, M, P*C) in the place of its hidden patches.

    Normalised predictions tell nothing of a patch's mean and contrast: these are taken from the clip.
    """
    patches = patchify(clip, patch).clone()
    pixels = predicted.unflatten(2, tuple(patches.shape[2:]))
    if normalized:
        mean, std = (chosen(part.flatten(2), mask).unsqueeze(2) for part in patch_statistics(patches))
        pixels = pixels * std + mean
    patches[mask] = pixels.flatten(0, 1).to(patches.dtype)
    return unpatchify(patches, patch, _grid(clip, patch))


def paint_hog(clip: Tensor, mask: Tensor, predicted: Tensor, patch: Grid) -> tuple[Tensor, Tensor]:
    """Pictures of the clip's histograms of gradients (`draw_hog`), and of them with those that were predicted
    (B, M, values) in the place of the hidden ones."""
    true = hog_patches(clip, patch)
    painted = true.clone()
    painted[mask] = predicted.flatten(0, 1).to(painted.dtype)
    size = (patch, _grid(clip, patch), clip.shape[1])
    return draw_hog(true, *size), draw_hog(painted, *size)


def _grid(clip: Tensor, patch: Grid) -> Grid:
    return triple([size // part for size, part in zip(clip.shape[2:], patch, strict=True)])
