"""The generated dataset `motion` as a list of videos."""

from __future__ import annotations

from vidformers.data.datasets.kinetics import load_kinetics
from vidformers.data.motion import ensure_motion_dataset
from vidformers.data.records import VideoList


def load_motion(root: str, split: str) -> VideoList:
    """nothing: the videos are generated, and kept in a folder of their own"""
    root = str(ensure_motion_dataset())
    return load_kinetics(root, split, path_prefix=root, separator=" ")
