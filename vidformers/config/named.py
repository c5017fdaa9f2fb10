"""The YAML files that come with the package, by their names."""

import difflib
import os
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
# A wheel holds them as vidformers/configs (setup.py); in a checkout they are its folder configs/.
CONFIGS = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"
SUFFIXES = (".yaml", ".yml")


def find_config(path: str | os.PathLike[str]) -> str:
    """`path` itself; or, if it is a bare name (mvit_b_16x4, mvit_b_16x4.yaml) and no file, that file of ours.

    Raises FileNotFoundError, with the nearest names, for a bare name without a suffix that is neither.
    """
    path = os.path.expanduser(os.fspath(path))
    if os.path.isfile(path) or os.path.basename(path) != path or not path:
        return path
    name = path.removesuffix(".yaml").removesuffix(".yml")
    own = CONFIGS / f"{name}.yaml"
    if own.is_file():
        return str(own)
    if path.endswith(SUFFIXES) or os.path.isdir(path):
        return path  # whoever reads it says what lies near it
    raise FileNotFoundError(
        f"There is no config named {path}, and no such file. Near it: {', '.join(near(name))}. "
        f"All of them are in {CONFIGS}."
    )


def near(name: str) -> list[str]:
    """The names of ours that `name` may mean, the likeliest first; never none."""
    names = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    return difflib.get_close_matches(name.lower(), names, n=4, cutoff=0.5) or names[:4]


def by_name(path: str) -> str:
    """A hint for a `path` that does not exist where its file name is one of ours; "" if it is not."""
    name, suffix = os.path.splitext(os.path.basename(path))
    known = suffix in SUFFIXES and (CONFIGS / f"{name}.yaml").is_file()
    return f" {name} comes with the package: give its name alone, without folder and suffix." if known else ""
