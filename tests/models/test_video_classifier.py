"""What timm's users ask a model for, of every registered model: classifier, channels, stages."""

import math

import pytest
import torch
from torch import nn

import vidformers as vf
from tests.models.tiny import tiny, tiny_clip
from vidformers.models.video_classifier import MeanClassifier

NAMES = vf.list_models()


@pytest.mark.parametrize("name", NAMES)
def test_classifier_can_be_replaced_and_left_out(name: str) -> None:
    model, clip = tiny(name).eval(), tiny_clip(name)
    assert (model.num_classes, model.get_classifier()) == (5, model.head.projection)
    with torch.no_grad():
        before, features = model(clip), model.forward_features(clip)
        assert features.shape[-1] == model.num_features
        model.reset_classifier(7)
        after = model(clip)
        assert after.shape == (2, 7) and model.num_classes == 7
        assert not torch.equal(after[:, :5], before)
        weight = model.get_classifier().weight
        model.reset_classifier(0)
        seen = model(clip)
    assert isinstance(model.get_classifier(), nn.Identity) and model.num_classes == 0
    torch.testing.assert_close(seen @ weight.T, after)
    with pytest.raises(ValueError, match="got num_classes=-1; wanted 1 or more"):
        model.reset_classifier(-1)


@pytest.mark.parametrize("name", NAMES)
def test_feature_info_is_what_the_stages_give(name: str) -> None:
    model, clip = tiny(name).eval(), tiny_clip(name)
    shapes: dict[str, torch.Size] = {}

    def remember(stage: str):
        def hook(_, __, output) -> None:
            shapes[stage] = (output[0] if isinstance(output, tuple) else output).shape

        return hook

    for stage in model.feature_info:
        model.get_submodule(stage["module"]).register_forward_hook(remember(stage["module"]))
    with torch.no_grad():
        features = model.forward_features(clip)
    sizes = [(clip.shape[2], 32, 32)] * len(model.feature_info)
    for stage, size in zip(model.feature_info, sizes, strict=True):
        shape = shapes[stage["module"]]
        tokens = math.prod(-(-n // step) for n, step in zip(size, stage["reduction"], strict=True))
        assert stage["num_chs"] in (shape[1], shape[-1])
        # Class tokens, messengers and what fills their windows come on top.
        extra = shape.numel() / (2 * stage["num_chs"]) - tokens
        assert extra == 0 or (
            0 < extra <= tokens
            and name.startswith(("msg", "mvit", "vit", "pvt", "cpvt", "timesformer", "deit"))
        ), (stage, shape)
    last = model.feature_info[-1]["reduction"]
    assert features.shape[1:4] == tuple(-(-n // step) for n, step in zip(sizes[0], last, strict=True))


@pytest.mark.parametrize("name", [n for n in NAMES if issubclass(vf.model_class(n), MeanClassifier)])
def test_forward_head_takes_forward_features(name: str) -> None:
    model, clip = tiny(name).eval(), tiny_clip(name)
    with torch.no_grad():
        torch.testing.assert_close(model.forward_head(model.forward_features(clip)), model(clip))


def test_a_new_classifier_is_where_the_old_one_was() -> None:
    model = tiny("swin_tiny").double()
    with torch.device("meta"):
        on_meta = tiny("swin_tiny")
    model.reset_classifier(3)
    on_meta.reset_classifier(3)
    assert model.head.projection.weight.dtype == torch.float64
    assert on_meta.head.projection.weight.is_meta
    model.reset_classifier(0)
    model.reset_classifier(4)  # from nothing, too
    assert model(tiny_clip("swin_tiny").double()).shape == (2, 4)


def test_list_models_takes_several_patterns_and_leaves_out() -> None:
    names = vf.list_models(["mvit_v2*", "swin3d_?"], exclude="*_b*")
    assert {"mvit_v2_s_16x4", "swin3d_t"} <= set(names)
    assert not {"mvit_v2_b", "swin3d_b", "swin_t"} & set(names)
    assert vf.list_models("*", exclude=["*_tiny", "mvit"]) == [
        n for n in vf.list_models() if not n.endswith("_tiny") and n != "mvit"
    ]
