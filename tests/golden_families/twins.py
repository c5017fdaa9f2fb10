"""Twins' reference cases: timm's arguments -> ours."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from tests.golden_families.pvt import pyramid_arguments
from vidformers.models import TwinsPCPVT, TwinsSVT


def arguments(case: Mapping[str, Any], num_frames: int | None) -> tuple[type[nn.Module], dict[str, Any]]:
    """The constructor arguments of a case; with `num_frames` > 1, those of the video model of the case."""
    found = pyramid_arguments(case, num_frames)
    video = found["num_frames"] > 1
    found["peg_kernel"] = (3 if video else 1, 3, 3)
    if case["arch"] == "twins_pcpvt":
        return TwinsPCPVT, found
    found["window_sizes"] = [(2 if video else 1, side, side) for side in case["kwargs"]["wss"]]
    return TwinsSVT, found
