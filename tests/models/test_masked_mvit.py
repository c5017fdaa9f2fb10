"""Masked MViT: what is hidden is not seen, PySlowFast's sizes, and fine-tuning starts from the encoder."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vidformers as vf
from vidformers.data.masking import draw_masks
from vidformers.models.masked_autoencoder import hog_targets, patchify, pixel_targets, unpatchify
from vidformers.models.masked_mvit import MaskedMViT

GRID, PATCH = (2, 2, 2), (2, 16, 16)
# Kernels as large as their strides: no pixel of a hidden cell reaches another.
ENCODERS = {
    "v1": {"patch_kernel": (2, 4, 4), "patch_padding": (0, 0, 0)},
    "v2, no class token": {
        "patch_kernel": (2, 4, 4),
        "patch_padding": (0, 0, 0),
        "dim_mul_in_attention": True,
        "residual_pooling": True,
        "rel_pos_spatial": True,
        "rel_pos_temporal": True,
        "position_embedding": "none",
        "class_token": False,
    },
    "overlapping": {},
}


def make(kind: str = "v1", decoder_depth: int = 1, target: str = "pixels", **overrides) -> MaskedMViT:
    torch.manual_seed(0)
    arguments = {"num_frames": 4, "image_size": 32, "num_classes": 5, "embed_dim": 16, "num_heads": 1}
    encoder = vf.create_model("mvit_tiny", **{**arguments, **ENCODERS[kind], **overrides})
    model = MaskedMViT(encoder, decoder_dim=16, decoder_depth=decoder_depth, decoder_heads=2, target=target)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def clips_and_masks() -> tuple[Tensor, Tensor]:
    clips = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    return clips, draw_masks("random", 0.5, GRID, 2, np.random.default_rng(2))


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("kind", ["v1", "v2, no class token"])
def test_hidden_pixels_change_nothing_and_visible_ones_do(kind, depth):
    model = make(kind, depth).eval()
    assert model.grid == GRID and model.patch == PATCH
    clips, mask = clips_and_masks()
    hidden, visible = (patchify(clips, PATCH).clone() for _ in range(2))
    hidden[mask] = 7.0
    visible[~mask] = 7.0
    with torch.no_grad():
        expected = model(clips, mask)
        assert expected.shape == (2, 4, 2 * 16 * 16 * 3)
        torch.testing.assert_close(model(unpatchify(hidden, PATCH, GRID), mask), expected, atol=0, rtol=0)
        assert (model(unpatchify(visible, PATCH, GRID), mask) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("kind", ENCODERS)
def test_the_gradient_reaches_every_parameter(kind, depth):
    model = make(kind, depth)
    clips, mask = clips_and_masks()
    target = pixel_targets(clips, mask, PATCH, normalize=True)
    nn.functional.mse_loss(model(clips, mask), target).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_predictions_stand_in_the_order_of_the_hidden_cells():
    """With all but the positions alike, a cell's prediction is that of its own place."""
    model = make("v1", 0).eval()
    clips = torch.zeros(2, 3, 4, 32, 32)
    first, second = (torch.tensor([[number in hidden for number in range(8)]]) for hidden in ((1, 6), (6, 7)))
    nn.init.zeros_(model.mask_token)
    with torch.no_grad():
        for name, parameter in model.encoder.named_parameters():
            if name.startswith("patch_embed"):  # so that a hidden cell looks as a visible one
                parameter.zero_()
        one, other = (model(clips[:1], mask)[0] for mask in (first, second))
    torch.testing.assert_close(one[1], other[0])
    assert (one[0] - one[1]).abs().max() > 1e-3


def test_maskfeats_recipe_has_pyslowfasts_sizes():
    """k400_MVITv2_S_16x4_MaskFeat_PT.yaml: a last map of 8 x 14 x 14, each cell 2 x 2 histograms of 27."""
    strides = [(i, 1, 2, 2) if i in (1, 3) else (i, 1, 1, 1) for i in range(16)]
    with torch.device("meta"):
        encoder = vf.create_model("mvit_v2_s_16x4", pool_q_stride=strides)
        model = MaskedMViT(encoder, decoder_depth=0, target="hog")
    assert model.grid == (8, 14, 14) and model.patch == (2, 16, 16)
    assert model.mask_token.shape == (1, 1, 96)
    assert tuple(model.decoder.head.weight.shape) == (2 * 2 * 9 * 3, 768)
    assert not any(name.startswith("encoder.norm.") for name in model.state_dict())


def test_histograms_of_gradients_are_predicted():
    clips, mask = clips_and_masks()
    targets = hog_targets(clips, mask, PATCH)
    assert make(target="hog")(clips, mask).shape == targets.shape == (2, 4, 4 * 9 * 3)


def as_pyslowfast(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our pre-trained weights, with a Linear head, under the names of PySlowFast's MaskMViT."""
    names = {"decoder.norm.": "pred_head.transforms.0.0.", "decoder.head.": "pred_head.projections.0."}
    renamed = {}
    for name, tensor in state.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        renamed[name.removeprefix("encoder.")] = tensor
    return renamed


@pytest.mark.parametrize("form", ["ours", "ours, with a decoder", "bare", "pyslowfast"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_the_encoder_is_what_fine_tuning_starts_from(kind, form):
    pretrained = make(kind, 1 if form == "ours, with a decoder" else 0)
    size = {"num_frames": 4, "image_size": 32, "num_classes": 7, "embed_dim": 16, "num_heads": 1}
    model = vf.create_model("mvit_tiny", **{**size, **ENCODERS[kind]})
    state = pretrained.state_dict()
    checkpoint = {"model": as_pyslowfast(state) if form == "pyslowfast" else state}
    if form.startswith("ours"):
        checkpoint["vidformers"] = vf.__version__
    info = vf.load_weights(model, checkpoint, strict=False)
    assert info.unexpected == [] and info.missing == ["head.projection.weight", "head.projection.bias"]
    loaded = model.state_dict()
    for name, value in pretrained.encoder.state_dict().items():
        if not name.startswith("norm."):
            assert torch.equal(loaded[name], value), name
    assert (loaded["norm.weight"] == 1).all() and (loaded["norm.bias"] == 0.02).all()


def test_a_map_that_is_pooled_once_more_for_fine_tuning_gets_its_tables_resized():
    """As PySlowFast's MaskFeat: the last pooling of the fine-tuned model has no stride in pre-training."""
    rel_pos = ENCODERS["v2, no class token"]
    pretrained = make("v2, no class token", 0, depth=5, pool_q_stride=((1, 1, 2, 2), (3, 1, 1, 1)))
    assert pretrained.grid == (2, 4, 4)
    size = {"num_frames": 4, "image_size": 32, "embed_dim": 16, "num_heads": 1, "depth": 5}
    model = vf.create_model("mvit_tiny", **size, **rel_pos)
    info = vf.load_weights(model, {"model": pretrained.state_dict()}, strict=False)
    assert info.missing == ["head.projection.weight", "head.projection.bias"] and not info.unexpected
    assert info.resized and all(".rel_pos_" in name for name in info.resized)


def test_what_does_not_fit_is_refused():
    model, (clips, mask) = make(), clips_and_masks()
    with pytest.raises(ValueError, match="as many hidden in every clip"):
        model(clips, mask[:, :-1])
    with pytest.raises(ValueError, match=r"got a clip of \(2, 16, 16\) tokens; .* wanted \(2, 8, 8\)"):
        model(torch.zeros(2, 3, 4, 64, 64), mask)
    with pytest.raises(
        ValueError, match=r"\(2, 9, 9\) tokens are pooled to \(2, 3, 3\)|whole tokens in each"
    ):
        make("v1", image_size=36, num_heads=1, pool_q_stride=((1, 1, 2, 2),))
