"""Makes torchvision and pytorchvideo importable where their published wheels are not.

Two troubles, each repaired here and nowhere else, before the library in question is imported:

1. **torchvision beside a CPU-only torch.** PyPI's Linux wheel of torchvision is built for CUDA. Beside a CPU
   torch its C++ library cannot load; torchvision tolerates that (``_has_ops()`` is false), but then attaches
   a fake implementation to ``torchvision::nms``, an operator only that library declares, and ``import
   torchvision`` dies with ``RuntimeError: operator torchvision::nms does not exist``. Declaring the
   operator's schema beforehand is enough: the Python code (transforms, StochasticDepth) needs no C++, and
   calling ``torchvision.ops.nms`` still fails with torchvision's own explanation.
2. **pytorchvideo 0.1.5 beside a current torchvision.** It imports
   ``torchvision.transforms.functional_tensor``, which torchvision renamed to ``_functional_tensor`` in 0.17.
   An alias under the old name is enough.

In an environment where nothing is broken both functions change nothing. They may be called any number of
times; code in this package that uses either library calls them first, inside the function that needs it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import torch

__all__ = ["prepare_pytorchvideo", "prepare_torchvision"]

# The operators torchvision attaches fake implementations to without asking whether its C++ library was
# loaded.
_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_OLD_NAME = "torchvision.transforms.functional_tensor"
_NEW_NAME = "torchvision.transforms._functional_tensor"

# A torch.library.Library takes its declarations with it when it is garbage-collected.
_declared: list[torch.library.Library] = []


def prepare_torchvision() -> bool:
    """Makes ``import torchvision`` work when its C++ operators cannot load beside this torch.

    Returns:
        True if operator schemas were declared by this call; False if there was nothing to repair (operators
        present, torchvision already imported, torchvision not installed, or an earlier call did it).
    """
    # An imported torchvision has either loaded its operators or been repaired; declaring them now would only
    # clash.
    if "torchvision" in sys.modules:
        return False
    missing = [name for name in _SCHEMAS if not _has_operator(name)]
    if not missing or not _cpp_library_fails():
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in missing:
        library.define(_SCHEMAS[name])
    _declared.append(library)
    return True


def prepare_pytorchvideo() -> bool:
    """Makes ``import pytorchvideo.data`` and ``pytorchvideo.transforms`` work beside the installed
    torchvision.

    Calls :func:`prepare_torchvision` first and imports torchvision's transforms (pytorchvideo does so too).

    Returns:
        True if this call repaired anything.

    Raises:
        ImportError: torchvision is not installed.
    """
    declared = prepare_torchvision()
    if _OLD_NAME in sys.modules or importlib.util.find_spec(_OLD_NAME) is not None:
        return declared
    if importlib.util.find_spec(_NEW_NAME) is None:
        return declared
    module = importlib.import_module(_NEW_NAME)
    sys.modules[_OLD_NAME] = module
    parent, _, child = _OLD_NAME.rpartition(".")
    setattr(sys.modules[parent], child, module)
    return True


def _has_operator(name: str) -> bool:
    return hasattr(torch.ops.torchvision, name)


def _cpp_library_fails() -> bool:
    """True if torchvision is installed and its C++ operator library is absent or cannot be loaded into this
    torch.

    Loads the library exactly as ``import torchvision`` will do a moment later, so a healthy installation is
    not changed by the question. Only Linux has the mismatched wheels; elsewhere (where loading needs
    torchvision's own set-up of library paths) nothing is tried and nothing is repaired.
    """
    if not sys.platform.startswith("linux"):
        return False
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return False
    root = Path(next(iter(spec.submodule_search_locations)))
    libraries = sorted(root.glob("_C*.so"))
    if not libraries:
        return True
    try:
        torch.ops.load_library(str(libraries[0]))
    except (OSError, ImportError):
        return True
    return False
