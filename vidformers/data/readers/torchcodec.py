"""The torchcodec reader: optional (the `torchcodec` extra); the same frames as PyAV's, or a refusal that says
why.

torchcodec finds frames by timestamp: a file is refused with reason ``unsupported by torchcodec`` where
timestamps do not name frames, where it cannot seek, or where it shows a frame another way round. Colours are
equal bit by bit but for two kinds of file that it converts to RGB otherwise: more than 8 bits (2 grey levels
on average) and odd sizes with halved chroma (0.4).
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import numpy as np
import torch

from vidformers.data.readers.base import MAX_FRAME_PIXELS
from vidformers.data.readers.index import StreamFacts, all_keys_are_idr, decoder_source
from vidformers.data.readers.looked_over import LookedOverReader
from vidformers.data.readers.pixels import turn

__all__ = ["TorchCodecReader"]

_WITHOUT_SEEK_TABLE = {"mpegts", "mpeg"}


class TorchCodecReader(LookedOverReader):
    """See :class:`~vidformers.data.readers.base.VideoReader`."""

    backend = "torchcodec"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        thread_count: int = 1,
        apply_rotation: bool = True,
        index_cache: str = "",
        max_frame_pixels: int = MAX_FRAME_PIXELS,
    ) -> None:
        """Opens the file. Raises VideoReadError, and ImportError where torchcodec does not load."""
        decoders = _import_decoders()
        super().__init__(
            path,
            apply_rotation=apply_rotation,
            index_cache=index_cache,
            max_frame_pixels=max_frame_pixels,
        )
        facts, orientation = self._facts, self._orientation
        refusal = why_refused(facts, orientation)
        if refusal:
            raise self._refuse(refusal)
        # It always turns frames as the file asks.
        self._turn_back = None if apply_rotation or not facts.is_turned else orientation.T
        # It takes every flagged key frame for one that decodes by itself, which an intra refresh is not.
        self._may_seek = facts.codec != "h264" or all_keys_are_idr(self._local_path)
        try:
            self._decoder = decoders.VideoDecoder(
                decoder_source(self._local_path),
                stream_index=facts.stream_index,
                dimension_order="NHWC",
                num_ffmpeg_threads=thread_count,
                seek_mode="exact",
            )
        except Exception as error:
            raise self._refuse(f"it cannot open the file ({_brief(error)})") from error
        self._check_count()

    def _read(self, wanted: np.ndarray) -> torch.Tensor:
        if self._may_seek:
            frames = self._decoder.get_frames_at(wanted.tolist()).data
        else:
            frames = self._read_through(wanted)
        if self._turn_back is None:
            return frames.contiguous()
        return torch.from_numpy(np.stack([turn(frame, self._turn_back) for frame in frames.numpy()]))

    def _read_through(self, wanted: np.ndarray) -> torch.Tensor:
        chosen = set(wanted.tolist())
        frames = []
        for index in range(int(wanted[-1]) + 1):
            frame = self._decoder.get_frame_at(index).data
            if index in chosen:
                frames.append(frame)
        return torch.stack(frames)

    @staticmethod
    def _brief(error: BaseException) -> str:
        return _brief(error)


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
