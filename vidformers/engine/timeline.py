"""What a model answers from moment to moment of a long video: a window that slides over a stream."""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vidformers.checkpoints.metadata import Protocol
from vidformers.data.readers import VideoReader, VideoReadError, open_video
from vidformers.data.readers.base import frame_seconds
from vidformers.data.readers.streaming import stream_frames
from vidformers.data.transforms import normalize_clips, resize_frames, short_side_size
from vidformers.data.views import spatial_crops
from vidformers.engine.predict import Predictor, video_path

# A clip of the "segment" rule is a whole video: about as long as those of Something-Something.
SEGMENT_SECONDS = 4.0
UNREADABLE = "(not readable)"
_DECODING_THREADS = 4
_MOST_STRETCHES = 5  # of a damaged video, in words


@dataclass(frozen=True)
class Timeline:
    """Class probabilities over time: float32 (W, K) for W windows, window w from start_seconds[w] to
    end_seconds[w] after the first frame. class_names: in the order of the K classes.

    peak_frames_held: decoded frames that were in memory at once at most, which does not depend on the length
    of the video. damage: what is wrong with a video that could be read all the same; "" for nothing.
    damaged_seconds: the stretches, (start, end), in which frames do not decode or refer to such as do not.
    For a frame that does not decode the one before stands, as players show it; a window of which more than
    half is such frames has no answer: its probabilities are NaN.
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
    damaged_seconds: tuple[tuple[float, float], ...] = ()

    def segments(self) -> list[tuple[float, float, str, float]]:
        """(start, end, class, mean probability) of the stretches over which the first answer stays the same.

        Between two windows it changes halfway between their centres. Windows without an answer are stretches
        of the class `UNREADABLE`, with a probability of NaN.
        """
        names = [*self.class_names, UNREADABLE]
        unreadable = np.isnan(self.probabilities[:, 0])
        answers = np.where(unreadable, len(names) - 1, self.probabilities.argmax(axis=1))
        scores = np.where(unreadable, np.nan, self.probabilities.max(axis=1))
        centres = (self.start_seconds + self.end_seconds) / 2
        borders = [0.0, *((centres[1:] + centres[:-1]) / 2).tolist(), self.duration_seconds]
        first = [0, *(np.flatnonzero(np.diff(answers)) + 1).tolist(), len(answers)]
        return [
            (
                borders[begin],
                borders[end],
                names[answers[begin]],
                float(scores[begin:end].mean()),
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
    path = video_path(video)
    threads = min(_DECODING_THREADS, os.cpu_count() or 1)
    with open_video(path, predictor.backend, thread_count=threads) as reader:
        starts = window_starts(reader.duration, window, hop)
        rows = window_frames(reader, starts, window, protocol)
        damaged = DamagedFrames()
        scores, peak = _score_windows(predictor, reader, rows, damaged, progress)
        stretches = damaged.seconds(reader)
        signs = [*getattr(reader, "damage", ()), *damaged.text(stretches), *_gaps(reader, window)]
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
            damage="; ".join(signs),
            damaged_seconds=stretches,
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


class DamagedFrames:
    """What a stream told of damage: ranges of frames, and wanted ones that did not decode."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []
        self.lost: set[int] = set()

    def add(self, first: int, end: int) -> None:
        self.ranges.append((first, end))

    def seconds(self, reader: VideoReader) -> tuple[tuple[float, float], ...]:
        """The stretches in seconds, in order, those that touch joined."""
        shown = np.append(frame_seconds(reader), reader.duration)
        joined: list[tuple[int, int]] = []
        for first, end in sorted([*self.ranges, *((index, index + 1) for index in self.lost)]):
            if joined and first <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((first, end))
        return tuple((float(shown[first]), float(shown[end])) for first, end in joined)

    def text(self, stretches: Sequence[tuple[float, float]]) -> list[str]:
        """For `Timeline.damage`."""
        if not stretches:
            return []
        shown = [f"{start:.1f} to {end:.1f} s" for start, end in stretches[:_MOST_STRETCHES]]
        more = ", ..." if len(stretches) > _MOST_STRETCHES else ""
        lost = f" (looked for and lost: {len(self.lost)})" if self.lost else ""
        return [f"frames not sound from {', '.join(shown)}{more}{lost}"]


def _gaps(reader: VideoReader, window: float) -> list[str]:
    """For `Timeline.damage`: where no frame comes for longer than a window. Recordings of screens may be so,
    and files of which a demuxer has passed over a damaged part."""
    shown = frame_seconds(reader)
    before = np.flatnonzero(np.diff(shown) > max(window, 2 / reader.fps))
    if not len(before):
        return []
    texts = [f"{shown[i]:.1f} to {shown[i + 1]:.1f} s" for i in before[:_MOST_STRETCHES]]
    return [f"no frame from {', '.join(texts)}{', ...' if len(before) > _MOST_STRETCHES else ''}"]


def _every_frame(
    stream: Iterator[tuple[int, torch.Tensor]],
    wanted: np.ndarray,
    damaged: DamagedFrames,
    reader: VideoReader,
) -> Iterator[tuple[int, torch.Tensor]]:
    """(index, frame) of all `wanted`; for those that the stream leaves out the frame before, or if there is
    none the next, which are noted as lost. Raises VideoReadError where no frame comes."""
    place = 0
    last: torch.Tensor | None = None
    for index, frame in stream:
        while wanted[place] < index:
            damaged.lost.add(int(wanted[place]))
            yield int(wanted[place]), frame if last is None else last
            place += 1
        yield index, frame
        last = frame
        place += 1
    if last is None:
        reason, detail = "truncated or damaged", "none of its frames decodes"
        raise VideoReadError(reader.path, reason, detail, getattr(reader, "backend", ""))
    for index in wanted[place:].tolist():
        damaged.lost.add(index)
        yield index, last


def _score_windows(
    predictor: Predictor,
    reader: VideoReader,
    rows: np.ndarray,
    damaged: DamagedFrames,
    progress: Callable[[int, int], None],
) -> tuple[np.ndarray, int]:
    """Class probabilities (W, K) of the windows (W, T), and how many frames were held at most."""
    protocol = predictor.protocol

    def centre(frames: torch.Tensor) -> torch.Tensor:
        size = short_side_size(frames.shape[1], frames.shape[2], protocol.short_side)
        resized = resize_frames(frames, size, mode=protocol.resize_mode)
        top, left, height, width = spatial_crops(*size, protocol.crop_size, 1)[0].tolist()
        return resized[:, top : top + height, left : left + width].contiguous()

    wanted = np.unique(rows)
    streamed = stream_frames(reader, wanted, centre, on_damage=damaged.add)
    stream = _every_frame(streamed, wanted, damaged, reader)
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
    probabilities = np.concatenate(scores)
    lost = np.isin(rows, list(damaged.lost)).mean(axis=1)
    probabilities[lost > 0.5] = np.nan
    return probabilities, peak
