"""Masked autoencoders: the encoder sees visible patches alone, the loss hidden ones alone; official names."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vidformers as vf
from vidformers.data.masking import draw_masks
from vidformers.models.masked_autoencoder import (
    MaskedAutoencoder,
    hide,
    hog_targets,
    paint,
    paint_hog,
    patchify,
    pixel_targets,
    unpatchify,
    without_detail,
)

GRID, PATCH = (2, 4, 4), (2, 8, 8)
SMALL = {"num_frames": 4, "image_size": 32, "num_classes": 5, "embed_dim": 24, "depth": 2, "num_heads": 3}
ENCODERS = {
    "videomae": ("videomae_b", {"patch_kernel": PATCH, "patch_stride": PATCH}),
    "class token": ("vit_tiny", {}),
    "joint positions": ("vit_tiny", {"class_token": False, "position_embedding": "joint"}),
}


def make(kind: str = "videomae", **overrides) -> MaskedAutoencoder:
    name, arguments = ENCODERS[kind]
    torch.manual_seed(0)
    encoder = vf.create_model(name, **{**SMALL, **arguments, **overrides})
    model = MaskedAutoencoder(encoder, decoder_dim=16, decoder_depth=2, decoder_heads=2)
    for parameter in model.parameters():  # no bias at 0, no two patches alike
        nn.init.normal_(parameter, std=0.2)
    return model


def clips_and_masks(ratio: float = 0.75, masking: str = "random") -> tuple[Tensor, Tensor]:
    clips = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    return clips, draw_masks(masking, ratio, GRID, 2, np.random.default_rng(2))


@pytest.mark.parametrize("kind", ENCODERS)
def test_with_nothing_hidden_the_encoder_is_the_full_one(kind):
    model = make(kind).eval()
    clips, _ = clips_and_masks()
    with torch.no_grad():
        tokens, grid = model.encode(clips, torch.zeros(2, 32, dtype=torch.bool))
        full = model.encoder.forward_features(clips)  # its norm is the one that serves the decoder
    assert grid == GRID
    torch.testing.assert_close(tokens, full.flatten(1, 3))


@pytest.mark.parametrize("kind", ENCODERS)
def test_hidden_pixels_change_nothing_and_visible_ones_do(kind):
    model = make(kind).eval()
    clips, mask = clips_and_masks()
    hidden, visible = (patchify(clips, PATCH).clone() for _ in range(2))
    hidden[mask] = 7.0
    visible[~mask] = 7.0
    with torch.no_grad():
        expected = model(clips, mask)
        assert expected.shape == (2, 24, 2 * 8 * 8 * 3)
        torch.testing.assert_close(model(unpatchify(hidden, PATCH, GRID), mask), expected, atol=0, rtol=0)
        assert (model(unpatchify(visible, PATCH, GRID), mask) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("masking", ["tube", "random"])
def test_the_gradient_reaches_every_parameter(kind, masking):
    model = make(kind)
    clips, mask = clips_and_masks(masking=masking)
    target = pixel_targets(clips, mask, PATCH, normalize=True)
    nn.functional.mse_loss(model(clips, mask), target).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_predictions_stand_in_the_order_of_the_hidden_patches():
    """Each is that of the token's own place: a decoder that sees places alone tells them apart."""
    model = make().eval()
    clips, mask = clips_and_masks()
    with torch.no_grad():
        for block in model.decoder.blocks:  # no token sees another
            block.attn.proj.weight.zero_()
            block.attn.proj.bias.zero_()
        predicted = torch.zeros(2, 32, 384)
        predicted[mask] = model(clips, mask).flatten(0, 1)
    both = mask[0] & mask[1]
    assert both.sum() > 10
    torch.testing.assert_close(predicted[0, both], predicted[1, both])
    assert (predicted[0, both][1:] - predicted[0, both][:-1]).abs().amax(dim=1).min() > 1e-3


def test_the_targets_are_the_hidden_patches_alone_and_normalised_a_patch_and_channel():
    clips, mask = clips_and_masks()
    targets = pixel_targets(clips, mask, PATCH, normalize=True).unflatten(2, (128, 3))
    assert targets.shape == (2, 24, 128, 3)
    torch.testing.assert_close(targets.mean(dim=2), torch.zeros(2, 24, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(targets.std(dim=2), torch.ones(2, 24, 3), atol=1e-4, rtol=0)
    # The first hidden patch of the second clip, cut out by hand.
    number = int(mask[1].nonzero()[0])
    t, h, w = np.unravel_index(number, GRID)
    pixels = clips[1, :, 2 * t : 2 * t + 2, 8 * h : 8 * h + 8, 8 * w : 8 * w + 8]
    plain = pixel_targets(clips, mask, PATCH, normalize=False)
    assert torch.equal(plain[1, 0], pixels.permute(1, 2, 3, 0).flatten())
    moved = patchify(clips, PATCH).clone()
    moved[~mask] += 1
    changed = pixel_targets(unpatchify(moved, PATCH, GRID), mask, PATCH, normalize=False)
    assert torch.equal(changed, plain)


def test_patches_are_put_back():
    clips, _ = clips_and_masks()
    assert torch.equal(unpatchify(patchify(clips, PATCH), PATCH, GRID), clips)
    with pytest.raises(ValueError, match=r"multiples of the patch \(2, 8, 8\); try \(4, 32, 24\)"):
        patchify(clips[..., :30], PATCH)


@pytest.mark.parametrize("normalized", [True, False])
def test_the_true_pixels_paint_the_clip(normalized):
    clips, mask = clips_and_masks()
    targets = pixel_targets(clips, mask, PATCH, normalize=normalized)
    torch.testing.assert_close(paint(clips, mask, targets, PATCH, normalized=normalized), clips)
    hidden = hide(clips, mask, PATCH)
    assert (patchify(hidden, PATCH)[mask] == 0).all()
    assert torch.equal(patchify(hidden, PATCH)[~mask], patchify(clips, PATCH)[~mask])


def test_histograms_of_gradients_are_predicted_and_painted():
    name, arguments = ENCODERS["videomae"]
    encoder = vf.create_model(name, **{**SMALL, **arguments})
    model = MaskedAutoencoder(encoder, decoder_dim=16, decoder_depth=1, decoder_heads=2, target="hog")
    clips, mask = clips_and_masks()
    targets = hog_targets(clips, mask, PATCH)
    assert model(clips, mask).shape == targets.shape == (2, 24, 3 * 9)
    true, painted = paint_hog(clips, mask, targets, PATCH)
    assert torch.equal(true, painted) and true.shape == (2, 3, 2, 32, 32)
    blank = paint_hog(clips, mask, torch.zeros_like(targets), PATCH)[1][:, :, ::1]
    cells = blank.unflatten(4, (4, 8)).unflatten(3, (4, 8)).sum(dim=(1, 4, 6)).flatten(1)
    assert ((cells == 0) == mask).all()
    with pytest.raises(ValueError, match="target='hogs' is not one of"):
        MaskedAutoencoder(vf.create_model(name, **{**SMALL, **arguments}), target="hogs")


def test_what_can_be_said_without_any_detail():
    clips, mask = clips_and_masks()
    pixels = pixel_targets(clips, mask, PATCH, normalize=False)
    plain = without_detail(pixels, "pixels", 3)
    wanted = patchify(clips, PATCH)[0][mask[0]].mean(dim=1)  # (M, C)
    torch.testing.assert_close(plain[0].unflatten(1, (-1, 3))[:, 5], wanted)
    cells = hog_targets(clips, mask, PATCH)
    torch.testing.assert_close(
        without_detail(cells, "hog", 3)[0, 0, :9], cells[0, 0, :9].mean().expand(9), atol=1e-6, rtol=1e-5
    )


def test_names_and_sizes_are_those_of_videomaes_pretraining():
    """94.2 M parameters: those of the official pretrain_videomae_base_patch16_224."""
    with torch.device("meta"):
        model = MaskedAutoencoder(vf.create_model("videomae_b"))
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes["encoder.patch_embed.proj.weight"] == (768, 3, 2, 16, 16)
    assert shapes["encoder.norm.weight"] == (768,) and shapes["encoder_to_decoder.weight"] == (384, 768)
    assert shapes["mask_token"] == (1, 1, 384) and shapes["decoder.head.weight"] == (1536, 384)
    block = {
        "norm1.weight": (384,),
        "norm1.bias": (384,),
        "attn.q_bias": (384,),
        "attn.v_bias": (384,),
        "attn.qkv.weight": (1152, 384),
        "attn.proj.weight": (384, 384),
        "attn.proj.bias": (384,),
        "norm2.weight": (384,),
        "norm2.bias": (384,),
        "mlp.fc1.weight": (1536, 384),
        "mlp.fc1.bias": (1536,),
        "mlp.fc2.weight": (384, 1536),
        "mlp.fc2.bias": (384,),
    }
    found = {name: shape for name, shape in shapes.items() if name.startswith("decoder.blocks.3.")}
    assert found == {f"decoder.blocks.3.{name}": shape for name, shape in block.items()}
    assert not [name for name in shapes if name.startswith("decoder.blocks.4.") or "fc_norm" in name]
    assert not [name for name in shapes if name.startswith("encoder.head")]
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 94.2


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("ours", [True, False])
def test_the_encoder_is_what_fine_tuning_starts_from(kind, ours):
    """Both a run's own checkpoint and a bare state dict, as VideoMAE publishes them."""
    pretrained = make(kind)
    name, arguments = ENCODERS[kind]
    model = vf.create_model(name, **{**SMALL, **arguments})
    state = {"model": pretrained.state_dict(), **({"vidformers": vf.__version__} if ours else {})}
    info = vf.load_weights(model, state, strict=False)
    assert info.source == "videomae" and info.unexpected == []
    assert sorted(info.missing) == ["head.projection.bias", "head.projection.weight"]
    loaded, taken = model.state_dict(), pretrained.encoder.state_dict()
    for entry, value in taken.items():
        if not entry.startswith("norm."):  # the last norm served the decoder
            assert torch.equal(loaded[entry], value), entry
    last = "fc_norm" if "fc_norm.weight" in loaded else "norm"
    assert (loaded[f"{last}.weight"] == 1).all() and not loaded[f"{last}.bias"].any()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"attention": "divided"}, "wanted 'joint'"),
        ({"patch_kernel": (3, 8, 8)}, "patches that do not overlap"),
    ],
)
def test_an_encoder_that_cannot_be_masked_is_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        make("class token", **overrides)


def test_a_mask_that_does_not_fit_is_refused():
    model, (clips, mask) = make(), clips_and_masks()
    uneven = mask.clone()
    uneven[0, int((~mask[0]).nonzero()[0])] = True
    for wrong in (mask[:, :-1], uneven):
        with pytest.raises(ValueError, match="as many hidden in every clip"):
            model(clips, wrong)
