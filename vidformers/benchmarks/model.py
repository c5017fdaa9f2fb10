"""`tools/benchmark.py model`: our models beside the same ones of other libraries, with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

import vidformers as vf
from vidformers.analysis.complexity import count_flops
from vidformers.benchmarks.environment import describe_environment
from vidformers.benchmarks.memory import in_fresh_process, peak_bytes
from vidformers.benchmarks.timing import Sample, samples, timed, timed_on_cuda
from vidformers.benchmarks.video_models import PAIRS, Pair, build_ours, build_theirs, clip_for

__all__ = ["PAIRS", "STEPS", "Measurement", "as_json", "measure_models", "report_lines"]

PACKAGES = ("vidformers", "torch", "torchvision", "pytorchvideo")
FORWARD, TRAIN = "forward", "train"
STEPS = (FORWARD, TRAIN)
PASSES = {FORWARD: 1, TRAIN: 3}  # by the usual count a backward pass computes twice what a forward pass does
EAGER, COMPILED = "eager", "compiled"
OURS, THEIRS, GEMM = "ours", "theirs", "gemm"
GEMM_SIZE = {"cpu": 2048, "cuda": 8192}

# Of one clip, in fp32, not compiled, on the CPU: the time of theirs / ours is to be at least this, the memory
# of ours / theirs at most that. And the logits of all pairs are to agree.
TIME_BARS = {
    ("torchvision/mvit_v1_b", FORWARD): 1.6,
    ("pytorchvideo/mvit_b_16x4", FORWARD): 2.0,
    ("torchvision/mvit_v2_s", FORWARD): 1.7,
    ("torchvision/mvit_v2_s", TRAIN): 1.85,
    ("torchvision/swin3d_t", FORWARD): 1.15,
}
MEMORY_BARS = {("torchvision/mvit_v2_s", TRAIN): 0.6}
LOGIT_BAR = 1e-4

COLUMNS = (
    "theirs", "batch", "mode", "ours, ms (quartiles)", "theirs, ms (quartiles)", "theirs / ours",
    "the same of CPU time", "ours, of GEMM", "theirs, of GEMM", "ours, MiB", "theirs, MiB", "ours / theirs",
    "bar",
)  # fmt: skip


@dataclass(frozen=True)
class Agreement:
    """A pair's logits on one clip, fp32 on the CPU, and its multiply-adds (ours, as papers count)."""

    pair: str
    ours: str
    gflops: float
    largest_difference: float
    largest_logit: float


@dataclass(frozen=True)
class Cost:
    """Medians, and the quartiles of the time that passed, of one model."""

    wall_ms: float
    wall_quartiles_ms: tuple[float, float]
    cpu_ms: float
    gemm_fraction: float  # of the rate of a matrix product in the same rounds
    memory_mib: float


@dataclass(frozen=True)
class Row:
    pair: str
    step: str
    batch: int
    mode: str
    ours: Cost
    theirs: Cost
    wall_ratio: float  # median of theirs / median of ours
    cpu_ratio: float
    memory_ratio: float  # ours / theirs
    bar: str


@dataclass(frozen=True)
class Measurement:
    environment: dict[str, str]
    gemm_gflops: float  # best median of all groups, a multiply-add counted as two
    agreements: list[Agreement]
    rows: list[Row]


@dataclass(frozen=True)
class Settings:
    """What all contenders have in common."""

    device: str
    dtype: str
    threads: int


def measure_models(
    *,
    names: Sequence[str],
    steps: Sequence[str],
    batches: Sequence[int],
    rounds: int,
    threads: int,
    device: str,
    dtype: str,
    compiled: bool,
) -> Measurement:
    """Measures the pairs `names` of PAIRS, interleaved; medians over the rounds.

    steps: of STEPS. threads: of PyTorch's operators on the CPU. device: "cpu" or "cuda". dtype: "fp32", or
    "bf16" by autocast. compiled: each model by torch.compile too. Raises ValueError for CUDA without one.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("got --device cuda; PyTorch finds no CUDA device here; try --device cpu")
    settings = Settings(device, dtype, threads)
    environment = describe_environment(PACKAGES)
    environment |= {"threads": str(threads), "device": device, "dtype": dtype, "rounds": str(rounds)}
    if device == "cuda":
        environment["gpu"] = torch.cuda.get_device_name()
    agreements, rows, gemm_rates = [], [], []
    for name in tqdm(names, desc="benchmark", unit="pair", dynamic_ncols=True):
        # What a process has done before with its memory decides how dear it is to get more: up to a fifth of
        # the time of models that ask for much of it. So each pair has one of its own.
        agreement, of_pair, rates = in_fresh_process(
            measure_pair, name, PAIRS[name], steps, batches, rounds, compiled, settings
        )
        agreements.append(agreement)
        rows += of_pair
        gemm_rates += rates
    return Measurement(environment, max(gemm_rates) / 1e6, agreements, rows)


def measure_pair(
    name: str,
    pair: Pair,
    steps: Sequence[str],
    batches: Sequence[int],
    rounds: int,
    compiled: bool,
    settings: Settings,
) -> tuple[Agreement, list[Row], list[float]]:
    """-> the pair's agreement and rows, and the rates of the matrix product. For a fresh process."""
    torch.set_num_threads(settings.threads)
    models = {OURS: build_ours(pair), THEIRS: build_theirs(pair)}
    vf.load_weights(models[OURS], models[THEIRS].state_dict())
    agreement = _agreement(name, pair, models)
    for model in models.values():
        model.to(settings.device)
    modes = {EAGER: models}
    if compiled:
        modes[COMPILED] = {side: torch.compile(model) for side, model in models.items()}  # type: ignore[misc]
    rows, gemm_rates = [], []
    for step in steps:
        for batch in batches:
            taken = _samples(modes, clip_for(pair, batch), step, rounds, settings)
            gemm = 2 * GEMM_SIZE[settings.device] ** 3 / median(sample.wall_ms for sample in taken[GEMM, ""])
            gemm_rates.append(gemm)
            work = 2e9 * agreement.gflops * batch * PASSES[step]
            for mode in modes:
                costs = {
                    side: _cost(
                        taken[side, mode],
                        work=work,
                        gemm=gemm,
                        memory=in_fresh_process(
                            step_memory, pair, side, step, batch, mode == COMPILED, settings, maps_blocks=True
                        ),
                    )
                    for side in (OURS, THEIRS)
                }
                rows.append(_row(name, step, batch, mode, costs, settings))
    return agreement, rows, gemm_rates


def _agreement(name: str, pair: Pair, models: Mapping[str, nn.Module]) -> Agreement:
    clip = clip_for(pair, 1)
    with torch.inference_mode():
        ours, theirs = (models[side].eval()(clip) for side in (OURS, THEIRS))
    with torch.device("meta"):
        flops = count_flops(vf.create_model(pair.ours, **pair.overrides), clip.shape)["total"]
    return Agreement(
        pair=name,
        ours=pair.ours,
        gflops=flops / 1e9,
        largest_difference=(ours - theirs).abs().max().item(),
        largest_logit=theirs.abs().max().item(),
    )


def _samples(
    modes: Mapping[str, Mapping[str, nn.Module]],
    clips: Tensor,
    step: str,
    rounds: int,
    settings: Settings,
) -> dict[tuple[str, str], list[Sample]]:
    """Of (side, mode), and of the matrix product."""
    size, dtype = GEMM_SIZE[settings.device], torch.bfloat16 if settings.dtype == "bf16" else torch.float32
    matrix = torch.randn(size, size, device=settings.device, dtype=dtype)
    # The matrix product in the same round as the models, not beforehand: clocks and neighbours change.
    contenders: dict[tuple[str, str], Callable[[], object]] = {(GEMM, ""): lambda: matrix @ matrix}
    for mode, models in modes.items():
        for side, model in models.items():
            contenders[side, mode] = step_of(model, clips, step, settings)
    for run in contenders.values():
        run()  # what is done once: compiling, first allocations
    timer = timed_on_cuda if settings.device == "cuda" else timed
    return samples(contenders, rounds=rounds, timer=timer)  # type: ignore[arg-type,return-value]


def step_of(model: nn.Module, clips: Tensor, step: str, settings: Settings) -> Callable[[], None]:
    """A forward pass in eval mode without gradients; or, in training mode, forward, cross entropy, backward.

    There is no optimizer step, which costs the same whoever wrote the model; the gradients are dropped at the
    end.
    """
    clips = clips.to(settings.device)
    labels = torch.zeros(len(clips), dtype=torch.long, device=settings.device)
    precision = torch.autocast(settings.device, torch.bfloat16, enabled=settings.dtype == "bf16")

    def forward() -> None:
        model.eval()
        with torch.inference_mode(), precision:
            model(clips)

    def train() -> None:
        model.train()
        with precision:
            logits = model(clips)
        F.cross_entropy(logits.float(), labels).backward()
        model.zero_grad(set_to_none=True)

    return forward if step == FORWARD else train


def step_memory(pair: Pair, side: str, step: str, batch: int, compiled: bool, settings: Settings) -> int:
    """Peak memory of a step above the model and the clips, in bytes. For a fresh process."""
    torch.set_num_threads(settings.threads)
    model = (build_ours if side == OURS else build_theirs)(pair).to(settings.device)
    if compiled:
        model = torch.compile(model)  # type: ignore[assignment]
    run = step_of(model, clip_for(pair, batch), step, settings)
    return peak_bytes(run, torch.device(settings.device))


def _cost(taken: Sequence[Sample], *, work: float, gemm: float, memory: int) -> Cost:
    """work: operations of a step; gemm: those of the matrix product in a millisecond."""
    walls = [sample.wall_ms for sample in taken]
    low, middle, high = quantiles(walls, n=4, method="inclusive") if len(walls) > 1 else walls * 3
    return Cost(
        wall_ms=middle,
        wall_quartiles_ms=(low, high),
        cpu_ms=median(sample.cpu_ms for sample in taken),
        gemm_fraction=work / middle / gemm,
        memory_mib=memory / 2**20,
    )


def _row(pair: str, step: str, batch: int, mode: str, costs: Mapping[str, Cost], settings: Settings) -> Row:
    ours, theirs = costs[OURS], costs[THEIRS]
    wall_ratio, memory_ratio = theirs.wall_ms / ours.wall_ms, ours.memory_mib / theirs.memory_mib
    bars = []
    if (batch, mode, settings.dtype, settings.device) == (1, EAGER, "fp32", "cpu"):
        if (bar := TIME_BARS.get((pair, step))) is not None:
            bars.append(f"at least {bar:g}x: {'met' if wall_ratio >= bar else 'MISSED'}")
        if (bar := MEMORY_BARS.get((pair, step))) is not None:
            bars.append(f"memory at most {bar:g}x: {'met' if memory_ratio <= bar else 'MISSED'}")
    return Row(
        pair=pair,
        step=step,
        batch=batch,
        mode=mode,
        ours=ours,
        theirs=theirs,
        wall_ratio=wall_ratio,
        cpu_ratio=theirs.cpu_ms / ours.cpu_ms,
        memory_ratio=memory_ratio,
        bar="; ".join(bars),
    )


def report_lines(measurement: Measurement) -> list[str]:
    """The measurement as a Markdown text."""
    environment = measurement.environment
    size = GEMM_SIZE[environment["device"]]
    lines = [", ".join(f"{name} {value}" for name, value in environment.items())]
    lines += [
        "",
        f"Matrix product of {size}^3: {measurement.gemm_gflops:.1f} GFLOP/s, a multiply-add counted as two.",
        "",
        "| theirs | ours | multiply-adds, G | largest difference of logits | largest logit | bar |",
        "|---|---|---|---|---|---|",
    ]
    for one in measurement.agreements:
        met = "met" if one.largest_difference <= LOGIT_BAR else "MISSED"
        lines.append(
            f"| {one.pair} | {one.ours} | {one.gflops:.1f} | {one.largest_difference:.1e} | "
            f"{one.largest_logit:.2f} | at most {LOGIT_BAR:g}: {met} |"
        )
    for step in dict.fromkeys(row.step for row in measurement.rows):
        lines += ["", f"### {step}", "", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        for row in measurement.rows:
            if row.step == step:
                cells = [
                    row.pair,
                    str(row.batch),
                    row.mode,
                    *(_time(cost) for cost in (row.ours, row.theirs)),
                    f"**{row.wall_ratio:.2f}**",
                    f"{row.cpu_ratio:.2f}",
                    *(f"{cost.gemm_fraction:.2f}" for cost in (row.ours, row.theirs)),
                    *(f"{cost.memory_mib:.0f}" for cost in (row.ours, row.theirs)),
                    f"{row.memory_ratio:.2f}",
                    row.bar,
                ]
                lines.append(f"| {' | '.join(cells)} |")
    return lines


def _time(cost: Cost) -> str:
    low, high = cost.wall_quartiles_ms
    return f"{cost.wall_ms:.1f} ({low:.1f}-{high:.1f})"


def as_json(measurement: Measurement) -> dict[str, Any]:
    """The measurement as plain data."""
    return asdict(measurement)
