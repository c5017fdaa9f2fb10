"""The ablation table: scores of every video, clean and under every perturbation; all statistics come from it.

Legend: N readable videos, P perturbations, D draws (1 for a deterministic map), K classes.
"""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from vidformers.files import written_whole


@dataclass(frozen=True)
class PerturbedScores:
    """What the model said of every video under one perturbation, once for each draw."""

    name: str  # canonical text of the perturbation, such as block_shuffle[4]
    scores: np.ndarray  # (N, D, K) float32, view-ensembled probabilities
    displacement: np.ndarray  # (N, D) mean Kendall tau distance of the views' maps; NaN: not an index map


@dataclass(frozen=True)
class AblationTable:
    """Rows are the readable videos, in one order for all arrays; `failed` names the others."""

    video_ids: list[str]  # N
    labels: np.ndarray  # (N,) int64
    clean: np.ndarray  # (N, K) float32, view-ensembled probabilities
    perturbed: list[PerturbedScores]  # P
    class_names: list[str]  # K, the label as text where the name is unknown
    class_groups: list[str] | None  # K, such as appearance, direction, order, speed
    class_partners: list[int] | None  # K, label of the time-reversed class; the label itself or -1 for none
    failed: list[tuple[str, str, str]]  # path, reason, detail

    def __post_init__(self) -> None:
        num_videos, num_classes = self.clean.shape
        assert len(self.video_ids) == num_videos and self.labels.shape == (num_videos,)
        assert len(self.class_names) == num_classes
        assert self.class_groups is None or len(self.class_groups) == num_classes
        assert self.class_partners is None or len(self.class_partners) == num_classes
        names = [one.name for one in self.perturbed]
        assert len(set(names)) == len(names), names
        for one in self.perturbed:
            num_draws = one.displacement.shape[1]
            assert one.scores.shape == (num_videos, num_draws, num_classes), (one.name, one.scores.shape)
            assert one.displacement.shape == (num_videos, num_draws), (one.name, one.displacement.shape)

    def save(self, path: Path) -> None:
        """Write an npz without pickle; a reader sees the old file or the whole new one."""
        arrays: dict[str, np.ndarray] = {
            "video_ids": np.array(self.video_ids, dtype=np.str_),
            "labels": self.labels,
            "clean": self.clean,
            "perturbations": np.array([one.name for one in self.perturbed], dtype=np.str_),
            "class_names": np.array(self.class_names, dtype=np.str_),
            "failed": np.array(self.failed, dtype=np.str_),
        }
        if self.class_groups is not None:
            arrays["class_groups"] = np.array(self.class_groups, dtype=np.str_)
        if self.class_partners is not None:
            arrays["class_partners"] = np.array(self.class_partners, dtype=np.int64)
        for index, one in enumerate(self.perturbed):
            arrays[f"scores_{index}"] = one.scores
            arrays[f"displacement_{index}"] = one.displacement
        with written_whole(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for allow_pickle

    @classmethod
    def load(cls, path: Path) -> "AblationTable":
        """Read what `save` wrote.

        Raises FileNotFoundError where there is no file, ValueError where it is not an ablation table.
        """
        try:
            file = np.load(path)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise KeyError("perturbations")
            with file:
                return cls(
                    video_ids=file["video_ids"].tolist(),
                    labels=file["labels"],
                    clean=file["clean"],
                    perturbed=[
                        PerturbedScores(name, file[f"scores_{index}"], file[f"displacement_{index}"])
                        for index, name in enumerate(file["perturbations"].tolist())
                    ],
                    class_names=file["class_names"].tolist(),
                    class_groups=file["class_groups"].tolist() if "class_groups" in file else None,
                    class_partners=file["class_partners"].tolist() if "class_partners" in file else None,
                    failed=[(row[0], row[1], row[2]) for row in file["failed"].tolist()],
                )
        except (KeyError, BadZipFile, EOFError, ValueError) as error:
            raise ValueError(
                f"got {path}, which is not an ablation table ({error}); wanted the npz that a run with "
                "ABLATION.ENABLE True writes; try that run again"
            ) from None
