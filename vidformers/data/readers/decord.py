"""The decord reader: optional, for those who have it; the same frames as PyAV's, or a refusal that says why.

decord 0.6 is fast, but for some files it returns other frames than every other decoder without an error. What
those files have in common is visible in the packets, so each file is looked over with PyAV first (a few
milliseconds) and refused with reason ``unsupported by decord`` where the frames could differ.
"""

from __future__ import annotations

import importlib
import os
from fractions import Fraction
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
import torch

from vidformers.data.readers.base import FrameIndices, VideoReadError, check_indices, local_video_path
from vidformers.data.readers.index import all_keys_are_idr, decoder_source
from vidformers.data.readers.pyav import PyAVReader, StreamFacts

__all__ = ["DecordReader"]

_UNSUPPORTED = "unsupported by decord"
_CONTAINERS = {"mov", "mp4", "matroska", "webm", "avi", "flv", "asf"}
_NO_DECODER = {"av1", "vvc"}


class DecordReader:
    """See :class:`~vidformers.data.readers.base.VideoReader`.

    Attributes:
        path: as given.
        frame_pts, time_base: as in :class:`~vidformers.data.readers.pyav.PyAVReader`.
    """

    backend = "decord"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        thread_count: int = 1,
        apply_rotation: bool = True,
        index_cache: str = "",
    ) -> None:
        """Opens the file. Raises VideoReadError, and ImportError without decord."""
        decord = _import_decord()
        self.path, local_path = local_video_path(path, self.backend)
        self._reader = None
        try:
            with PyAVReader(path, apply_rotation=apply_rotation, index_cache=index_cache) as first_look:
                facts = first_look.stream_facts
                self.num_frames: int = first_look.num_frames
                self.fps: float = first_look.fps
                self.duration: float = first_look.duration
                self.height: int = first_look.height
                self.width: int = first_look.width
                self.frame_pts: np.ndarray | None = first_look.frame_pts
                self.time_base: Fraction = first_look.time_base
        except VideoReadError as error:
            raise VideoReadError(self.path, error.reason, error.detail, self.backend) from error
        refusal = why_refused(facts)
        if refusal:
            raise self._refuse(refusal)
        # decord seeks to what is flagged a key frame and counts on from its place in the file. That is not
        # always its place in time, and not always a frame that decodes by itself.
        self._may_seek = not facts.has_reordered_keys and not facts.distrust
        if facts.codec == "h264" and self._may_seek:
            self._may_seek = all_keys_are_idr(local_path)
        try:
            self._reader = decord.VideoReader(decoder_source(local_path), num_threads=thread_count)
        except Exception as error:
            raise self._refuse(f"it cannot open the file ({_brief(error)})") from error
        count = len(self._reader)
        if count != self.num_frames:
            raise self._refuse(f"it counts {count} frames where {self.num_frames} are shown")

    def get_frames(self, indices: FrameIndices) -> torch.Tensor:
        """See :meth:`VideoReader.get_frames`."""
        if self._reader is None:
            raise ValueError(f"video '{self.path}' is closed; open it again to read frames")
        wanted, rows = np.unique(check_indices(indices, self.num_frames, self.path), return_inverse=True)
        try:
            array = self._seek_and_read(wanted) if self._may_seek else self._read_through(wanted)
        except Exception as error:
            detail = f"decoding failed ({_brief(error)}); the pyav backend may tell more"
            raise VideoReadError(self.path, "truncated or damaged", detail, self.backend) from error
        if array.shape[1:] != (self.height, self.width, 3):
            raise self._refuse(
                f"it returns {array.shape[2]}x{array.shape[1]} frames, not {self.width}x{self.height}"
            )
        frames = torch.from_numpy(np.ascontiguousarray(array))
        if len(rows) == len(wanted) and (np.diff(rows) > 0).all():
            return frames
        return frames[torch.from_numpy(rows)]

    def _seek_and_read(self, wanted: np.ndarray) -> np.ndarray:
        assert self._reader is not None
        return _as_array(self._reader.get_batch(wanted.tolist()))

    def _read_through(self, wanted: np.ndarray) -> np.ndarray:
        assert self._reader is not None
        frames = []
        self._reader.seek(0)
        for index in range(int(wanted[-1]) + 1):
            frame = self._reader.next()
            if index in wanted:
                frames.append(_as_array(frame))
        return np.stack(frames)

    def close(self) -> None:
        self._reader = None

    def __enter__(self) -> DecordReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refuse(self, why: str) -> VideoReadError:
        return VideoReadError(self.path, _UNSUPPORTED, f"{why}; read it with the pyav backend", self.backend)


def why_refused(facts: StreamFacts) -> str:
    """The reason why decord 0.6 would fail or return other frames than PyAV; empty if none is known."""
    if not _CONTAINERS & set(facts.container.split(",")):
        return f"decord returns wrong frames or none from {facts.container} files"
    if facts.codec in _NO_DECODER:
        return f"decord has no {facts.codec} decoder"
    if facts.num_video_streams > 1:
        return (
            f"the file has {facts.num_video_streams} video streams and decord takes the one it thinks best, "
            "not the first"
        )
    if facts.num_hidden_packets:
        return f"an edit list hides {facts.num_hidden_packets} frames, which decord shows"
    if facts.max_bits > 8 or facts.has_alpha:
        return f"decord converts {facts.pixel_format} to other colours"
    if facts.distrust and facts.container != "avi":
        return f"decord needs timestamps ({facts.distrust})"
    if facts.has_cut_chroma:
        return f"decord shifts the colours of {facts.pixel_format} at odd sizes"
    if facts.is_turned:
        return "the file asks for rotation, which decord applies before the colour conversion or fails at"
    return ""


def _import_decord() -> ModuleType:
    try:
        return importlib.import_module("decord")
    except ImportError as error:
        raise ImportError(
            f"the decord backend is not installed ({error}); `pip install decord` (x86-64 Linux and Windows "
            "only) or use backend 'pyav'"
        ) from error


def _as_array(frames: Any) -> np.ndarray:
    # decord.bridge.set_bridge, called by anybody in the process, changes what decord returns.
    return frames.asnumpy() if hasattr(frames, "asnumpy") else np.asarray(frames)


def _brief(error: Exception) -> str:
    """decord's messages carry a time, a source line and a stack trace; the end of the first line tells."""
    first = (str(error).strip().splitlines() or ["no message"])[0]
    return first.rsplit("Check failed: ", 1)[-1].strip()
