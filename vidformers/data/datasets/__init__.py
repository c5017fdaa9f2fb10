"""The datasets by name, and the map-style datasets over their lists of videos (clips, arrays).

Each loader is a function (folder, split, keyword arguments) -> VideoList; the split is "train", "val" or
"test". The first line of its docstring completes the sentence "the folder holds ..." for error messages. It
asks for the settings that it needs by the names of its keyword arguments; `engine/build.py` lists them.
"""

from collections.abc import Callable, Mapping

from vidformers.data.datasets.folder import load_folder
from vidformers.data.datasets.kinetics import load_kinetics
from vidformers.data.datasets.motion import load_motion
from vidformers.data.records import VideoList

DATASETS: Mapping[str, Callable[..., VideoList]] = {
    "kinetics": load_kinetics,
    "folder": load_folder,
    "motion": load_motion,
}
