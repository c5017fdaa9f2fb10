"""Why a model gives its answer: one function for all methods, from a clip to a map of its frames."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidformers.analysis.attention_maps import as_it_predicts, relevance, rollout
from vidformers.analysis.grad_cam import grad_cam
from vidformers.checkpoints.metadata import class_probabilities, metadata_of
from vidformers.layers.checks import check_choice

METHODS = ("rollout", "relevance", "gradcam")


@dataclass(frozen=True)
class Explanation:
    """Of B clips: `maps` float32 (B, T, H, W) of the frames given, not negative, on the CPU.

    class_index (B,) the explained class (rollout has none: it is that of the answer), probabilities (B, K)
    the model's. The numbers of a map compare places and times of one clip, not clips or methods.
    """

    method: str
    maps: Tensor
    class_index: Tensor
    probabilities: Tensor


def explain_clips(
    model: nn.Module,
    clip: Tensor,
    *,
    method: str = "relevance",
    class_index: Sequence[int] | Tensor | None = None,
) -> Explanation:
    """Which frames and places the answer comes from.

    clip: (B, 3, T, H, W), normalised, where the model is. class_index: a class for each clip; None for the
    model's answers. method: "rollout" (where information flows, of all classes), "relevance" (attention
    weighted by its gradient for the class), "gradcam" (activations of the class on the last token grid,
    interpolated to the frames). Raises ValueError, saying what to try, for what cannot be explained.
    """
    check_choice("method", method, METHODS)
    with as_it_predicts(model), torch.no_grad():
        metadata = metadata_of(model)
        multi_label = metadata is not None and metadata.multi_label
        probabilities = class_probabilities(model(clip), multi_label=multi_label)
    index = probabilities.argmax(dim=1) if class_index is None else torch.as_tensor(class_index)
    if method == "rollout":
        maps = rollout(model, clip)
    elif method == "relevance":
        maps = relevance(model, clip, index)
    else:
        tokens = grad_cam(model, clip, index)
        maps = F.interpolate(tokens[:, None].float(), size=clip.shape[2:], mode="trilinear")[:, 0]
    return Explanation(method, maps.detach().float().cpu(), index.cpu(), probabilities.cpu())
