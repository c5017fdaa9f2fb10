"""Reference cases of other implementations, and `build`: any of them as our model with its weights.

The cases lie in ../shared/golden (or $VIDFORMERS_SHARED/golden); a clone elsewhere has some in tests/golden.
"""

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidformers.checkpoints import load_weights

_TESTS = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("VIDFORMERS_SHARED") or _TESTS.parent.parent / "shared")
COPIES = _TESTS / "golden"
# arch of a case -> module in tests/golden_families with arguments(case, num_frames) -> (class, its arguments)
FAMILIES = {
    "hiera": "hiera",
    "maxvit": "maxvit",
    "mvit": "mvit",
    "crossformer": "crossformer",
    "msg_transformer": "msg_transformer",
    "shuffle_transformer": "shuffle_transformer",
    "swin": "swin",
    "swin3d": "swin",
    "pvt_v1": "pvt",
    "pvt_v2": "pvt",
    "cpvt": "cpvt",
    "twins_pcpvt": "twins",
    "twins_svt": "twins",
    "uniformer": "uniformer",
    "vit": "vision_transformer",
    "timesformer": "vision_transformer",
    "videomae": "vision_transformer",
}
GOLDEN = SHARED / "golden" if (SHARED / "golden").is_dir() else COPIES


def find_cases(*patterns: str) -> list[str]:
    """Names ("slowfast/mvit_v2_cls") of the cases found; at least one, or the caller would test nothing."""
    names = sorted(
        str(p.relative_to(GOLDEN).with_suffix("")) for pattern in patterns for p in GOLDEN.glob(pattern)
    )
    assert names, f"no reference case like {patterns} in {GOLDEN}"
    return names


def load_case(name: str) -> dict[str, Any]:
    """One case, as README.md in the golden folder describes it."""
    return torch.load(GOLDEN / f"{name}.pt", map_location="cpu", weights_only=True)


def build(case: Mapping[str, Any], num_frames: int | None = None) -> nn.Module:
    """The model of a case, in eval mode, with the case's weights loaded by `load_weights`.

    `num_frames`: clip length for an image case; the model is then the video one with inflated weights, which
    gives the image's logits for a clip that repeats the image. ValueError for cases not supported yet.
    """
    arch = case.get("arch")
    if arch not in FAMILIES:
        raise ValueError(f"cases of {arch!r} are not supported yet")
    model_class, arguments = import_module(f"tests.golden_families.{FAMILIES[arch]}").arguments(
        case, num_frames
    )
    model = model_class(**arguments)
    load_weights(model, case["state_dict"])
    return model.eval()
