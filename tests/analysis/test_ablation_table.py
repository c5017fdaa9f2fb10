"""The ablation table comes back from its file as it was, and another file is refused by name."""

import dataclasses

import numpy as np
import pytest

from vidformers.analysis.ablation_table import AblationTable, PerturbedScores


def table(**kwargs: object) -> AblationTable:
    rng = np.random.default_rng(0)
    fields = {
        "video_ids": ["a/é.mp4", "b.mp4"],
        "labels": np.array([2, 0]),
        "clean": rng.random((2, 3), dtype=np.float32),
        "perturbed": [
            PerturbedScores("shuffle", rng.random((2, 4, 3), dtype=np.float32), rng.random((2, 4))),
            PerturbedScores("hflip", rng.random((2, 1, 3), dtype=np.float32), np.full((2, 1), np.nan)),
        ],
        "class_names": ["left", "right", "red"],
        "class_groups": ["direction", "direction", "appearance"],
        "class_partners": [1, 0, 2],
        "failed": [("c.mp4", "unreadable", "no video stream")],
    }
    return AblationTable(**{**fields, **kwargs})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changed",
    [{}, {"class_groups": None, "class_partners": None, "failed": []}, {"perturbed": []}],
    ids=["full", "without groups", "clean only"],
)
def test_a_saved_table_comes_back_as_it_was(tmp_path, changed):
    before = table(**changed)
    before.save(tmp_path / "ablation.npz")
    after = AblationTable.load(tmp_path / "ablation.npz")
    for field in dataclasses.fields(AblationTable):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if field.name == "perturbed":
            assert [one.name for one in old] == [one.name for one in new]
            for a, b in zip(old, new, strict=True):
                np.testing.assert_array_equal(a.scores, b.scores, strict=True)
                np.testing.assert_array_equal(a.displacement, b.displacement, strict=True)
        elif isinstance(old, np.ndarray):
            np.testing.assert_array_equal(old, new, strict=True)
        else:
            assert old == new
    assert [path.name for path in tmp_path.iterdir()] == ["ablation.npz"]  # no .part left behind


def test_saving_twice_gives_the_same_bytes(tmp_path):
    table().save(tmp_path / "one.npz")
    table().save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_another_file_is_refused_by_name(tmp_path):
    np.savez(tmp_path / "predictions.npz", scores=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("not an archive")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ["predictions.npz", "array.npy", "text.npz", "empty.npz"]:
        with pytest.raises(ValueError, match=rf"{name}, which is not an ablation table"):
            AblationTable.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        AblationTable.load(tmp_path / "absent.npz")


def test_a_perturbation_of_another_shape_is_caught():
    with pytest.raises(AssertionError, match="reverse"):
        table(perturbed=[PerturbedScores("reverse", np.zeros((3, 1, 3)), np.zeros((2, 1)))])
