"""Each configs/*_pretrain*.yaml builds its masked model; the config that fine-tunes it takes the encoder."""

from pathlib import Path

import pytest
import torch

import vidformers as vf
from vidformers.config import load_config
from vidformers.engine.model import build_model
from vidformers.engine.pretrain import build_masked_model
from vidformers.models import MaskedAutoencoder, MaskedMViT

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PRETRAINING = sorted(path.stem for path in CONFIGS.glob("*pretrain*.yaml"))


@pytest.mark.parametrize("name", PRETRAINING)
def test_it_builds_a_masked_model_and_its_fine_tuning_has_the_same_encoder(name):
    cfg = load_config(CONFIGS / f"{name}.yaml")
    assert cfg.PRETRAIN.ENABLE
    tuned_cfg = load_config(CONFIGS / f"{name.replace('_pretrain', '')}.yaml")
    with torch.device("meta"):
        masked, tuned = build_masked_model(cfg), build_model(tuned_cfg)
    assert isinstance(masked, MaskedMViT if "mvit" in name else MaskedAutoencoder)
    ours, theirs = (
        {key for key in model.state_dict() if not key.startswith(("norm.", "fc_norm.", "head."))}
        for model in (masked.encoder, tuned)
    )
    assert ours == theirs


@pytest.mark.parametrize("name", ["motion_mvit_pretrain_tiny", "mvit_v2_s_16x4_pretrain"])
def test_the_encoder_loads(name):
    """Of MaskFeat's, fine-tuning pools the last stage once more: its position tables are resized."""
    state = build_masked_model(load_config(CONFIGS / f"{name}.yaml")).state_dict()
    tuned = build_model(load_config(CONFIGS / f"{name.replace('_pretrain', '')}.yaml"))
    info = vf.load_weights(tuned, {"model": state, "vidformers": vf.__version__}, strict=False)
    assert info.missing == ["head.projection.weight", "head.projection.bias"] and not info.unexpected
    resized = {"blocks.15.attn.rel_pos_h", "blocks.15.attn.rel_pos_w"} if "v2_s" in name else set()
    assert set(info.resized) == resized
    name = "blocks.1.mlp.fc1.weight"
    assert torch.equal(tuned.state_dict()[name], state[f"encoder.{name}"])
