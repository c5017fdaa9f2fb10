"""The decord reader: optional, for those who have it; the same frames as PyAV's, or a refusal that says why.

decord 0.6 is fast, but for some files it returns other frames than every other decoder without an error:
those are refused with reason ``unsupported by decord``.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any

import numpy as np
import torch

from vidformers.data.readers.base import MAX_FRAME_PIXELS
from vidformers.data.readers.index import StreamFacts, all_keys_are_idr, decoder_source
from vidformers.data.readers.looked_over import LookedOverReader

__all__ = ["DecordReader"]

_CONTAINERS = {"mov", "mp4", "matroska", "webm", "avi", "flv", "asf"}
# In others it seeks to other frames than were asked for (AVI with every frame a key frame, FLV).
_SEEKABLE = {"mov", "mp4", "matroska", "webm"}
_NO_DECODER = {"av1", "vvc"}
# decord asks for memory for each frame that a header promises; where there is none it aborts the process.
_MAX_MISSING = 1_000_000


class DecordReader(LookedOverReader):
    """See :class:`~vidformers.data.readers.base.VideoReader`."""

    backend = "decord"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        thread_count: int = 1,
        apply_rotation: bool = True,
        index_cache: str = "",
        max_frame_pixels: int = MAX_FRAME_PIXELS,
    ) -> None:
        """Opens the file. Raises VideoReadError, and ImportError without decord."""
        decord = _import_decord()
        super().__init__(
            path,
            apply_rotation=apply_rotation,
            index_cache=index_cache,
            max_frame_pixels=max_frame_pixels,
        )
        facts = self._facts
        refusal = why_refused(facts)
        if refusal:
            raise self._refuse(refusal)
        # decord seeks to what is flagged a key frame and counts on from its place in the file. That is not
        # always its place in time, and not always a frame that decodes by itself.
        self._may_seek = (
            bool(_SEEKABLE & set(facts.container.split(",")))
            and not facts.has_reordered_keys
            and not facts.distrust
        )
        if facts.codec == "h264" and self._may_seek:
            self._may_seek = all_keys_are_idr(self._local_path)
        try:
            self._decoder = decord.VideoReader(decoder_source(self._local_path), num_threads=thread_count)
        except Exception as error:
            raise self._refuse(f"it cannot open the file ({self._brief(error)})") from error
        self._check_count()

    def _read(self, wanted: np.ndarray) -> torch.Tensor:
        if self._may_seek:
            array = _as_array(self._decoder.get_batch(wanted.tolist()))
        else:
            array = self._read_through(wanted)
        return torch.from_numpy(np.ascontiguousarray(array))

    def _read_through(self, wanted: np.ndarray) -> np.ndarray:
        frames = []
        self._decoder.seek(0)
        for index in range(int(wanted[-1]) + 1):
            frame = self._decoder.next()
            if index in wanted:
                frames.append(_as_array(frame))
        return np.stack(frames)

    @staticmethod
    def _brief(error: BaseException) -> str:
        # decord's messages carry a time, a source line and a stack trace; the end of the first line tells.
        first = (str(error).strip().splitlines() or ["no message"])[0]
        return first.rsplit("Check failed: ", 1)[-1].strip()


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
    if facts.num_missing_packets > _MAX_MISSING:
        return f"the header promises {facts.num_missing_packets} frames more than there are"
    if facts.num_hidden_packets:
        return f"an edit list hides {facts.num_hidden_packets} frames, which decord shows"
    if facts.max_bits > 8 or facts.has_alpha:
        return f"decord converts {facts.pixel_format} to other colours"
    if facts.distrust and (facts.container != "avi" or facts.pixel_format == "pal8"):
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
