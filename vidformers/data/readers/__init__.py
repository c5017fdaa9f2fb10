"""Video readers: one protocol, several decoding libraries, the same frames for the same index.

Example:
    >>> with open_video("clip.mp4") as video:                         # doctest: +SKIP
    ...     frames = video.get_frames(range(0, video.num_frames, 4))  # uint8 (T, H, W, 3)
"""

from __future__ import annotations

import os

from vidformers.data.readers.base import FrameIndices, VideoReader, VideoReadError

__all__ = ["BACKENDS", "FrameIndices", "VideoReadError", "VideoReader", "open_video"]

BACKENDS = ("pyav", "decord")


def open_video(
    path: str | os.PathLike[str],
    backend: str = "pyav",
    *,
    thread_count: int = 1,
    apply_rotation: bool = True,
) -> VideoReader:
    """Opens a video file for random access by frame index.

    Args:
        path: a file, or anything iopath's PathManager resolves to one.
        backend: ``pyav`` (the default: reads the most formats) or ``decord`` (x86-64 only, optional; refuses
        the
            files for which it is known to return other frames than PyAV). Both read the first video stream.
        thread_count: decoding threads. Threads only cost in data-loader workers; raise it to read single
        videos
            sooner (0 lets the library choose).
        apply_rotation: turn frames as the file's display matrix asks, which is what players show.

    Raises:
        VideoReadError: the file cannot be read; see its ``reason``.
        ValueError: unknown backend.
        ImportError: the backend is not installed.
    """
    if backend == "pyav":
        from vidformers.data.readers.pyav import PyAVReader

        return PyAVReader(path, thread_count=thread_count, apply_rotation=apply_rotation)
    if backend == "decord":
        from vidformers.data.readers.decord import DecordReader

        return DecordReader(path, thread_count=thread_count, apply_rotation=apply_rotation)
    raise ValueError(f"unknown video backend '{backend}'; use one of: {', '.join(BACKENDS)}")
