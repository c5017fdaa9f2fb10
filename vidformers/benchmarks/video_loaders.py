"""How others read the views of a test video and a training clip, written to be measured beside ours.

Each is as fast as its own design allows: one decoding thread, audio off, nothing logged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from vidformers.compat import prepare_pytorchvideo
from vidformers.data.transforms import resize_frames, short_side_size
from vidformers.data.views import spatial_crops

__all__ = [
    "decode_only", "decord_clip", "decord_frames", "pytorchvideo_clip", "pytorchvideo_views",
    "slowfast_view", "slowfast_views",
]  # fmt: skip


def slowfast_view(
    path: Path,
    *,
    view: int,
    num_views: int,
    crop: int,
    num_crops: int,
    num_frames: int,
    sampling_rate: int,
    short_side: int,
    crop_size: int,
    mean: float,
    std: float,
) -> torch.Tensor:
    """One item of PySlowFast's test set, float32 (3, T, crop_size, crop_size), at 30 frames a second.

    Its PyAV path (datasets/decoder.py, kinetics.py, transform.py): open the file, seek to a little before the
    clip, decode until its end, convert every frame of the clip, take num_frames of them, normalise, scale,
    crop. (As published its PyAV path fails on every video; here it works.)
    """
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.average_rate is not None and stream.duration is not None
        fps, video_frames = float(stream.average_rate), stream.frames
        span = sampling_rate * num_frames / 30 * fps
        room = max(video_frames - span, 0)
        start = math.floor(room / 2) if num_views == 1 else view * math.floor(room / (num_views - 1))
        ticks = stream.duration / video_frames
        start_pts, end_pts = int(start * ticks), int((start + span - 1) * ticks)
        container.seek(max(start_pts - 1024, 0), stream=stream)
        clip = {}
        for frame in container.decode(stream):
            assert frame.pts is not None
            if frame.pts >= start_pts:
                clip[frame.pts] = frame
            if frame.pts > end_pts:
                break
        images = np.stack([clip[pts].to_rgb().to_ndarray() for pts in sorted(clip)])
    places = torch.linspace(0, span - 1, num_frames).clamp(0, len(images) - 1).long()
    frames = torch.from_numpy(images)[places]
    frames = (frames.float() / 255.0 - torch.tensor([mean] * 3)) / torch.tensor([std] * 3)
    # (T, H, W, 3) -> (3, T, H, W)
    frames = frames.permute(3, 0, 1, 2)
    size = short_side_size(frames.shape[2], frames.shape[3], short_side)
    if size != tuple(frames.shape[2:]):
        frames = F.interpolate(frames, size=size, mode="bilinear", align_corners=False)
    top, left, height, width = spatial_crops(*size, crop_size, num_crops)[crop]
    return frames[:, :, top : top + height, left : left + width].contiguous()


def slowfast_views(path: Path, *, num_views: int, num_crops: int, **clip: float) -> None:
    """All views of a video in PySlowFast's order; clip: the other arguments of `slowfast_view`."""
    for item in range(num_views * num_crops):
        slowfast_view(
            path,
            view=item // num_crops,
            crop=item % num_crops,
            num_views=num_views,
            num_crops=num_crops,
            **clip,  # type: ignore[arg-type]
        )


def pytorchvideo_views(
    path: Path,
    *,
    num_views: int,
    num_crops: int,
    num_frames: int,
    sampling_rate: int,
    short_side: int,
    crop_size: int,
    mean: float,
    std: float,
    video_seconds: Fraction,
) -> list[torch.Tensor]:
    """A pass over a LabeledVideoDataset of one video with a UniformClipSampler.

    num_views clips float32 (num_crops, 3, T, crop_size, crop_size), evenly spaced over a video that is longer
    than one clip. Its usual transforms, each once a clip; only the crop once a view.
    """
    prepare_pytorchvideo()
    from pytorchvideo.data import LabeledVideoDataset, UniformClipSampler
    from pytorchvideo.transforms import ShortSideScale, UniformTemporalSubsample
    from pytorchvideo.transforms.functional import uniform_crop
    from torch.utils.data import SequentialSampler

    subsample, scale = UniformTemporalSubsample(num_frames), ShortSideScale(short_side)
    crops = range(3) if num_crops == 3 else (1,)

    def transform(sample: dict) -> torch.Tensor:
        # (3, 64, H, W) -> (3, T, H, W)
        video = scale((subsample(sample["video"]) / 255.0 - mean) / std)
        return torch.stack([uniform_crop(video, crop_size, crop) for crop in crops])

    seconds = Fraction(num_frames * sampling_rate, 30)
    stride = (video_seconds - seconds) / (num_views - 1) if num_views > 1 else seconds
    dataset = LabeledVideoDataset(
        [(str(path), {"label": 0})],
        UniformClipSampler(seconds, stride=stride),
        video_sampler=SequentialSampler,
        transform=transform,
        decode_audio=False,
    )
    return list(dataset)


def pytorchvideo_clip(path: Path, *, start: int, num_frames: int, sampling_rate: int) -> torch.Tensor:
    """EncodedVideo.get_clip of the frames from `start` on, float32 (3, num_frames * sampling_rate, H, W)."""
    prepare_pytorchvideo()
    from pytorchvideo.data.encoded_video import EncodedVideo

    video = EncodedVideo.from_path(str(path), decode_audio=False)
    try:
        end = start + num_frames * sampling_rate
        return video.get_clip(Fraction(start, 30), Fraction(end, 30))["video"]
    finally:
        video.close()


def decord_frames(path: Path, indices: Sequence[int], *, short_side: int) -> torch.Tensor:
    """One open and one get_batch of the given frames, scaled as ours are: uint8 (U, h, w, 3)."""
    frames = decord_clip(path, indices)
    return resize_frames(frames, short_side_size(frames.shape[1], frames.shape[2], short_side))


def decord_clip(path: Path, indices: Sequence[int]) -> torch.Tensor:
    """uint8 (T, H, W, 3)"""
    import decord

    return torch.from_numpy(decord.VideoReader(str(path), num_threads=1).get_batch(indices).asnumpy())


def decode_only(path: Path, indices: Sequence[int]) -> int:
    """What decoding the frames at `indices` (of a file from `make_videos`) costs by itself.

    Opens, seeks, decodes until the last one and leaves out what nothing refers to; converts nothing. Returns
    how many of the wanted frames came out.
    """
    import av

    found = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        context.thread_count = 1
        assert stream.average_rate is not None and stream.time_base is not None
        ticks = 1 / (stream.average_rate * stream.time_base)
        wanted = {round(index * ticks) for index in indices}
        container.seek(min(wanted), stream=stream)
        for packet in container.demux(stream):
            context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            found += sum(frame.pts in wanted for frame in packet.decode())
            if found == len(wanted):
                break
    return found
