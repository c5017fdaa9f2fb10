"""The datasets by name, and the map-style datasets over their lists of videos (clips, arrays).

Each loader is a function (folder, split, keyword arguments) -> VideoList; the split is "train", "val" or
"test". The first line of its docstring completes the sentence "the folder holds ..." for error messages. It
asks for the settings that it needs by the names of its keyword arguments; `engine/build.py` lists them.
"""

from collections.abc import Callable, Mapping

from vidformers.data.datasets.charades import load_charades
from vidformers.data.datasets.diving48 import load_diving48
from vidformers.data.datasets.folder import load_folder
from vidformers.data.datasets.hmdb51 import load_hmdb51
from vidformers.data.datasets.imagenet import load_imagenet
from vidformers.data.datasets.kinetics import load_kinetics
from vidformers.data.datasets.kinetics_cvdf import load_kinetics_cvdf
from vidformers.data.datasets.mmaction2 import load_mmaction2
from vidformers.data.datasets.moments import load_moments
from vidformers.data.datasets.motion import load_motion
from vidformers.data.datasets.ssv2 import load_ssv2
from vidformers.data.datasets.ucf101 import load_ucf101
from vidformers.data.datasets.webdataset import load_webdataset
from vidformers.data.records import VideoList

DATASETS: Mapping[str, Callable[..., VideoList]] = {
    "kinetics": load_kinetics,
    "kinetics_cvdf": load_kinetics_cvdf,
    "ssv2": load_ssv2,
    "ucf101": load_ucf101,
    "hmdb51": load_hmdb51,
    "diving48": load_diving48,
    "charades": load_charades,
    "moments": load_moments,
    "mmaction2": load_mmaction2,
    "imagenet": load_imagenet,
    "folder": load_folder,
    "webdataset": load_webdataset,
    "motion": load_motion,
}
