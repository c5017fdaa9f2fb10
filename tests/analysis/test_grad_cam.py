"""Grad-CAM on the last tokens of every family."""

import pytest
import torch
from torch import Tensor, nn

import vidformers as vf
from tests.models.tiny import tiny, tiny_clip
from vidformers.analysis.explain import explain_clips
from vidformers.analysis.grad_cam import grad_cam

TINY = vf.list_models("*_tiny")
# The classifier is a Linear of the mean of forward_features.
LINEAR = ("crossformer_tiny", "gg_tiny", "pvt_v2_tiny", "shuffle_tiny", "swin_tiny", "twins_svt_tiny",
          "uniformer_tiny")  # fmt: skip


@pytest.mark.parametrize("name", TINY)
def test_every_family(name: str) -> None:
    model, clip = tiny(name), tiny_clip(name)
    found = grad_cam(model, clip, [1, 4])
    expected = model.eval().forward_features(clip).shape[:4]
    if name == "mvit_tiny":  # the last attention shrinks the map that it reads
        expected = (2, expected[1], 2 * expected[2], 2 * expected[3])
    assert found.shape == expected and found.isfinite().all() and found.min() >= 0
    assert not found.requires_grad and all(p.grad is None for p in model.parameters())
    torch.testing.assert_close(grad_cam(model, clip[1:], [4]), found[1:], atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_classifier_has_a_closed_form(name: str) -> None:
    """logit = w . mean(f) + b: the weight of channel c is w_c / N, so the map is relu(w . f) / N."""
    model, clip = tiny(name).eval(), tiny_clip(name)
    with torch.no_grad():
        features = model.forward_features(clip)
        weight = model.head.projection.weight[[3, 0]]
        expected = torch.einsum("bthwc,bc->bthw", features, weight).clamp(min=0) / features[0, ..., 0].numel()
    assert expected.max() > 0
    torch.testing.assert_close(grad_cam(model, clip, [3, 0]), expected)


@pytest.mark.parametrize(
    "arguments", [{"class_token": True}, {"attention": "space_only"}, {"attention": "divided"}]
)
def test_class_tokens_are_explained_by_what_the_last_attention_reads(arguments: dict[str, object]) -> None:
    model, clip = tiny("vit_tiny", **arguments).eval(), tiny_clip("vit_tiny")
    read: list[Tensor] = []
    model.blocks[-1].register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].detach()))
    found = grad_cam(model, clip, [0, 1])
    tokens = read[-1].requires_grad_()
    for block in [model.blocks[-1]]:
        out = block(tokens, (2, 4, 4))
    class_token = out[:, 0].unflatten(0, (2, -1)).mean(dim=1)
    logits = model.head(model.norm(class_token))
    (slopes,) = torch.autograd.grad(logits[0, 0] + logits[1, 1], tokens)
    slopes, patches = (x[:, 1:].reshape(2, 2, 4, 4, -1) for x in (slopes, tokens.detach()))
    expected = (slopes.mean(dim=(1, 2, 3), keepdim=True) * patches).sum(dim=-1).clamp(min=0)
    torch.testing.assert_close(found, expected)


def test_no_grid_of_tokens() -> None:
    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, clip: Tensor) -> Tensor:
            return self.head(clip.mean(dim=(2, 3, 4)))

        def forward_features(self, clip: Tensor) -> Tensor:
            return clip.permute(0, 2, 3, 4, 1)

    with pytest.raises(ValueError, match=r"Blind has no tokens on the grid \(2, 4, 4\).*try method rollout"):
        grad_cam(Blind(), torch.randn(1, 3, 2, 4, 4), [0])


@pytest.mark.parametrize("method", ["rollout", "relevance", "gradcam"])
def test_explain_gives_maps_of_the_frames_for_the_answer(method: str) -> None:
    model, clip = tiny("swin_tiny").train(), tiny_clip("swin_tiny")
    found = explain_clips(model, clip, method=method)
    assert found.maps.shape == (2, *clip.shape[2:]) and found.maps.min() >= 0 and not found.maps.requires_grad
    assert model.training
    probabilities = model.eval()(clip).softmax(dim=1)
    torch.testing.assert_close(found.probabilities, probabilities.detach())
    assert found.class_index.tolist() == probabilities.argmax(dim=1).tolist()
    asked = explain_clips(model, clip, method=method, class_index=found.class_index)
    torch.testing.assert_close(asked.maps, found.maps)
    other = explain_clips(model, clip, method=method, class_index=(found.class_index + 1) % 5)
    assert torch.equal(other.maps, found.maps) == (method == "rollout")
    with pytest.raises(ValueError, match="'rollout', 'relevance', 'gradcam'"):
        explain_clips(model, clip, method="saliency")
