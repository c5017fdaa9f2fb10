"""A map laid over the frames that it explains: PNG strip, GIF, MP4."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidformers.files import written_whole
from vidformers.report.strips import enlarged, save_image, strip_image, titled

FORMATS = ("png", "gif", "mp4")
# Black, violet, red, orange, pale yellow: brighter all the way, so that it is read without colours too.
_HEAT = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], dtype=np.float32)
_MIN_HEIGHT = 192  # pixels of a frame; smaller ones are enlarged by a whole number
_STRONGEST = 0.995  # the share of a map's pixels that lies below full heat: one pixel must not dim the rest


def heat(values: np.ndarray) -> np.ndarray:
    """0..1 (...) -> colours float32 (..., 3) in 0..255."""
    stops = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(values, stops, channel) for channel in _HEAT.T], axis=-1).astype(np.float32)


def overlay(frames: np.ndarray, heat_map: np.ndarray) -> np.ndarray:
    """Frames uint8 (T, h, w, 3), paled, and lit where the map (T, h, w) is high; of the same shape.

    The map is scaled once for the clip, from its smallest value on, so that frames compare. A map that is the
    same everywhere lights nothing. Raises ValueError for a map of another size.
    """
    if frames.dtype != np.uint8 or frames.shape != (*heat_map.shape, 3):
        raise ValueError(
            f"got frames {frames.dtype} {frames.shape} and a map {heat_map.shape}; wanted uint8 (T, h, w, 3) "
            "and (T, h, w)"
        )
    values = heat_map.astype(np.float32) - heat_map.min()
    top = float(np.quantile(values, _STRONGEST)) or float(values.max())
    values = (values / top).clip(0, 1) if top > 0 else values
    grey = frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    pale = (frames + grey[..., None]) / 2
    share = (0.75 * values)[..., None]  # of heat in a pixel: something of the frame always shows
    return ((1 - share) * pale + share * heat(values)).round().clip(0, 255).astype(np.uint8)


def side_by_side(frames: np.ndarray, heat_map: np.ndarray) -> np.ndarray:
    """The frames, and beside them the overlay, enlarged to be looked at: uint8 (T, H, W, 3)."""
    both = [enlarged(clip, _MIN_HEIGHT) for clip in (frames, overlay(frames, heat_map))]
    gap = np.full((*both[0].shape[:2], 4, 3), 255, dtype=np.uint8)
    return np.concatenate([both[0], gap, both[1]], axis=2)


def save_overlays(
    folder: Path,
    stem: str,
    frames: np.ndarray,
    heat_map: np.ndarray,
    *,
    frames_per_second: float,
    seconds: Sequence[float] = (),
    title: str = "",
    formats: Sequence[str] = FORMATS,
) -> list[Path]:
    """Write `stem`.png (a row of frames, a row of overlays), .gif and .mp4 (both side by side).

    frames uint8 (T, h, w, 3), heat_map (T, h, w); seconds (T,): when each frame comes in its video, for the
    strip to say below its frames. title: what the strip says above them; empty: `stem`. Returns the paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}.{kind}" for kind in formats]
    for path, kind in zip(paths, formats, strict=True):
        if kind == "png":
            captions = [f"{moment:.2f} s" for moment in seconds]
            rows = [frames, overlay(frames, heat_map)]
            strip = strip_image(rows, captions=captions, min_height=_MIN_HEIGHT)
            save_image(path, titled(strip, title or stem))
        elif kind == "gif":
            _save_gif(path, side_by_side(frames, heat_map), frames_per_second)
        else:
            _save_mp4(path, side_by_side(frames, heat_map), frames_per_second)
    return paths


def _save_gif(path: Path, clip: np.ndarray, frames_per_second: float) -> None:
    from PIL import Image

    first, *others = [Image.fromarray(frame) for frame in clip]
    buffer = io.BytesIO()
    # Browsers play frames shorter than 20 ms at their own speed.
    duration = max(20, round(1000 / frames_per_second))
    first.save(buffer, format="GIF", save_all=True, append_images=others, duration=duration, loop=0)
    with written_whole(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def _save_mp4(path: Path, clip: np.ndarray, frames_per_second: float) -> None:
    from vidformers.data.motion import write_video

    height, width = clip.shape[1:3]
    clip = np.pad(clip, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")  # H.264 wants even
    rate = max(1, round(frames_per_second))
    with written_whole(path) as temporary:
        write_video(temporary, clip, fps=rate, x264_options={"crf": "18", "preset": "veryfast"})
