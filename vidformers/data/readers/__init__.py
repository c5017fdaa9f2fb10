"""Video readers: one protocol, several decoding libraries, the same frames for the same index.

Example:
    >>> with open_video("clip.mp4") as video:                         # doctest: +SKIP
    ...     frames = video.get_frames(range(0, video.num_frames, 4))  # uint8 (T, H, W, 3)
"""

from __future__ import annotations

import os

from vidformers.data.readers.base import MAX_FRAME_PIXELS, FrameIndices, VideoReader, VideoReadError

__all__ = ["BACKENDS", "FrameIndices", "VideoReadError", "VideoReader", "open_video"]

BACKENDS = ("pyav", "decord", "torchcodec", "frames")


def open_video(
    path: str | os.PathLike[str],
    backend: str = "pyav",
    *,
    thread_count: int = 1,
    apply_rotation: bool = True,
    frames_fps: float = 30.0,
    index_cache: str = "",
    time_limit: float = 0.0,
    max_frame_pixels: int = MAX_FRAME_PIXELS,
) -> VideoReader:
    """Opens a video for random access by frame index.

    Args:
        path: a file (a folder of images for ``frames``), or anything iopath's PathManager resolves to one.
        backend: ``pyav`` (the default: reads the most formats), ``decord`` (x86-64 only, optional) or
            ``torchcodec`` (optional), which refuse the files for which they are known to return other frames
            than PyAV, or ``frames`` (extracted frames). All read the first video stream.
        thread_count: decoding threads. Threads only cost in data-loader workers; raise it to read single
            videos sooner (0 lets the library choose).
        apply_rotation: turn frames as the file's display matrix asks, which is what players show.
        frames_fps: frame rate at which ``frames`` were extracted; videos know their own.
        index_cache: folder that keeps what scanning a video file found out (readers/index_cache.py); "" none.
        time_limit: seconds after which ``pyav`` gives up between two packets; 0 = never. What no decoder can
            be interrupted in is the business of :mod:`vidformers.data.time_limit`.
        max_frame_pixels: a video with more pixels a frame is refused by its header, before anything is
            decoded, and where the header says less than the stream, by the decoder.

    Raises:
        VideoReadError: the file cannot be read; see its ``reason``.
        ValueError: unknown backend.
        ImportError: the backend is not installed.
    """
    if backend == "pyav":
        from vidformers.data.readers.pyav import PyAVReader

        return PyAVReader(
            path,
            thread_count=thread_count,
            apply_rotation=apply_rotation,
            index_cache=index_cache,
            time_limit=time_limit,
            max_frame_pixels=max_frame_pixels,
        )
    if backend == "decord":
        from vidformers.data.readers.decord import DecordReader

        return DecordReader(
            path,
            thread_count=thread_count,
            apply_rotation=apply_rotation,
            index_cache=index_cache,
            max_frame_pixels=max_frame_pixels,
        )
    if backend == "torchcodec":
        from vidformers.data.readers.torchcodec import TorchCodecReader

        return TorchCodecReader(
            path,
            thread_count=thread_count,
            apply_rotation=apply_rotation,
            index_cache=index_cache,
            max_frame_pixels=max_frame_pixels,
        )
    if backend == "frames":
        from vidformers.data.readers.frames import FrameFolderReader

        return FrameFolderReader(
            path, fps=frames_fps, apply_rotation=apply_rotation, max_frame_pixels=max_frame_pixels
        )
    raise ValueError(f"unknown video backend '{backend}'; use one of: {', '.join(BACKENDS)}")
