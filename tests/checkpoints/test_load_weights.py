"""load_weights: where weights come from, what is refused, what is repaired."""

import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.golden import build, load_case
from tests.golden_json import load_json
from tests.models.tiny import tiny
from vidformers.checkpoints import load_weights, read_checkpoint, to_our_names
from vidformers.checkpoints.adapt import adapt
from vidformers.models import MViT, create_model

V2 = {"rel_pos_spatial": True, "rel_pos_temporal": True, "position_embedding": "none"}


def mvit(**arguments: Any) -> nn.Module:
    return tiny("mvit_tiny", **arguments).eval()


def clip(num_frames: int = 4, size: int = 32) -> Tensor:
    return torch.randn(2, 3, num_frames, size, size, generator=torch.Generator().manual_seed(1))


def randomised(model: nn.Module, seed: int = 1) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


PUBLISHED = [
    ("mvit/mvit_v1_b", "torchvision", "mvit_b_16x4", {}),
    ("mvit/mvit_v2_s", "torchvision", "mvit_v2_s_16x4", {}),
    ("mvit/ptv_mvit_base_16x4", "pytorchvideo", "mvit_b_16x4", {}),
    ("mvit/ptv_mvit_base_32x3", "pytorchvideo", "mvit_b_16x4", {"num_frames": 32}),
    ("mvit/ptv_mvit_base_16_image", "pytorchvideo", "mvit_b_16", {"position_embedding": "separable"}),
    ("slowfast/Kinetics__MVIT_B_16x4_CONV", "slowfast", "mvit_b_16x4", {}),
    ("slowfast/Kinetics__MVIT_B_32x3_CONV", "slowfast", "mvit_b_32x3", {}),
    ("slowfast/Kinetics__MVITv2_S_16x4", "slowfast", "mvit_v2_s_16x4", {}),
    ("slowfast/Kinetics__MVITv2_B_32x3", "slowfast", "mvit_v2_b_32x3", {}),
    ("slowfast/Kinetics__MVITv2_L_40x3_test", "slowfast", "mvit_v2_l_40x3", {}),
    ("slowfast/SSv2__MVITv2_S_16x4", "slowfast", "mvit_v2_s_16x4", {"num_classes": 174}),
    ("slowfast/ImageNet__MVIT_B_16_CONV", "slowfast", "mvit_b_16", {}),
    ("slowfast/ImageNet__MVITv2_T", "slowfast", "mvit_v2_t", {}),
    ("slowfast/ImageNet__MVITv2_S", "slowfast", "mvit_v2_s", {}),
    ("slowfast/ImageNet__MVITv2_B", "slowfast", "mvit_v2_b", {}),
]


@pytest.mark.parametrize(("manifest", "source", "name", "overrides"), PUBLISHED)
def test_published_checkpoints_fit(manifest: str, source: str, name: str, overrides: dict[str, Any]) -> None:
    """Every name and shape of the published files, without their values."""
    content = load_json(f"manifests/{manifest}.json")
    state = {key: torch.empty(shape, device="meta") for key, shape in content["state_dict"].items()}
    with torch.device("meta"):
        model = create_model(name, **overrides)
    found, converted = to_our_names(state, "MViT")
    assert found == source
    adapted = adapt(converted, model)
    fitted = {key: tuple(tensor.shape) for key, tensor in adapted.state.items()}
    assert fitted == {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert not adapted.resized
    assert sum(p.numel() for p in model.parameters()) == content["num_params"]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_live_torchvision(version: str) -> None:
    from vidformers.compat import prepare_torchvision

    prepare_torchvision()
    from torchvision.models.video.mvit import MSBlockConfig
    from torchvision.models.video.mvit import MViT as TorchvisionMViT

    v2 = version == "v2"
    widths = [(16, 16), (16, 32), (32, 32), (32, 64)] if v2 else [(16, 32), (32, 32), (32, 64), (64, 64)]
    pooled = [[1, 1, 1], [1, 2, 2], [1, 1, 1], [1, 2, 2]] if v2 else [[], [1, 2, 2], [], [1, 2, 2]]
    blocks = [
        MSBlockConfig(
            num_heads=(1, 2, 2, 4)[i],
            input_channels=widths[i][0],
            output_channels=widths[i][1],
            kernel_q=[3, 3, 3] if pooled[i] else [],
            kernel_kv=[3, 3, 3],
            stride_q=pooled[i],
            stride_kv=[1, kv, kv],
        )
        for i, kv in enumerate((4, 2, 2, 1))
    ]
    torch.manual_seed(0)
    theirs = TorchvisionMViT(
        spatial_size=(32, 32),
        temporal_size=4,
        block_setting=blocks,
        residual_pool=v2,
        residual_with_cls_embed=False,
        rel_pos_embed=v2,
        proj_after_attn=v2,
        num_classes=5,
    ).eval()
    randomised(theirs)
    growth = ((1, 2.0), (3, 2.0))
    ours = mvit(
        embed_dim=16,
        dim_mul=growth,
        head_mul=growth,
        dim_mul_in_attention=v2,
        residual_pooling=v2,
        pool_q_stride=[(i, *stride) for i, stride in enumerate(pooled) if stride],
        **(V2 if v2 else {}),
    )
    info = load_weights(ours, theirs.state_dict())
    assert info.source == "torchvision"
    assert set(info.matched) == set(ours.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(clip()), theirs(clip()), atol=1e-5, rtol=1e-5)


def test_live_pytorchvideo() -> None:
    from vidformers.compat import prepare_pytorchvideo

    prepare_pytorchvideo()
    from pytorchvideo.models.vision_transformers import create_multiscale_vision_transformers

    torch.manual_seed(0)
    theirs = create_multiscale_vision_transformers(
        spatial_size=32,
        temporal_size=4,
        depth=4,
        patch_embed_dim=16,
        embed_dim_mul=[[1, 2.0], [3, 2.0]],
        atten_head_mul=[[1, 2.0], [3, 2.0]],
        pool_q_stride_size=[[1, 1, 2, 2], [3, 1, 2, 2]],
        pool_kv_stride_adaptive=[1, 4, 4],
        pool_kvq_kernel=[3, 3, 3],
        head_num_classes=5,
    ).eval()
    randomised(theirs)
    ours = mvit(embed_dim=16)  # which has one qkv Linear where PyTorchVideo has three
    info = load_weights(ours, theirs.state_dict())
    assert info.source == "pytorchvideo"
    with torch.no_grad():
        torch.testing.assert_close(ours(clip()), theirs(clip()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kept", ["pool_q", "_attention_pool_q"])
def test_pytorchvideo_pool_names_with_and_without_duplicates(kept: str) -> None:
    case = load_case("mvit/ptv_mvit_nocls_respool")
    state = case["state_dict"]
    if kept == "pool_q":
        state = {name: tensor for name, tensor in state.items() if "_attention_pool_" not in name}
    else:
        state = {
            name: tensor
            for name, tensor in state.items()
            if not any(f".attn.{part}_{letter}." in name for part in ("pool", "norm") for letter in "qkv")
        }
    assert len(state) < len(case["state_dict"])
    model = build({**case, "state_dict": state})
    with torch.no_grad():
        torch.testing.assert_close(model(case["input"]), case["logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("wrap", "source"),
    [
        (lambda state: state, "slowfast"),
        (lambda state: {"epoch": 3, "model_state": state, "cfg": "MODEL: {}"}, "slowfast"),
        (lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}}, "slowfast"),
        (lambda state: {"model": state, "optimizer": {}, "epoch": 1, "vidformers": "0.1.0"}, "vidformers"),
        (lambda state: {"model": {f"_orig_mod.{k}": v for k, v in state.items()}}, "slowfast"),
        (lambda state: {f"_orig_mod.module.{k}": v for k, v in state.items()}, "slowfast"),
        (lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}, "epoch": 3}, "slowfast"),
        (lambda state: {"model_state_dict": {f"net.{k}": v for k, v in state.items()}}, "slowfast"),
        (lambda state: {"model_ema": {f"backbone.{k}": v for k, v in state.items()}}, "slowfast"),
    ],
)
def test_wrappings_and_files(wrap: Any, source: str, tmp_path: Path) -> None:
    original, model = randomised(mvit()), mvit()
    torch.save(wrap(original.state_dict()), tmp_path / "weights.pyth")
    info = load_weights(model, tmp_path / "weights.pyth")
    assert info.source == source
    assert (info.missing, info.unexpected, info.resized, info.inflated) == ([], [], [], [])
    torch.testing.assert_close(model.state_dict(), original.state_dict(), rtol=0, atol=0)


def test_counters_of_batch_norms_may_be_absent() -> None:
    original, model = randomised(tiny("maxvit_tiny")), tiny("maxvit_tiny")
    state = {k: v for k, v in original.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert load_weights(model, state).missing == []
    del state["stem.norm1.running_mean"]
    with pytest.raises(ValueError, match=r"1 missing from it: stem\.norm1\.running_mean"):
        load_weights(model, state)


def test_whole_numbers_are_no_weights() -> None:
    state = mvit().state_dict()
    state["norm.weight"] = state["norm.weight"].to(torch.int8)
    with pytest.raises(ValueError, match=r"norm\.weight \(of torch.int8: quantized\?\)"):
        load_weights(mvit(), state)


class Derived(MViT):
    pass


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, torch.compile, lambda m: torch.compile(nn.DataParallel(m))]
)
def test_wrapped_and_derived_models(wrap: Any) -> None:
    weights = randomised(mvit()).state_dict()
    model = mvit()
    info = load_weights(wrap(model), weights)
    assert set(info.matched) == set(weights)
    torch.testing.assert_close(model.state_dict(), weights, rtol=0, atol=0)
    model.__class__ = Derived
    assert load_weights(model, weights).source == "slowfast"
    with pytest.raises(ValueError, match="knows no weights for a Linear"):
        load_weights(nn.Linear(1, 1), weights)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "takes a path, a checkpoint or a state dict, not a NoneType"),
        ([1], "not a list"),
        (nn.Linear(1, 1), r"not a Linear; give its state_dict\(\)"),
        ({1: torch.zeros(1)}, "tensors are not under names of parameters; one is under 1"),
        ("s3://bucket/weights.pyth", r"s3://.*nothing here can read \(s3://\); .*register a handler"),
        ("http://localhost:1/weights.pyth", "weights.pyth could not be fetched .*; download it"),
    ],
)
def test_what_is_no_checkpoint(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_weights(mvit(), given)


class Payload:
    def __reduce__(self) -> Any:
        return (print, ("this must not run",))


def test_unsafe_pickles_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights.pyth"
    torch.save({"model_state": {"weight": torch.zeros(1)}, "extra": Payload()}, path)
    with pytest.raises(
        ValueError, match=r"refused because it holds Python objects .*save only its state dict"
    ):
        read_checkpoint(str(path))
    for function in (os.system, print):  # torch says something else of those that it never allows
        payload = type("Payload", (), {"__reduce__": lambda self, f=function: (f, ("echo no",))})
        torch.save({"model_state": {"weight": torch.zeros(1)}, "extra": payload()}, path)
        with pytest.raises(ValueError, match=rf"refused .*\b{function.__name__}\)"):
            read_checkpoint(str(path))
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ValueError, match=r"weights\.pyth is not a readable"):
        read_checkpoint(str(path))
    assert "must not run" not in capsys.readouterr().out


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "page.pth").write_text("<html>404</html>")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    torch.save({"epoch": 3}, tmp_path / "no_weights.pth")
    whole = tmp_path / "whole.pth"
    torch.save(mvit().state_dict(), whole)
    (tmp_path / "cut.pth").write_bytes(whole.read_bytes()[:1000])
    for name in ("empty.pth", "page.pth", "cut.pth"):
        with pytest.raises(ValueError, match=f"{name} is not a readable PyTorch checkpoint"):
            load_weights(mvit(), tmp_path / name)
    with pytest.raises(ValueError, match="holds a Tensor, wanted a dictionary"):
        load_weights(mvit(), tmp_path / "tensor.pth")
    with pytest.raises(ValueError, match=r"no_weights.pth cannot be loaded .*no weights found: .*epoch"):
        load_weights(mvit(), tmp_path / "no_weights.pth")
    with pytest.raises(FileNotFoundError, match=r"absent\.pth does not exist"):
        load_weights(mvit(), tmp_path / "absent.pth")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        load_weights(mvit(), tmp_path)


def test_checkpoint_of_another_model() -> None:
    resnet = {"conv1.weight": torch.zeros(64, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)}
    for strict in (True, False):
        with pytest.raises(ValueError, match=r"conv1.weight.*checkpoint of another model") as caught:
            load_weights(mvit(), resnet, strict=strict)
        assert "\n" not in str(caught.value)
    reversible = create_model("rev_mvit_tiny", embed_dim=8).state_dict()
    with pytest.raises(ValueError, match="of a RevMViT"):
        load_weights(mvit(), reversible)


def test_checkpoint_of_another_size_changes_nothing() -> None:
    model = mvit()
    before = snapshot(model)
    wider = mvit(embed_dim=16).state_dict()
    with pytest.raises(ValueError, match=r"of another shape: .*\(1, 1, 16\) in the checkpoint, \(1, 1, 4\)"):
        load_weights(model, wider, strict=False)
    with pytest.raises(
        ValueError, match=r"missing from it: blocks.0.attn.rel_pos_t.*that the model does not"
    ):
        load_weights(mvit(**V2), before)
    shallow = {name: t for name, t in before.items() if not name.startswith("blocks.3.")}
    with pytest.raises(ValueError, match=r"missing from it: blocks.3.norm1.weight.* and \d+ more"):
        load_weights(model, shallow)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_another_class_count() -> None:
    weights = randomised(mvit(num_classes=9)).state_dict()
    model = mvit()
    head = model.head.projection.weight.clone()
    with pytest.raises(ValueError, match=r"head.projection.weight \(\(9, 16\).* or use strict=False"):
        load_weights(model, weights)
    info = load_weights(model, weights, strict=False)
    assert repr(info) == (
        f"<LoadInfo: {info.source} names, {len(info.matched)} matched, 2 missing (head.projection.weight, "
        "head.projection.bias), 0 unexpected, 0 resized, 0 inflated>"
    )
    assert info.missing == ["head.projection.weight", "head.projection.bias"]
    torch.testing.assert_close(model.head.projection.weight, head)
    torch.testing.assert_close(model.norm.weight, weights["norm.weight"])


def pretrained(name: str, encoder: str, last_norm: str, decoder: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a fine-tuned model under the names that they have in masked pre-training."""
    state = {n: t for n, t in randomised(tiny(name)).state_dict().items() if not n.startswith("head.")}
    norm = {"norm.weight", "norm.bias"} if "norm.weight" in state else {"fc_norm.weight", "fc_norm.bias"}
    renamed = {last_norm + n.rpartition(".")[2] if n in norm else encoder + n: t for n, t in state.items()}
    return {**renamed, **decoder}


@pytest.mark.parametrize(
    ("name", "encoder", "last_norm", "decoder", "norm", "bias"),
    [
        (
            "videomae_b",
            "encoder.",
            "encoder.norm.",
            ["mask_token", "encoder_to_decoder.weight", "decoder.blocks.0.norm1.weight", "decoder.head.bias"],
            "fc_norm",
            0.0,
        ),
        (
            "hiera_b",
            "",
            "encoder_norm.",
            [
                "mask_token",
                "decoder_pos_embed",
                "decoder_blocks.0.norm1.weight",
                "multi_scale_fusion_heads.0.bias",
            ],
            "norm",
            0.02,
        ),
    ],
)
def test_masked_pretraining_to_fine_tune_from(
    name: str, encoder: str, last_norm: str, decoder: list[str], norm: str, bias: float
) -> None:
    """The encoder without the decoder; the last norm, which was the decoder's, and the head start anew."""
    state = pretrained(name, encoder, last_norm, {entry: torch.zeros(3) for entry in decoder})
    model = randomised(tiny(name), seed=2)
    head = model.head.projection.weight.clone()
    info = load_weights(model, {"model": state}, strict=False)
    assert info.missing == ["head.projection.weight", "head.projection.bias"]
    assert not info.unexpected and not info.resized
    torch.testing.assert_close(model.head.projection.weight, head)
    torch.testing.assert_close(model.blocks[1].mlp.fc1.weight, state[f"{encoder}blocks.1.mlp.fc1.weight"])
    found = model.get_submodule(norm)
    assert found.weight.unique().tolist() == [1.0]
    assert found.bias.unique().tolist() == pytest.approx([bias])
    with pytest.raises(
        ValueError, match=r"2 missing from it: head.projection.weight.* load with strict=False"
    ):
        load_weights(model, state)


def test_not_strict_lists_and_logs_what_differs(caplog: pytest.LogCaptureFixture) -> None:
    weights = randomised(mvit()).state_dict()
    del weights["norm.bias"]
    weights["mask_token"] = torch.zeros(1)
    info = load_weights(mvit(), weights, strict=False)
    assert (info.missing, info.unexpected) == (["norm.bias"], ["mask_token"])
    assert "norm.bias" in caplog.text
    assert "mask_token" in caplog.text


def test_models_on_the_meta_device_are_refused() -> None:
    weights = mvit(**V2).state_dict()
    with torch.device("meta"):
        model = mvit(**V2)
    with pytest.raises(ValueError, match="to_empty"):
        load_weights(model, weights)
    model.to_empty(device="cpu")
    load_weights(model, weights)
    with torch.no_grad():
        torch.testing.assert_close(model(clip()), mvit(**V2)(clip()))


def test_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"not one")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install safetensors"):
        read_checkpoint(str(path))
    monkeypatch.undo()
    safetensors = pytest.importorskip("safetensors.torch")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        read_checkpoint(str(path))
    original, model = randomised(mvit()), mvit()
    safetensors.save_file(original.state_dict(), path)
    load_weights(model, path)
    torch.testing.assert_close(model.state_dict(), original.state_dict(), rtol=0, atol=0)


def test_timms_mvit_v2() -> None:
    """Against live timm (1.0.31) the logits differ by 2e-6; here its names are written from PySlowFast's."""
    case = load_case("slowfast/mvit_v2_image")
    state, stage, block = {}, 0, -1
    for name, tensor in case["state_dict"].items():
        if name.endswith(".norm1.weight"):
            number = name.split(".")[1]
            widens = f"blocks.{number}.proj.weight" in case["state_dict"]
            stage, block = (stage + 1, 0) if widens else (stage, block + 1)
        if name.startswith("blocks."):
            name = name.replace(f"blocks.{number}.", f"stages.{stage}.blocks.{block}.")
            name = re.sub(r"(blocks\.\d+)\.proj\.", r"\1.shortcut_proj_attn.", name)
        state[name.replace("head.projection.", "head.fc.")] = (
            tensor.squeeze(2) if tensor.ndim == 5 else tensor
        )
    assert stage > 0 and "stages.1.blocks.0.shortcut_proj_attn.weight" in state
    model = build(case)
    info = load_weights(randomised(model), state)
    assert info.source == "timm" and not info.resized
    with torch.no_grad():
        torch.testing.assert_close(model(case["input"]), case["logits"], atol=1e-5, rtol=0)


def test_timms_hiera() -> None:
    case = load_case("hiera/hiera_image")
    renamed = {"norm": "head.norm", "head.projection": "head.fc"}
    parts = ((name.rpartition("."), tensor) for name, tensor in case["state_dict"].items())
    state = {f"{renamed.get(layer, layer)}{dot}{kind}": tensor for (layer, dot, kind), tensor in parts}
    model = build(case)
    assert load_weights(randomised(model), state).source == "timm"
    with torch.no_grad():
        torch.testing.assert_close(model(case["input"]), case["logits"], atol=1e-5, rtol=0)
