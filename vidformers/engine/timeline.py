"""What a model answers from moment to moment of a long video: a window that slides over a stream."""

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from vidformers.checkpoints.metadata import Protocol
from vidformers.data.readers import VideoReader, open_video
from vidformers.data.readers.base import frame_seconds
from vidformers.data.readers.streaming import stream_frames
from vidformers.data.transforms import normalize_clips, resize_frames, short_side_size
from vidformers.data.views import spatial_crops
from vidformers.engine.predict import Predictor

# A clip of the "segment" rule is a whole video: about as long as those of Something-Something.
SEGMENT_SECONDS = 4.0
_DECODING_THREADS = 4


@dataclass(frozen=True)
class Timeline:
    """Class probabilities over time: float32 (W, K) for W windows, window w from start_seconds[w] to
    end_seconds[w] after the first frame. class_names: in the order of the K classes.

    peak_frames_held: decoded frames that were in memory at once at most, which does not depend on the length
    of the video. damage: what is wrong with a video that could be read all the same; "" for nothing.
    """

    path: str
    duration_seconds: float
    window_seconds: float
    hop_seconds: float
    start_seconds: np.ndarray
    end_seconds: np.ndarray
    probabilities: np.ndarray
    class_names: list[str]
    protocol: Protocol
    peak_frames_held: int
    damage: str = ""

    def segments(self) -> list[tuple[float, float, str, float]]:
        """(start, end, class, mean probability) of the stretches over which the first answer stays the same.

        Between two windows it changes halfway between their centres.
        """
        answers = self.probabilities.argmax(axis=1)
        centres = (self.start_seconds + self.end_seconds) / 2
        borders = [0.0, *((centres[1:] + centres[:-1]) / 2).tolist(), self.duration_seconds]
        first = [0, *(np.flatnonzero(np.diff(answers)) + 1).tolist(), len(answers)]
        return [
            (
                borders[begin],
                borders[end],
                self.class_names[answers[begin]],
                float(self.probabilities[begin:end, answers[begin]].mean()),
            )
            for begin, end in itertools.pairwise(first)
        ]


def predict_timeline(
    predictor: Predictor,
    video: str | os.PathLike[str],
    *,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Timeline:
    """Slide a window over `video` and score one clip of each: its centre crop, frames over the whole window.

    window_seconds: None is the length of the clips that the model was trained on. hop_seconds: from the start
    of a window to that of the next; None is half a window. The last window ends with the video; one shorter
    than a window is one window. progress: told (windows done, windows).

    The file is decoded once from its start, and no more frames are held than the windows of a batch need,
    however long it is. Raises VideoReadError, and ValueError for a window or hop that is not positive.
    """
    protocol = predictor.protocol
    window = clip_seconds(protocol) if window_seconds is None else window_seconds
    hop = window / 2 if hop_seconds is None else hop_seconds
    if not (window > 0 and hop > 0):
        raise ValueError(f"got a window of {window:g} s and a hop of {hop:g} s; both must be above 0")
    path = os.fspath(video)
    threads = min(_DECODING_THREADS, os.cpu_count() or 1)
    with open_video(path, predictor.backend, thread_count=threads) as reader:
        starts = window_starts(reader.duration, window, hop)
        rows = window_frames(reader, starts, window, protocol)
        scores, peak = _score_windows(predictor, reader, rows, progress)
        return Timeline(
            path=path,
            duration_seconds=reader.duration,
            window_seconds=window,
            hop_seconds=hop,
            start_seconds=starts,
            end_seconds=np.minimum(starts + window, reader.duration),
            probabilities=scores,
            class_names=predictor.class_names,
            protocol=protocol,
            peak_frames_held=peak,
            damage="; ".join(getattr(reader, "damage", ())),
        )


def clip_seconds(protocol: Protocol) -> float:
    """How much of a video a clip of the protocol shows."""
    if protocol.temporal_sampling == "segment":
        return SEGMENT_SECONDS
    return protocol.num_frames * protocol.sampling_rate / protocol.target_fps


def window_starts(duration: float, window: float, hop: float) -> np.ndarray:
    """Starts in seconds, (W,): every `hop`, and one more where the end of the video would not be seen.

    >>> window_starts(10.0, 4.0, 2.5)
    array([0. , 2.5, 5. , 6. ])
    """
    last = max(duration - window, 0.0)
    starts = np.arange(0.0, last + 1e-6, hop)
    return np.append(starts, last) if last - starts[-1] > 1e-6 else starts


def window_frames(reader: VideoReader, starts: np.ndarray, window: float, protocol: Protocol) -> np.ndarray:
    """Frame indices of the windows, int64 (W, T), ascending in each: what is on the screen at T moments.

    Of a video with constant frame rate those are the frames that `clip_sampling` takes for a clip that begins
    with the window and is as long. Where frames have times of their own (phones record so) these count.
    """
    shown = frame_seconds(reader)
    # The times of frames are whole ticks.
    tick = 0.0 if getattr(reader, "frame_pts", None) is None else float(reader.time_base)  # type: ignore[attr-defined]
    if protocol.temporal_sampling == "segment":
        offsets = (np.arange(protocol.num_frames) + 0.5) / protocol.num_frames * window
    else:
        offsets = np.linspace(0.0, max(window - 1 / reader.fps, 0.0), protocol.num_frames)
    # Containers round times to their ticks: a frame counts from a tick before it.
    early = min(tick, 0.1 / reader.fps) + 1e-6
    moments = starts[:, None] + offsets + early
    return np.clip(np.searchsorted(shown, moments, side="right") - 1, 0, reader.num_frames - 1)


def _score_windows(
    predictor: Predictor, reader: VideoReader, rows: np.ndarray, progress: Callable[[int, int], None]
) -> tuple[np.ndarray, int]:
    """Class probabilities (W, K) of the windows (W, T), and how many frames were held at most."""
    protocol = predictor.protocol

    def centre(frames: torch.Tensor) -> torch.Tensor:
        size = short_side_size(frames.shape[1], frames.shape[2], protocol.short_side)
        resized = resize_frames(frames, size, mode=protocol.resize_mode)
        top, left, height, width = spatial_crops(*size, protocol.crop_size, 1)[0].tolist()
        return resized[:, top : top + height, left : left + width].contiguous()

    stream = stream_frames(reader, np.unique(rows), centre)
    held: dict[int, torch.Tensor] = {}
    batch: list[torch.Tensor] = []
    scores: list[np.ndarray] = []
    newest, peak = -1, 0
    for number, row in enumerate(rows.tolist()):
        while newest < row[-1]:
            newest, frame = next(stream)
            held[newest] = frame
        batch.append(torch.stack([held[index] for index in row]))
        peak = max(peak, len(held) + len(batch) * len(row))
        still_wanted = rows[number + 1, 0] if number + 1 < len(rows) else newest + 1
        held = {index: frame for index, frame in held.items() if index >= still_wanted}
        if len(batch) == predictor.batch_size or number + 1 == len(rows):
            # (B, T, h, w, 3) -> (B, 3, T, h, w)
            clips = torch.stack(batch).permute(0, 4, 1, 2, 3).contiguous().to(predictor.device)
            scores.append(predictor.score(normalize_clips(clips, protocol.mean, protocol.std)))
            batch = []
            progress(number + 1, len(rows))
    return np.concatenate(scores), peak
