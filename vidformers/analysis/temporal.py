"""Temporal dependence: the same clips, decoded once, shown to the model in the order of each index map.

Legend: N videos, T frames of a clip, n_t temporal views, n_s spatial crops, E entries of the plan (a
perturbation and a draw), K classes. The perturbations are in `perturbations.py`, the statistics of the table
that comes out in `temporal_summary.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from vidformers.analysis.ablation_table import AblationTable, PerturbedScores
from vidformers.analysis.perturbations import (
    Perturbation,
    displacement,
    donors,
    draw_generator,
    parse_perturbation,
    parse_perturbations,
)
from vidformers.data.datasets.clips import TestVideos
from vidformers.data.loader import build_loader
from vidformers.data.views import VideoViews, gather_views

PERTURBATIONS = (
    "identity", "shuffle", "block_shuffle[2]", "block_shuffle[4]", "local_shuffle[2]", "local_shuffle[4]",
    "reverse", "freeze[middle]", "repeat[2]", "hflip", "noise[shuffle]",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One evaluation of every video: a perturbation and the number of its draw."""

    perturbation: Perturbation
    draw: int


@dataclass(frozen=True)
class PerturbedVideo:
    """One video with the clips of all entries: row e * n_t + view of `views.view_index` is entry e.

    displacement: (E,) mean over the views, NaN where the entry is not an index map. donors: views of the
    other videos that splices take frames from, by kind of donor.
    """

    views: VideoViews
    displacement: np.ndarray
    donors: dict[str, VideoViews]


def temporal_patch_stride(model: nn.Module) -> int:
    """Frames that the model's patch embedding merges: the temporal stride of its first 3D convolution."""
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            return int(module.stride[0])
    raise ValueError(
        f"{type(model).__name__} has no 3D convolution to read the temporal patch stride from; give tubelet= "
        "(ABLATION.TUBELET)"
    )


def make_plan(perturbations: Sequence[Perturbation], *, num_draws: int, num_units: int) -> list[Entry]:
    """The clean clips first, then every draw of every perturbation; an oracle needs all frozen positions."""
    entries = [Entry(parse_perturbation("identity"), 0)]
    for perturbation in perturbations:
        if perturbation.is_oracle:
            frozen = [Perturbation("freeze", (i,), perturbation.by_tubelet) for i in range(num_units)]
            entries += [Entry(one, 0) for one in frozen]
        else:
            draws = num_draws if perturbation.is_random else 1
            entries += [Entry(perturbation, draw) for draw in range(draws)]
    return [entries[0], *dict.fromkeys(entries[1:])]


class PerturbedVideos(Dataset):
    """The videos of `dataset` with the clips of every entry, each decoded once (and once as a donor)."""

    def __init__(self, dataset: TestVideos, plan: Sequence[Entry], *, seed: int, tubelet: int) -> None:
        self.dataset = dataset
        self.plan = list(plan)
        self.seed = seed
        self.tubelet = tubelet
        labels = np.array([record.label for record in dataset.records])
        kinds = {str(e.perturbation.arguments[1]) for e in plan if e.perturbation.kind == "splice"}
        self.donor_indices = {kind: donors(labels, kind, seed=seed) for kind in sorted(kinds)}
        # Orders take the frames of the views; another speed has frames of its own, and a donor is a video.
        speeds = {e.perturbation for e in plan if e.perturbation.kind == "speed"}
        self.item_bytes = dataset.item_bytes * (1 + len(speeds) + len(kinds))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> PerturbedVideo:
        video_id = self.dataset.records[index].video_id
        moved: np.ndarray = np.full(len(self.plan), np.nan)

        def frame_rows(views: np.ndarray, num_video_frames: int) -> np.ndarray:
            rows, moved[:] = self.frame_rows(views, num_video_frames, video_id)
            return rows

        views = self.dataset.load(index, frame_rows)
        donor_views = {}
        for kind, donor in self.donor_indices.items():
            donor_views[kind] = self.dataset[int(donor[index])]
        return PerturbedVideo(views, moved, donor_views)

    def frame_rows(
        self, views: np.ndarray, num_video_frames: int, video_id: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Views (n_t, T) of one video -> frames of every entry (E * n_t, T), and their displacements (E,)."""
        rows, moved = [], np.full((len(self.plan), len(views)), np.nan)
        for e, entry in enumerate(self.plan):
            for v, view in enumerate(views):
                generator = draw_generator(seed=self.seed, video_id=video_id, view=v, draw=entry.draw)
                perturbation = entry.perturbation
                if perturbation.kind == "speed":
                    rows.append(_change_speed(view, float(perturbation.arguments[0]), num_video_frames))
                    moved[e, v] = 0.0
                    continue
                shown = perturbation
                if perturbation.kind == "noise":  # its row is the clip whose distance the noise shall have
                    shown = parse_perturbation(str(perturbation.arguments[0]))
                index_map = shown.index_map(num_frames=len(view), tubelet=self.tubelet, generator=generator)
                rows.append(view[index_map])
                if perturbation.kind not in ("hflip", "noise", "splice"):
                    moved[e, v] = displacement(index_map)
        return np.stack(rows), moved.mean(axis=1)


def _change_speed(view: np.ndarray, factor: float, num_video_frames: int) -> np.ndarray:
    """Frames `factor` times as far from the view's middle, held at the ends of the video; cut to whole frames
    as the samplers do."""
    middle = (view[0] + view[-1]) / 2
    return np.clip(np.floor(middle + factor * (view - middle)), 0, num_video_frames - 1).astype(np.int64)


def entry_clips(
    video: PerturbedVideo,
    entries: Sequence[tuple[int, int]],
    *,
    plan: Sequence[Entry],
    seed: int,
    tubelet: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str,
) -> Tensor:
    """Clips as the model gets them: float32 (len(entries), 3, T, h, w), for pairs (entry, view).

    A view is temporal view * n_s + crop, as in testing.
    """
    num_crops = len(video.views.crops)
    num_views = video.views.num_views // len(plan)

    def gather(views: VideoViews, rows: list[int]) -> Tensor:
        return gather_views(views, rows, mean=mean, std=std, device=device)

    clips = gather(video.views, [e * num_views + view for e, view in entries])
    for clip, (e, view) in zip(clips, entries, strict=True):
        perturbation = plan[e].perturbation
        if perturbation.kind == "hflip":
            clip.copy_(clip.flip(-1))
        elif perturbation.kind == "splice":
            start = perturbation.donor_start(num_frames=clip.shape[1], tubelet=tubelet)
            donor = video.donors[str(perturbation.arguments[1])]
            clip[:, start:] = gather(donor, [view])[0, :, start:]
        elif perturbation.kind == "noise":
            clean = gather(video.views, [view])[0]
            generator = draw_generator(
                seed=seed, video_id=video.views.video_id, view=view // num_crops, draw=plan[e].draw
            )
            noise = torch.Generator().manual_seed(int(generator.integers(2**62)))
            white = torch.randn(clip.shape, generator=noise).to(clip.device)
            distance = (clip - clean).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()  # (3, 1, 1, 1)
            clip.copy_(clean + distance * white)
    return clips


@torch.inference_mode()
def temporal_dependence(
    model: nn.Module,
    dataset: TestVideos,
    *,
    perturbations: Sequence[str] = PERTURBATIONS,
    num_draws: int = 3,
    seed: int = 0,
    tubelet: int | None = None,
    batch_size: int = 8,
    mean: Sequence[float] = (0.45, 0.45, 0.45),
    std: Sequence[float] = (0.225, 0.225, 0.225),
    ensemble_method: str = "sum",
    device: torch.device | str = "cpu",
    num_workers: int = 0,
    max_bytes_ahead: int | None = None,
    class_names: Sequence[str] | None = None,
    class_groups: Sequence[str] | None = None,
    class_partners: Sequence[int] | None = None,
) -> AblationTable:
    """Scores of every video, clean and under each perturbation, with nothing else changed.

    Each video is opened and decoded once for all of them; frames, views, crops and transforms are those of
    the clean clips, only the vector of frame indices differs. A draw depends on (seed, video id, temporal
    view, number of the draw) alone. A video's clips are scored in batches of their own, so that neither the
    order of the videos nor the number of processes can change a number. With `torch.distributed` initialised
    each process scores its share of the videos and every one returns the whole table.

    Args:
        model: clips (B, 3, T, H, W) -> logits (B, K).
        dataset: `TestVideos`, or `ArrayVideos` for frames in memory.
        perturbations: texts as in `perturbations.KINDS`.
        num_draws: draws of each random perturbation; the others have one.
        tubelet: frames that the model's patch embedding merges, for "...@tubelet"; None reads it off the
            model.
        batch_size: clips scored at once.
        ensemble_method: "sum" or "max" over a video's views, of the probabilities.
        max_bytes_ahead: what the workers together may have read ahead (data/loader.py); None: 2 videos each.
        class_names, class_groups, class_partners: one a class, for the report; a class's partner is the class
            that its reversed videos belong to. A model may have more classes, or fewer, than are named.

    Raises ValueError when a perturbation is unknown or meaningless for the clips, when videos have sets of
    labels, or when not one video can be read.
    """
    several = [record.video_id for record in dataset.records if record.labels is not None]
    if several:
        raise ValueError(
            f"got videos with sets of labels, such as {several[0]}; wanted one label a video, as it is top-1 "
            "accuracies that are compared; try another dataset"
        )
    num_frames = dataset.num_frames
    if tubelet is None:
        tubelet = temporal_patch_stride(model)
    if num_draws < 1:
        raise ValueError(f"num_draws={num_draws}; use 1 or more")
    parsed = parse_perturbations(perturbations, num_frames=num_frames, tubelet=tubelet)
    if not parsed:
        raise ValueError("no perturbation is named; give some, as 'shuffle' and 'reverse'")
    by_tubelet = any(p.is_oracle and p.by_tubelet for p in parsed)
    plan = make_plan(
        parsed, num_draws=num_draws, num_units=num_frames // tubelet if by_tubelet else num_frames
    )
    videos = PerturbedVideos(dataset, plan, seed=seed, tubelet=tubelet)
    rank, world_size = _rank_and_world_size()
    loader = build_loader(
        videos,
        batch_size=1,
        shuffle=False,
        drop_last=False,
        num_workers=num_workers,
        pin_memory=False,
        seed=seed,
        max_bytes_ahead=max_bytes_ahead,
        collate_fn=lambda items: items[0],
        rank=rank,
        world_size=world_size,
    )

    scores: dict[int, np.ndarray] = {}  # video -> (E, K)
    moved: dict[int, np.ndarray] = {}  # video -> (E,)
    failed: dict[int, list[tuple[str, str, str]]] = {}
    was_training = model.training
    model.eval()
    try:
        for video in tqdm(loader, desc="ablation", unit="video", dynamic_ncols=True, disable=rank != 0):
            index = video.views.index
            failed[index] = _failures(dataset, video)
            if video.views.failure or any(donor.failure for donor in video.donors.values()):
                continue
            scores[index] = _score(
                model, video, plan, seed, tubelet, batch_size, mean, std, ensemble_method, device
            )
            moved[index] = video.displacement
    finally:
        model.train(was_training)
    if world_size > 1:
        scores, moved, failed = (_merged_over_processes(part) for part in (scores, moved, failed))
    failures = [failure for index in sorted(failed) for failure in failed[index]]
    if not scores:
        raise ValueError(
            f"not one of the {len(videos)} videos can be read; the first: {failures[0][0]}: {failures[0][2]}"
        )
    return _table(dataset, parsed, plan, scores, moved, failures, class_names, class_groups, class_partners)


def _score(
    model: nn.Module,
    video: PerturbedVideo,
    plan: Sequence[Entry],
    seed: int,
    tubelet: int,
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    ensemble_method: str,
    device: torch.device | str,
) -> np.ndarray:
    """(E, K) float32 probabilities of one video, its views ensembled."""
    num_views = video.views.num_views // len(plan)
    pairs = [(e, view) for e in range(len(plan)) for view in range(num_views)]
    probabilities = []
    for start in range(0, len(pairs), batch_size):
        clips = entry_clips(
            video,
            pairs[start : start + batch_size],
            plan=plan,
            seed=seed,
            tubelet=tubelet,
            mean=mean,
            std=std,
            device=device,
        )
        logits = model(clips).float()
        if not logits.isfinite().all():
            raise ValueError(
                f"the model gives values that are not finite for {video.views.video_id}; its weights are "
                "damaged, or the precision is too low (TEST.PRECISION; try fp32)"
            )
        probabilities.append(logits.softmax(dim=1).cpu())
    by_view = torch.cat(probabilities).view(len(plan), num_views, -1)  # (E * V, K) -> (E, V, K)
    return (by_view.amax(dim=1) if ensemble_method == "max" else by_view.mean(dim=1)).numpy()


def _failures(dataset: TestVideos, video: PerturbedVideo) -> list[tuple[str, str, str]]:
    """(path, reason, detail): of the video if it cannot be read or is damaged, else of a donor."""
    path = dataset.records[video.views.index].path
    if video.views.failure:
        return [(path, *video.views.failure)]
    for donor in video.donors.values():
        if donor.failure:
            return [(path, "donor unreadable", f"its splice takes frames from {donor.video_id}")]
    return [(path, "damaged", video.views.damage)] if video.views.damage else []


def _table(
    dataset: TestVideos,
    perturbations: Sequence[Perturbation],
    plan: Sequence[Entry],
    scores: dict[int, np.ndarray],
    moved: dict[int, np.ndarray],
    failures: list[tuple[str, str, str]],
    class_names: Sequence[str] | None,
    class_groups: Sequence[str] | None,
    class_partners: Sequence[int] | None,
) -> AblationTable:
    order = sorted(scores)
    labels = np.array([dataset.records[i].label for i in order], dtype=np.int64)
    all_scores = np.stack([scores[i] for i in order])  # (N, E, K)
    all_moved = np.stack([moved[i] for i in order])  # (N, E)
    num_classes = all_scores.shape[2]
    names, groups, partners = class_names or [], class_groups or [], class_partners or []
    perturbed = []
    for perturbation in perturbations:
        if perturbation.is_oracle:
            rows = [
                e
                for e, entry in enumerate(plan)
                if entry.perturbation.kind == "freeze"
                and isinstance(entry.perturbation.arguments[0], int)
                and entry.perturbation.by_tubelet == perturbation.by_tubelet
            ]
            own = all_scores[np.arange(len(order))[:, None], rows, labels[:, None]]  # (N, positions)
            pick = own.argmax(axis=1) if perturbation.arguments[0] == "best" else own.argmin(axis=1)
            chosen = all_scores[np.arange(len(order)), np.array(rows)[pick]][:, None]  # (N, 1, K)
            perturbed.append(PerturbedScores(perturbation.name, chosen, np.zeros((len(order), 1))))
        else:
            # Entry 0 is the clean one; the perturbation "identity" is an evaluation of its own.
            rows = [e for e, entry in enumerate(plan) if e and entry.perturbation == perturbation]
            perturbed.append(PerturbedScores(perturbation.name, all_scores[:, rows], all_moved[:, rows]))
    return AblationTable(
        video_ids=[dataset.records[i].video_id for i in order],
        labels=labels,
        clean=all_scores[:, 0],
        perturbed=perturbed,
        class_names=[names[k] if k < len(names) else str(k) for k in range(num_classes)],
        class_groups=[groups[k] if k < len(groups) else "unnamed" for k in range(num_classes)]
        if groups
        else None,
        # A partner that the model does not know is none.
        class_partners=[
            int(partners[k]) if k < len(partners) and partners[k] < num_classes else -1
            for k in range(num_classes)
        ]
        if partners
        else None,
        failed=failures,
    )


def example_clips(
    dataset: TestVideos, perturbations: Sequence[str], *, index: int, seed: int, tubelet: int
) -> dict[str, np.ndarray]:
    """What the model is shown of one video: name -> uint8 (T, h, w, 3), first draw, middle view, middle crop.

    "clean" comes first. Empty if the video cannot be read. The frames are those that `temporal_dependence`
    scores.
    """
    parsed = parse_perturbations(perturbations, num_frames=dataset.num_frames, tubelet=tubelet)
    shown = [p for p in parsed if not p.is_oracle]
    plan = make_plan(shown, num_draws=1, num_units=dataset.num_frames)
    video = PerturbedVideos(dataset, plan, seed=seed, tubelet=tubelet)[index]
    if video.views.failure or any(donor.failure for donor in video.donors.values()):
        return {}
    num_crops = len(video.views.crops)
    view = video.views.num_views // len(plan) // num_crops // 2 * num_crops + num_crops // 2
    clips = entry_clips(
        video,
        [(e, view) for e in range(len(plan))],
        plan=plan,
        seed=seed,
        tubelet=tubelet,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        device="cpu",
    )
    # (E, 3, T, h, w) in 0..1 -> (E, T, h, w, 3) bytes
    pixels = (clips.permute(0, 2, 3, 4, 1) * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    return dict(zip(["clean", *(entry.perturbation.name for entry in plan[1:])], pixels, strict=True))


def _rank_and_world_size() -> tuple[int, int]:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _merged_over_processes(part: dict) -> dict:
    parts: list[dict] = [{} for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, part)
    return {index: value for one in parts for index, value in one.items()}
