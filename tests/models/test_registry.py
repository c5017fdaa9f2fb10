"""Names, overrides and their errors; public names of the package."""

import subprocess
import sys

import pytest

import vidformers as vf
from vidformers.models.registry import register_model


def test_list_models() -> None:
    names = vf.list_models("mvit_v2*")
    assert names == sorted(names)
    assert {"mvit_v2_s_16x4", "mvit_v2_l_40x3", "mvit_v2_t"} <= set(names)
    assert "mvit_b_16x4" not in names
    assert set(names) < set(vf.list_models())


def test_unknown_name_and_argument_name_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'mvit_b_16x4'"):
        vf.create_model("mvit_b_16x5")
    with pytest.raises(ValueError, match="did you mean 'drop_path_rate'"):
        vf.create_model("mvit_tiny", droppath_rate=0.1)


def test_model_arguments_merges_sizes_and_defaults() -> None:
    arguments = vf.model_arguments("mvit_v2_l_40x3")
    assert (arguments["num_frames"], arguments["image_size"], arguments["depth"]) == (40, 312, 48)
    assert arguments["mlp_ratio"] == 4.0
    model = vf.create_model("mvit_tiny", num_classes=7, embed_dim=16)
    assert model.head.projection.out_features == 7
    assert model.head.projection.in_features == 64


def test_sizes_are_checked_at_registration() -> None:
    from vidformers.models import MViT

    def wrong_size() -> dict[str, int]:
        return {"dpeth": 3}

    with pytest.raises(ValueError, match="did you mean 'depth'"):
        register_model(MViT)(wrong_size)

    def mvit_tiny() -> dict[str, int]:
        return {}

    with pytest.raises(ValueError, match="registered already"):
        register_model(MViT)(mvit_tiny)


def test_importing_and_creating_is_light() -> None:
    """Their troubles cannot become ours: none of these may be loaded by an import and a model."""
    code = (
        "import sys, vidformers as vf; vf.create_model('mvit_tiny'); "
        "heavy = {'torchvision', 'pytorchvideo', 'av', 'decord', 'fvcore', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_public_name() -> None:
    assert "load_weights" in dir(vf)
    with pytest.raises(AttributeError, match="no attribute 'create_modle'"):
        _ = vf.create_modle  # type: ignore[attr-defined]
