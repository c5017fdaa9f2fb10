"""The one PathManager through which every path of the data side goes."""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iopath.common.file_io import PathManager

__all__ = ["near_it", "path_manager"]


def path_manager() -> PathManager:
    """iopath's process-wide path manager.

    It is the shared instance (``iopath.common.file_io.g_pathmgr``), so handlers that the user has registered
    there, for instance for object storage, work for every path in this library. ``http(s)://`` paths are
    handled in addition: they are downloaded once into iopath's cache.
    """
    from iopath.common.file_io import HTTPURLHandler, g_pathmgr

    if not any(isinstance(handler, HTTPURLHandler) for handler in g_pathmgr._path_handlers.values()):
        g_pathmgr.register_handler(HTTPURLHandler(), allow_override=True)
    return g_pathmgr


def near_it(path: str) -> str:
    """What follows the news that a local `path` does not exist: names like it, or the folder on the way to it
    that does not exist either. Empty where neither is known, and for addresses such as s3://."""
    if "://" in path:
        return ""
    folder, name = os.path.split(os.path.abspath(path))
    above = ""
    while not os.path.isdir(folder):
        folder, name = os.path.split(folder)
        above = f". '{os.path.join(folder, name)}' does not exist either"
    try:
        by_lower = {entry.lower(): entry for entry in sorted(os.listdir(folder))}
    except OSError:
        return above
    names = [by_lower[near] for near in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)]
    shown = [f"{near}/" if os.path.isdir(os.path.join(folder, near)) else near for near in names]
    return f"{above}. Near it in {folder}: {', '.join(shown)}" if shown else above
