"""The one PathManager through which every path of the data side goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iopath.common.file_io import PathManager

__all__ = ["path_manager"]


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
