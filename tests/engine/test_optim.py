"""Parameter groups, schedule and optimisers against PySlowFast's (golden/slowfast_data)."""

import pytest
import torch
import yaml
from torch import nn

from tests.golden_json import load_json
from vidformers.config import mvit_arguments
from vidformers.engine.optim import build_optimizer, learning_rate, parameter_groups, set_learning_rate
from vidformers.models import MViT

GROUP_CASES = load_json("slowfast_data/param_groups.json")["cases"]
RATE_CASES = load_json("slowfast_data/lr_schedule.json")


class ReversibleNames(nn.Module):
    """PySlowFast's reversible MViT, to which all blocks are the head; RevMViT's layer_id tells them apart."""

    def __init__(self, shapes, num_layers):
        super().__init__()
        self.shapes = shapes
        self.num_layers = num_layers

    def named_parameters(self, *args, **kwargs):
        return [
            (name, nn.Parameter(torch.empty(shape, device="meta"))) for name, shape in self.shapes.items()
        ]

    def no_weight_decay(self):
        return {name for name in self.shapes if "pos_embed" in name or "rel_pos" in name}

    def layer_id(self, name):
        return 0 if name.startswith(("pos_embed", "patch_embed")) else self.num_layers + 1


def build(name):
    case = load_json("slowfast_data/param_group_models.json")[name]
    tree = yaml.safe_load(case["yaml"])
    if name.startswith("rev"):
        return ReversibleNames(case["shapes"], tree["MVIT"]["DEPTH"])
    with torch.device("meta"):
        return MViT(**mvit_arguments(tree))


@pytest.mark.parametrize(
    "case",
    GROUP_CASES,
    ids=lambda case: (
        f"{case['golden_case']}-decay{case['layer_decay']}-pos{case['zero_decay_pos_cls']:d}"
        f"-1d{case['zero_wd_1d_param']:d}"
    ),
)
def test_parameter_groups_are_pyslowfasts(case):
    groups = parameter_groups(
        build(case["golden_case"]),
        base_weight_decay=case["weight_decay"],
        layer_decay=case["layer_decay"],
        zero_decay_pos_cls=case["zero_decay_pos_cls"],
        zero_wd_1d_param=case["zero_wd_1d_param"],
    )
    got = {}
    for group in groups:
        assert len(group["params"]) == len(group["names"])
        for name in group["names"]:
            assert name not in got
            got[name] = (group["weight_decay"], group["lr_scale"])
    assert set(got) == set(case["params"])
    wrong = {name: got[name] for name, want in case["params"].items() if got[name] != pytest.approx(want)}
    assert not wrong


def test_groups_are_few_and_leave_out_frozen_parameters():
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    model[0].weight.requires_grad = False
    groups = parameter_groups(model, base_weight_decay=0.1, zero_wd_1d_param=True)
    assert {group["weight_decay"]: group["names"] for group in groups} == {
        0.0: ["0.bias", "1.weight", "1.bias", "2.bias"],
        0.1: ["2.weight"],
    }


def test_layer_decay_needs_layers():
    with pytest.raises(ValueError, match=r"layer_decay=0\.5 needs a model with layer_id"):
        parameter_groups(nn.Linear(2, 2), base_weight_decay=0.1, layer_decay=0.5)


@pytest.mark.parametrize("case", RATE_CASES, ids=lambda case: case["config"])
def test_learning_rate_is_pyslowfasts(case):
    solver = case["solver"]
    rates = [
        learning_rate(
            epoch,
            base_lr=solver["BASE_LR"],
            policy=solver["LR_POLICY"],
            max_epoch=solver["MAX_EPOCH"],
            warmup_epochs=solver["WARMUP_EPOCHS"],
            warmup_start_lr=solver["WARMUP_START_LR"],
            cosine_end_lr=solver["COSINE_END_LR"],
            cosine_after_warmup=solver["COSINE_AFTER_WARMUP"],
            steps=solver["STEPS"],
            relative_lrs=solver["LRS"],
        )
        for epoch in case["epochs"]
    ]
    assert rates == pytest.approx(case["lr"], rel=1e-9)


def test_learning_rate_without_warmup_starts_at_the_base():
    assert learning_rate(0, base_lr=0.1, max_epoch=10) == pytest.approx(0.1)


def test_unknown_policy_and_method():
    with pytest.raises(ValueError, match="'linear' is not known"):
        learning_rate(1, base_lr=0.1, policy="linear", max_epoch=10)
    groups = parameter_groups(nn.Linear(2, 2), base_weight_decay=0.0)
    with pytest.raises(ValueError, match="'lamb' is not known"):
        build_optimizer(groups, method="lamb", lr=0.1)
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizer([], method="sgd", lr=0.1)


@pytest.mark.parametrize(
    ("method", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_optimizers_get_their_settings(method, kind):
    groups = parameter_groups(nn.Linear(2, 2), base_weight_decay=0.05, zero_wd_1d_param=True)
    optimizer = build_optimizer(
        groups, method=method, lr=0.1, momentum=0.8, dampening=0.0, nesterov=True, betas=(0.8, 0.99)
    )
    assert type(optimizer) is kind
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]
    for group in optimizer.param_groups:
        if method == "sgd":
            assert (group["momentum"], group["dampening"], group["nesterov"]) == (0.8, 0.0, True)
        else:
            assert (group["betas"], group["eps"]) == ((0.8, 0.99), 1e-8)


def test_rates_follow_the_scale_of_their_group():
    model = build("mvit_v2_cls")
    groups = parameter_groups(model, base_weight_decay=0.05, layer_decay=0.5)
    optimizer = build_optimizer(groups, method="adamw", lr=1.0)
    names = [name for name, _ in model.named_parameters()]
    scales = {name: 0.5 ** (model.num_layers + 1 - model.layer_id(name)) for name in names}
    for rate in (1.0, 0.25):
        set_learning_rate(optimizer, rate)
        for group in optimizer.param_groups:
            for name in group["names"]:
                assert group["lr"] == pytest.approx(rate * scales[name])
    assert scales["head.projection.weight"] == 1.0 > scales["blocks.0.norm1.weight"]


def test_training_continues_from_a_saved_optimizer(tmp_path):
    def step(model, optimizer):
        model.zero_grad()
        model(torch.ones(1, 2)).square().sum().backward()
        optimizer.step()

    def new():
        model = nn.Linear(2, 2)
        groups = parameter_groups(model, base_weight_decay=0.1, zero_wd_1d_param=True)
        return model, build_optimizer(groups, method="adamw", lr=0.01)

    torch.manual_seed(0)
    model, optimizer = new()
    step(model, optimizer)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    step(model, optimizer)

    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed, optimizer = new()
    resumed.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    step(resumed, optimizer)
    torch.testing.assert_close(resumed.weight, model.weight, rtol=0, atol=0)
