"""Strips of frames: as HTML for report.html (what the model was shown), and as one picture."""

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from vidformers.files import written_whole
from vidformers.report.summary import one_line

_FRAME_HEIGHT = 72  # pixels stored, at most
_GAP = 4  # pixels between the frames and rows of a picture
_FRAMES = 8  # of a clip in a picture, at most
MIN_HEIGHT = 96  # pixels of a frame in a picture; smaller ones are enlarged by a whole number
_CAPTION, _TITLE = 15, 18  # pixels of their letters


def _data_uri(frame: np.ndarray) -> str:
    """(h, w, 3) uint8 as a JPEG of at most `_FRAME_HEIGHT` rows."""
    from PIL import Image

    image = Image.fromarray(frame)
    image.thumbnail((4 * _FRAME_HEIGHT, _FRAME_HEIGHT), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def enlarged(clip: np.ndarray, min_height: int = MIN_HEIGHT) -> np.ndarray:
    """(T, h, w, 3) with each pixel repeated until frames are large enough to be looked at."""
    scale = -(-min_height // clip.shape[1])
    return clip.repeat(scale, axis=1).repeat(scale, axis=2)


def strip_image(
    clips: Sequence[np.ndarray], *, captions: Sequence[str] = (), min_height: int = MIN_HEIGHT
) -> np.ndarray:
    """A row of frames for each clip, uint8 (T, h, w, 3) -> (H, W, 3); of long ones the even spread of 8.

    captions: (T,) of the frames, written below the last row; none for clips without.
    """
    rows = []
    for clip in clips:
        places = np.linspace(0, len(clip) - 1, min(_FRAMES, len(clip))).round().astype(int)
        large = enlarged(clip[places], min_height)
        framed = np.pad(large, ((0, 0), (0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
        rows.append(np.concatenate(list(framed), axis=1))
    if captions:
        rows.append(_captions([captions[place] for place in places], large.shape[2], _GAP))
    return np.concatenate(rows)


def _captions(texts: Sequence[str], width: int, gap: int) -> np.ndarray:
    """Each text in the middle below a frame of this width, uint8 (H, W, 3) on white."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (len(texts) * (width + gap), _CAPTION + 2 * _GAP), "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(_CAPTION)
    for number, text in enumerate(texts):
        pen.text((number * (width + gap) + width / 2, _GAP), text, fill="black", font=font, anchor="mt")
    return np.asarray(image)


def titled(image: np.ndarray, text: str) -> np.ndarray:
    """The picture uint8 (H, W, 3) below a line of text, black on white; cut where it has no room."""
    from PIL import Image, ImageDraw, ImageFont

    line = Image.new("RGB", (image.shape[1], _TITLE + 3 * _GAP), "white")
    pen, font = ImageDraw.Draw(line), ImageFont.load_default(_TITLE)
    text = " ".join(text.split())
    length = len(text)
    while length > 1 and pen.textlength(one_line(text, length), font=font) > image.shape[1] - 2 * _GAP:
        length -= 1
    pen.text((_GAP, _GAP), one_line(text, length), fill="black", font=font)
    return np.concatenate([np.asarray(line), image])


def strip_markup(clips: Sequence[np.ndarray], label: str) -> Markup:
    """`strip_image` as HTML, one JPEG; `label` says what it shows to those who do not see it."""
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.fromarray(strip_image(clips))
    image.save(buffer, format="JPEG", quality=85, subsampling=0)
    return Markup(
        '<span class="picture" role="img" aria-label="{}" style="aspect-ratio:{}/{};max-width:{}px;'
        'background-image:url(data:image/jpeg;base64,{})"></span>'
    ).format(label, *image.size, image.width, base64.b64encode(buffer.getvalue()).decode())


def save_image(path: Path, image: np.ndarray) -> None:
    """Write uint8 (H, W, 3) as a PNG."""
    from PIL import Image

    with written_whole(path) as temporary, open(temporary, "wb") as file:
        Image.fromarray(image).save(file, format="PNG")


def source_positions(clips: Mapping[str, np.ndarray]) -> dict[str, list[int | None]]:
    """For each frame of each clip, the position in the first clip that holds the same pixels; None: nowhere.

    Of several such positions (a still scene), its own if that is one, else the first.
    """
    clean = [frame.tobytes() for frame in next(iter(clips.values()))]
    first: dict[bytes, int] = {}
    for position, pixels in enumerate(clean):
        first.setdefault(pixels, position)
    positions = {}
    for name, clip in clips.items():
        frames = [frame.tobytes() for frame in clip]
        positions[name] = [
            slot if slot < len(clean) and pixels == clean[slot] else first.get(pixels)
            for slot, pixels in enumerate(frames)
        ]
    return positions


def save_clips(path: Path, clips: Mapping[str, np.ndarray]) -> None:
    """Write the clips of `render_strips`, all of one shape, each different frame once (npz, no pickle)."""
    frames: dict[bytes, np.ndarray] = {}
    rows = [[frame.tobytes() for frame in clip] for clip in clips.values()]
    for clip, row in zip(clips.values(), rows, strict=True):
        frames.update(zip(row, clip, strict=True))
    places = {pixels: place for place, pixels in enumerate(frames)}
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            names=np.array(list(clips), dtype=np.str_),
            frames=np.stack(list(frames.values())),
            index=np.array([[places[pixels] for pixels in row] for row in rows], dtype=np.int64),
        )


def load_clips(path: Path) -> dict[str, np.ndarray]:
    """What `save_clips` wrote: name -> uint8 (T, h, w, 3), the clean clip first."""
    with np.load(path) as saved:
        frames = saved["frames"]
        return {str(name): frames[row] for name, row in zip(saved["names"], saved["index"], strict=True)}


def render_strips(clips: Mapping[str, np.ndarray]) -> Markup:
    """One row of frames for each clip, aligned, each frame with the position it was filmed at.

    clips: name -> uint8 (T, h, w, 3), the clean clip first. Each different frame is stored once, so that
    twenty perturbations of one clip cost little more than the clip. Raises ValueError on other arrays.
    """
    for name, clip in clips.items():
        if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[-1] != 3:
            raise ValueError(
                f"got {name} as {clip.dtype} {clip.shape}; wanted uint8 (T, height, width, 3); try "
                "the frames before normalisation"
            )
    length = len(next(iter(clips.values())))
    positions = source_positions(clips)
    images: dict[str, str] = {}
    rows = []
    for name, clip in clips.items():
        cells = []
        for frame, position in zip(clip, positions[name], strict=True):
            height, width = frame.shape[:2]
            key = "frame-" + hashlib.sha256(repr(frame.shape).encode() + frame.tobytes()).hexdigest()[:12]
            images.setdefault(key, _data_uri(np.ascontiguousarray(frame)))
            # The bar's hue says where in the clip the frame belongs, so that disorder is seen at a glance.
            place = Markup("") if position is None else Markup(
                ' style="--place:{}%"').format(round(100 * position / max(length - 1, 1)))  # fmt: skip
            label = "not a frame of the clean clip" if position is None else f"frame {position}"
            text = "–" if position is None else position
            cells.append(
                Markup(
                    '<li{place}><span class="frame {key}" role="img" aria-label="{label}" '
                    'style="aspect-ratio:{width}/{height}"></span><span class="position" aria-hidden="true">'
                    "{text}</span></li>"
                ).format(place=place, key=key, label=label, width=width, height=height, text=text)
            )
        rows.append(
            Markup('<div class="strip"><h4>{}</h4><ol>{}</ol></div>').format(name, Markup("").join(cells))
        )
    styles = Markup("").join(
        Markup(".{}{{background-image:url({})}}\n").format(key, Markup(uri)) for key, uri in images.items()
    )
    return Markup(
        '<style>\n{}</style><div class="scroll strips" tabindex="0" role="region" '
        'aria-label="Strips of frames">{}</div>'
    ).format(styles, Markup("").join(rows))
