"""tools/complexity.py: its numbers add up, agree with fvcore's, and answer to the options."""

import subprocess
import sys
from pathlib import Path

import pytest
import simplejson
import torch
from fvcore.nn import ActivationCountAnalysis

import vidformers as vf
from tests.models.tiny import REPRESENTATIVES, tiny, tiny_clip
from tests.warm_processes import ROOT, run_script
from vidformers.analysis.complexity import count_by_module, count_flops, count_parameters
from vidformers.analysis.costs import layer_table, stage_costs, training_memory
from vidformers.engine.published import published_config
from vidformers.layers.attention import by_definition

TOOL = ROOT / "tools" / "complexity.py"


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "costs.json"
    command = ["mvit_tiny", "--batch", "2", "--size", "48", "--json", str(file)]
    result = subprocess.run([sys.executable, TOOL, *command], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    numbers = simplejson.loads(file.read_text())
    model = vf.create_model("mvit_tiny", image_size=48)
    assert numbers["clip"] == [8, 48, 48]
    assert numbers["parameters"] == count_parameters(model)
    assert numbers["flops_per_view"] == pytest.approx(
        count_flops(model, (1, 3, 8, 48, 48))["total"], rel=1e-4
    )
    assert numbers["views"] is None and "how many views" in result.stdout
    assert numbers["memory"]["forward_peak"] > 2 * 3 * 8 * 48 * 48
    for stage in ("stem", "stage 1", "head", "blocks.1", "#activations"):
        assert stage in result.stdout
    assert run_script(TOOL, "mvit_tniy").stderr.startswith(
        "complexity.py: no model is named 'mvit_tniy'; did you mean"
    )
    weights = run_script(TOOL, str(file))  # any file stands for a checkpoint
    assert weights.returncode == 1 and "wanted the name of a model" in weights.stderr


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_stages_add_up(name: str) -> None:
    with torch.device("meta"):
        model = tiny(name)
    clip = tiny_clip(name)[:1].shape
    stages = stage_costs(model, clip)
    assert [s.name for s in stages][0 :: len(stages) - 1] == ["stem", "head"]
    assert sum(s.parameters for s in stages) == count_parameters(model)
    flops, activations = count_by_module(model, clip)
    assert (
        sum(s.flops for s in stages) == flops[""] == pytest.approx(count_flops(model, clip)["total"], abs=99)
    )
    assert sum(s.activations for s in stages) == activations[""]
    for stage in stages:
        assert stage.parameters > 0 and stage.flops > 0 and stage.activations > 0


@pytest.mark.parametrize("name", ["mvit_tiny", "uniformer_tiny", "pvt_v2_tiny"])
def test_activations_are_fvcores(name: str) -> None:
    """fvcore has no rule for fused attention: both of its products are counted here, as it counts them apart.

    (Not so of Swin, whose shifted windows are computed in parts where they are run.)
    """
    model, clip = tiny(name).eval(), tiny_clip(name)[:1]
    analysis = ActivationCountAnalysis(model, clip)
    products = []

    def attention(inputs, outputs):
        query, key, value = (tensor.type().sizes() for tensor in inputs[:3])
        products.append(query[0] * query[1] * query[2] * (key[-2] + value[-1]))
        return products[-1]

    analysis.set_op_handle("aten::scaled_dot_product_attention", attention)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with torch.no_grad(), by_definition():
        theirs = analysis.total()
    with torch.device("meta"):
        on_meta = tiny(name)
    assert products
    assert count_by_module(on_meta, clip.shape)[1][""] == pytest.approx(theirs, rel=1e-6)


def test_layer_table() -> None:
    with torch.device("meta"):
        model = tiny("swin_tiny")
    table = layer_table(model, tiny_clip("swin_tiny")[:1].shape, depth=1)
    assert "| layers" in table and "layers.0" not in table
    assert "layers.0.blocks.0.attn" in layer_table(model, tiny_clip("swin_tiny")[:1].shape, depth=5)


def test_published_views() -> None:
    for name, file, views in (
        ("mvit_v2_s_16x4", "mvit_v2_s_16x4.yaml", 5),
        ("swin3d_t", "swin3d_t_32x2.yaml", 4),
        ("mvit_b_16x4", "mvit_b_16x4.yaml", 5),
    ):
        found = published_config(name)
        assert found and (found[0], found[1].TEST.NUM_ENSEMBLE_VIEWS) == (file, views)
    assert published_config("swin_b") is None
    assert published_config("mvit_b_16") is None


@pytest.mark.parametrize("name", vf.list_models("*_tiny"))
def test_training_memory_is_what_autograd_keeps(name: str) -> None:
    """Against a real step: the same tensors, counted while they have values."""
    arguments = tiny(name).metadata.model_arguments
    estimate = training_memory(name, tiny_clip(name).shape, **arguments)
    model, clip, kept = tiny(name).train(), tiny_clip(name), {}
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}

    def remember(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        model(clip)
    real = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)
    assert estimate.kept_for_backward == pytest.approx(real, rel=0.08)  # masks are kept from the step before
    assert estimate.parameters == 4 * count_parameters(model)
    assert estimate.optimizer == 2 * estimate.gradients
    assert estimate.total > estimate.kept_for_backward > 0
