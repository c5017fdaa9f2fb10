"""Overlays: what is lit, and files that others can open."""

from pathlib import Path

import numpy as np
import pytest

from vidformers.report.overlays import heat, overlay, save_overlays, side_by_side

TITLE = 30  # rows of a strip above its frames
FRAMES = np.random.default_rng(0).integers(0, 255, (8, 30, 41, 3), dtype=np.uint8)


def one_box() -> np.ndarray:
    heat_map = np.full((8, 30, 41), 0.25)
    heat_map[3, 10:20, 5:15] = 0.75
    return heat_map


def test_the_box_is_lit_and_nothing_else() -> None:
    lit = overlay(FRAMES, one_box())
    grey = FRAMES.astype(float) @ [0.299, 0.587, 0.114]
    pale = (FRAMES + grey[..., None]) / 2
    inside = one_box() > 0.5
    assert np.abs(lit[~inside] - pale[~inside]).max() <= 0.51
    np.testing.assert_allclose(lit[inside], 0.25 * pale[inside] + 0.75 * np.array([252, 255, 164]), atol=0.51)


def test_a_map_without_differences_lights_nothing() -> None:
    for value in (0.0, 0.5):
        np.testing.assert_array_equal(
            overlay(FRAMES, np.full(FRAMES.shape[:3], value)), overlay(FRAMES, np.zeros(FRAMES.shape[:3]))
        )


def test_more_heat_is_brighter() -> None:
    brightness = heat(np.linspace(0, 1, 200)) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(brightness) > 0).all() and brightness[0] < 5 and brightness[-1] > 240


def test_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"wanted uint8 \(T, h, w, 3\) and \(T, h, w\)"):
        overlay(FRAMES, one_box()[:, :-1])
    with pytest.raises(ValueError, match="got frames float64"):
        overlay(FRAMES / 255, one_box())


def test_files_open_elsewhere(tmp_path: Path) -> None:
    from PIL import Image

    import vidformers as vf

    paths = save_overlays(tmp_path / "new", "clip", FRAMES, one_box(), frames_per_second=7.5)
    assert [path.name for path in paths] == ["clip.png", "clip.gif", "clip.mp4"]
    assert sorted((tmp_path / "new").iterdir()) == sorted(paths)
    clip = side_by_side(FRAMES, one_box())
    assert clip.shape == (8, 210, 7 * 41 * 2 + 4, 3)
    with Image.open(paths[0]) as image:
        assert image.size == (8 * (7 * 41 + 4), TITLE + 2 * (210 + 4))
    with Image.open(paths[1]) as image:
        assert image.n_frames == 8 and image.info["duration"] == pytest.approx(133, abs=4)
        assert image.size == clip.shape[2:0:-1]
    video = vf.open_video(paths[2])
    assert video.num_frames == 8 and (video.height, video.width) == (210, 578)
    decoded = video.get_frames([3])[0].numpy().astype(float)
    assert np.abs(decoded - clip[3]).mean() < 12  # noise is what H.264 likes least


def test_the_strip_has_a_title(tmp_path: Path) -> None:
    """Above the frames, black on white: as given, else the stem; a long one stays within the picture."""
    from PIL import Image

    heads = []
    for title in ("", "clip", "jumping: clip", "m" * 999):
        (path,) = save_overlays(
            tmp_path, "clip", FRAMES, one_box(), frames_per_second=7.5, title=title, formats=["png"]
        )
        heads.append(np.asarray(Image.open(path))[:TITLE])
    stem, same, longer, cut = heads
    assert np.array_equal(stem, same) and (stem.min(), stem.max()) == (0, 255)
    assert (longer < 128).sum() > (stem < 128).sum() > 0
    assert (cut[:, : cut.shape[1] // 2] < 128).sum() > 1000 and (cut[:, -4:] == 255).all()


def test_the_strip_says_when(tmp_path: Path) -> None:
    """Below each frame, black on white, and other letters for another time."""
    from PIL import Image

    (path,) = save_overlays(
        tmp_path,
        "clip",
        FRAMES,
        one_box(),
        frames_per_second=7.5,
        seconds=[*[0.0] * 7, 88.88],
        formats=["png"],
    )
    captions = np.asarray(Image.open(path))[TITLE + 2 * (210 + 4) :]
    width = 7 * 41 + 4
    first, same, last = (captions[:, n * width : (n + 1) * width] for n in (0, 1, 7))
    assert captions.shape == (23, 8 * width, 3) and (captions.min(), captions.max()) == (0, 255)
    assert np.array_equal(first, same) and (last < 128).sum() > (first < 128).sum() > 0
