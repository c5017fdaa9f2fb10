"""The tiny copies of the published layouts on which the datasets' own tests run."""

from tests.data.datasets.conftest import make_cfg, one_video, put_videos
from tests.data.datasets.test_charades import charades
from tests.data.datasets.test_published import diving48, hmdb51, kinetics, moments, ssv2, ucf101

__all__ = [
    "charades", "diving48", "hmdb51", "kinetics", "make_cfg", "moments", "one_video", "put_videos", "ssv2",
    "ucf101",
]  # fmt: skip
