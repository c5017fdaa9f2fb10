"""Every registered model, made small: what a user may count on whichever he picks."""

import pytest
import torch
from torch import nn

import vidformers as vf
from tests.models.tiny import REPRESENTATIVES, tiny, tiny_clip

NAMES = vf.list_models()


@pytest.mark.parametrize("name", NAMES)
def test_builds_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        model = vf.create_model(name)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert model.head.projection.out_features == vf.model_arguments(name)["num_classes"]


@pytest.mark.parametrize("name", NAMES)
def test_weights_fill_a_model_from_the_meta_device(name: str) -> None:
    """In all three ways: what no state dict holds must have its values too."""
    model, clip = tiny(name).eval(), tiny_clip(name)
    with torch.device("meta"):
        assigned, emptied = tiny(name).eval(), tiny(name).eval()
    with torch.no_grad():
        expected = model(clip)
        assigned.load_state_dict(model.state_dict(), assign=True)
        torch.testing.assert_close(assigned(clip), expected, atol=0, rtol=0)
        emptied.to_empty(device="cpu")
        for load in (nn.Module.load_state_dict, vf.load_weights):
            for tensor in (*emptied.parameters(), *emptied.buffers()):  # not what the memory happens to hold
                tensor.fill_(torch.nan if tensor.is_floating_point() else -1)
            load(emptied, model.state_dict())
            torch.testing.assert_close(emptied(clip), expected, atol=0, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_forward_and_backward(name: str) -> None:
    model, clip = tiny(name), tiny_clip(name)
    logits = model(clip)
    assert logits.shape == (2, 5)
    assert torch.isfinite(logits).all()
    logits.square().sum().backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", NAMES)
def test_no_clips_give_no_logits(name: str) -> None:
    """What a filter leaves of a batch may be empty."""
    assert tiny(name).eval()(tiny_clip(name)[:0]).shape == (0, 5)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_the_same_in_train_and_eval_mode(name: str) -> None:
    """Registered sizes have no dropout, and no model ends in a softmax."""
    model, clip = tiny(name).train(), tiny_clip(name)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm3d):  # the one layer that is meant to differ
            module.eval()
    with torch.no_grad():
        trained, evaluated = model(clip), model.eval()(clip)
    torch.testing.assert_close(trained, evaluated)
    assert (evaluated.sum(dim=1) - 1).abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_forward_features(name: str) -> None:
    model, clip = tiny(name).eval(), tiny_clip(name)
    with torch.no_grad():
        features = model.forward_features(clip)
    assert features.ndim == 5
    assert features.shape[0] == 2
    assert features.shape[-1] == model.head.projection.in_features
    assert features.shape[1] <= clip.shape[2]
    assert features.shape[2] == features.shape[3] < 32


@pytest.mark.parametrize("name", NAMES)
def test_activation_checkpointing_changes_no_gradient(name: str) -> None:
    clip = tiny_clip(name)
    gradients = []
    for checkpointing in (False, True):
        model = tiny(name, activation_checkpointing=checkpointing).train()
        torch.manual_seed(2)
        model(clip).square().sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_a_clip_of_one_frame(name: str) -> None:
    model = tiny(name).eval()
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model(image), model(image.unsqueeze(2)))


@pytest.mark.parametrize("name", NAMES)
def test_autocast_to_bfloat16(name: str) -> None:
    model, clip = tiny(name).eval(), tiny_clip(name)
    with torch.no_grad():
        exact = model(clip)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(clip)
    assert torch.isfinite(rounded).all()
    # Rough, because 4 channels a head and up to 48 random blocks amplify rounding.
    assert (rounded.float() - exact).abs().max() < 0.5 * exact.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_parameter_groups_have_what_they_need(name: str) -> None:
    model = tiny(name)
    names = [n for n, _ in model.named_parameters()]
    assert model.no_weight_decay() <= set(names)
    ids = {n: model.layer_id(n) for n in names}
    assert min(ids.values()) == 0
    assert max(ids.values()) == model.num_layers + 1 == ids["head.projection.weight"]


def test_every_gradient_is_checkpointed() -> None:
    """The blocks are really recomputed: twice as many calls of each in a step."""
    calls = []
    model = tiny("mvit_tiny", activation_checkpointing=True).train()
    model.blocks[0].norm1.register_forward_hook(lambda *_: calls.append(1))
    model(tiny_clip("mvit_tiny")).sum().backward()
    assert len(calls) == 2
    with torch.no_grad():
        model(tiny_clip("mvit_tiny"))
    assert len(calls) == 3


WRONG = {
    "in_channels": 0,
    "num_classes": 0,
    "drop_path_rate": 1.5,
    "mlp_ratio": -1.0,
    "norm_eps": float("nan"),
    "head_init_scale": float("nan"),
    "pre_logits_dim": -1,
}


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_arguments_that_no_model_can_have_are_named(name: str) -> None:
    for argument in WRONG.keys() & vf.model_arguments(name).keys():
        with pytest.raises(ValueError, match=rf"{argument}={WRONG[argument]}\b"):
            tiny(name, **{argument: WRONG[argument]})
