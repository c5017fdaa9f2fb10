"""What load_weights advises when a checkpoint does not fit: the registered model that it does fit."""

import pytest
import torch
from torch import Tensor

from tests.golden_json import load_json
from tests.models.tiny import tiny
from vidformers.checkpoints import load_weights
from vidformers.models import create_model


def published(manifest: str) -> dict[str, Tensor]:
    """Every name and shape of a published file, without the values."""
    shapes = load_json(f"manifests/{manifest}.json")["state_dict"]
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def of_model(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        return dict(create_model(name).state_dict())


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("manifest", "model", "fitting"),
    [
        ("slowfast/Kinetics__MVITv2_B_32x3", "mvit_tiny", "create_model('mvit_v2_b_32x3')"),
        ("slowfast/SSv2__MVITv2_S_16x4", "mvit_tiny", "create_model('mvit_v2_s_16x4', num_classes=174)"),
        ("slowfast/Kinetics__REV_MVIT_B_16x4_CONV", "rev_mvit_tiny", "create_model('rev_mvit_b_16x4')"),
        # Two that differ in padding, which has no weights, and one with longer windows, so resized.
        (
            "swin3d/swin3d_b",
            "swin_tiny",
            "create_model('swin3d_b') or create_model('swin_b') "
            "or create_model('swin3d_b_ssv2', num_classes=400)",
        ),
        ("videomae/videomae_vit_base_patch16_224", "vit_tiny", "create_model('videomae_b')"),
        (
            "timesformer/timesformer_base_divst_8x224",
            "vit_tiny",
            "create_model('timesformer_b') or create_model('timesformer_l') "
            "or create_model('timesformer_hr')",
        ),
        # Of images: inflated.
        ("hiera/hiera_base_224", "hiera_tiny", "create_model('hiera_b', num_classes=1000)"),
        ("maxvit/maxvit_base_tf_224", "maxvit_tiny", "create_model('maxvit_b', num_classes=1000)"),
    ],
)
def test_another_size(manifest: str, model: str, fitting: str, strict: bool) -> None:
    with pytest.raises(ValueError, match=r"does not fit .* parameters match; \d+ ") as caught:
        load_weights(tiny(model), published(manifest), strict=strict)
    assert str(caught.value).endswith(f" This checkpoint fits {fitting}.")


def test_small_against_base() -> None:
    """The whole message, of the pair that is confused most."""
    model = create_model("mvit_v2_s_16x4")
    with pytest.raises(ValueError) as caught:
        load_weights(model, published("slowfast/Kinetics__MVITv2_B_32x3"))
    message = str(caught.value)
    assert message.startswith("the checkpoint (slowfast names) does not fit MViT: ")
    first = "blocks.1.attn.qkv.weight ((288, 96) in the checkpoint, (576, 96) in the model)"
    assert f"60 of another shape: {first}" in message
    assert message.endswith("This checkpoint fits create_model('mvit_v2_b_32x3').")


@pytest.mark.parametrize(
    ("manifest", "model", "found", "fitting"),
    [
        ("videomae/videomae_vit_base_patch16_224", "swin_tiny", "of a VisionTransformer", "videomae_b"),
        ("uniformer/uniformer_small_16x224", "mvit_tiny", "of a UniFormer", "uniformer_s"),
        # Their names are also PySlowFast's, so that only the shapes tell the family.
        ("hiera/hiera_large_16x224", "mvit_tiny", "does not fit MViT", "hiera_l"),
        ("slowfast/masked_ssl__k400_VIT_B_16x4_FT", "swin_tiny", r"\(slowfast\)", "vit_b"),
    ],
)
def test_another_family(manifest: str, model: str, found: str, fitting: str) -> None:
    with pytest.raises(ValueError, match=found) as caught:
        load_weights(tiny(model), published(manifest))
    assert f"This checkpoint fits create_model('{fitting}')" in str(caught.value)


def test_our_own_names_of_another_family(monkeypatch: pytest.MonkeyPatch) -> None:
    few = ["mvit_tiny", "shuffle_t", "shuffle_s", "swin_t"]  # all of them take seconds
    monkeypatch.setattr("vidformers.checkpoints.fitting.list_models", lambda: few)
    weights = of_model("shuffle_s")
    with pytest.raises(ValueError, match=r"not those of a MViT.* fits create_model\('shuffle_s'\)$"):
        load_weights(tiny("mvit_tiny"), weights)
    with pytest.raises(ValueError, match=r"\(vidformers names\).* fits create_model\('shuffle_s'\)\.$"):
        load_weights(tiny("mvit_tiny"), {"model": weights, "vidformers": "0.1.0"})


def test_nothing_fits() -> None:
    wide = tiny("mvit_tiny", embed_dim=48).state_dict()
    with pytest.raises(ValueError, match=r"of another shape: cls_token .* It fits no registered model"):
        load_weights(tiny("mvit_tiny"), wide)
    shallow = {n: t for n, t in published("swin3d/swin3d_t").items() if "features.6.1." not in n}
    with pytest.raises(ValueError, match=r"of a Swin \(torchvision\)\. It fits no registered model either"):
        load_weights(tiny("mvit_tiny"), shallow)


def test_what_no_checkpoint_holds_is_filled_for_a_model_from_the_meta_device() -> None:
    """VideoMAE's fixed position table is a buffer, computed and not saved."""
    expected = tiny("videomae_b").eval()
    with torch.device("meta"):
        model = tiny("videomae_b").eval()
    load_weights(model.to_empty(device="cpu"), expected.state_dict())
    clip = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(clip), expected(clip), rtol=0, atol=0)
