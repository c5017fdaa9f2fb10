"""The torchcodec reader: optional (the `torchcodec` extra); the same frames as PyAV's, or a refusal that says
why.

torchcodec finds frames by timestamp, so each file is looked over with PyAV first (a few milliseconds) and
refused with reason ``unsupported by torchcodec`` where timestamps do not name frames, where it cannot seek,
or where it shows a frame another way round. Colours are equal bit by bit but for two kinds of file that it
converts to RGB otherwise: more than 8 bits (2 grey levels on average) and odd sizes with halved chroma (0.4).
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
from vidformers.data.readers.pyav import PyAVReader, StreamFacts, turn

__all__ = ["TorchCodecReader"]

_UNSUPPORTED = "unsupported by torchcodec"
_WITHOUT_SEEK_TABLE = {"mpegts", "mpeg"}


class TorchCodecReader:
    """See :class:`~vidformers.data.readers.base.VideoReader`.

    Attributes:
        path: as given.
        frame_pts, time_base: as in :class:`~vidformers.data.readers.pyav.PyAVReader`.
    """

    backend = "torchcodec"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        thread_count: int = 1,
        apply_rotation: bool = True,
        index_cache: str = "",
    ) -> None:
        """Opens the file. Raises VideoReadError, and ImportError where torchcodec does not load."""
        decoders = _import_decoders()
        self.path, local_path = local_video_path(path, self.backend)
        self._decoder: Any = None
        try:
            with PyAVReader(path, apply_rotation=apply_rotation, index_cache=index_cache) as first_look:
                facts = first_look.stream_facts
                orientation = first_look.display_orientation
                self.num_frames: int = first_look.num_frames
                self.fps: float = first_look.fps
                self.duration: float = first_look.duration
                self.height: int = first_look.height
                self.width: int = first_look.width
                self.frame_pts: np.ndarray | None = first_look.frame_pts
                self.time_base: Fraction = first_look.time_base
        except VideoReadError as error:
            raise VideoReadError(self.path, error.reason, error.detail, self.backend) from error
        refusal = why_refused(facts, orientation)
        if refusal:
            raise self._refuse(refusal)
        # It always turns frames as the file asks.
        self._turn_back = None if apply_rotation or not facts.is_turned else orientation.T
        # It takes every flagged key frame for one that decodes by itself, which an intra refresh is not.
        self._may_seek = facts.codec != "h264" or all_keys_are_idr(local_path)
        try:
            self._decoder = decoders.VideoDecoder(
                decoder_source(local_path),
                stream_index=facts.stream_index,
                dimension_order="NHWC",
                num_ffmpeg_threads=thread_count,
                seek_mode="exact",
            )
        except Exception as error:
            raise self._refuse(f"it cannot open the file ({_brief(error)})") from error
        count = len(self._decoder)
        if count != self.num_frames:
            raise self._refuse(f"it counts {count} frames where {self.num_frames} are shown")

    def get_frames(self, indices: FrameIndices) -> torch.Tensor:
        """See :meth:`VideoReader.get_frames`."""
        if self._decoder is None:
            raise ValueError(f"video '{self.path}' is closed; open it again to read frames")
        wanted, rows = np.unique(check_indices(indices, self.num_frames, self.path), return_inverse=True)
        try:
            frames = self._seek_and_read(wanted) if self._may_seek else self._read_through(wanted)
        except Exception as error:
            detail = f"decoding failed ({_brief(error)}); the pyav backend may tell more"
            raise VideoReadError(self.path, "truncated or damaged", detail, self.backend) from error
        if self._turn_back is not None:
            turned = [turn(frame, self._turn_back) for frame in frames.numpy()]
            frames = torch.from_numpy(np.stack(turned))
        if tuple(frames.shape[1:]) != (self.height, self.width, 3):
            height, width = frames.shape[1:3]
            raise self._refuse(f"it returns {width}x{height} frames, not {self.width}x{self.height}")
        if len(rows) == len(wanted) and (np.diff(rows) > 0).all():
            return frames.contiguous()
        return frames[torch.from_numpy(rows)]

    def _seek_and_read(self, wanted: np.ndarray) -> torch.Tensor:
        return self._decoder.get_frames_at(wanted.tolist()).data

    def _read_through(self, wanted: np.ndarray) -> torch.Tensor:
        chosen = set(wanted.tolist())
        frames = []
        for index in range(int(wanted[-1]) + 1):
            frame = self._decoder.get_frame_at(index).data
            if index in chosen:
                frames.append(frame)
        return torch.stack(frames)

    def close(self) -> None:
        self._decoder = None

    def __enter__(self) -> TorchCodecReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refuse(self, why: str) -> VideoReadError:
        return VideoReadError(self.path, _UNSUPPORTED, f"{why}; read it with the pyav backend", self.backend)


def why_refused(facts: StreamFacts, orientation: np.ndarray) -> str:
    """The reason why torchcodec would fail or return other frames than PyAV; empty if none is known."""
    if _WITHOUT_SEEK_TABLE & set(facts.container.split(",")):
        return f"torchcodec cannot seek in {facts.container} files"
    if facts.distrust:
        return f"torchcodec needs timestamps ({facts.distrust})"
    if round(float(np.linalg.det(orientation))) < 0:
        return "the file asks to be mirrored, which torchcodec does not do"
    return ""


def _import_decoders() -> ModuleType:
    # PyAV's wheel has the FFmpeg libraries that torchcodec's lacks. Loaded first, they serve it too where
    # they can be found under their plain names (readers/ffmpeg_links.py).
    importlib.import_module("av")
    try:
        return importlib.import_module("torchcodec.decoders")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the torchcodec backend is not installed ({error}); `pip install 'vidformers[torchcodec]'`, or "
            "use backend 'pyav'"
        ) from error
    except Exception as error:  # a RuntimeError several pages long
        raise ImportError(
            f"torchcodec is installed but does not load ({_brief(error)}). It needs FFmpeg 4 to 8 as shared "
            "libraries (`apt install ffmpeg`, or conda's ffmpeg), or PyAV's, by `export "
            "LD_LIBRARY_PATH=$(python -m vidformers.data.readers.ffmpeg_links)`, and a build for this torch "
            f"({torch.__version__}; 0.12 and 0.13 for a CPU one). Or use backend 'pyav'."
        ) from error


def _brief(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]
