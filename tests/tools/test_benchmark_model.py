"""tools/benchmark.py model: runs on tiny models, compares equal weights, prints all. No time is checked."""

import json
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import vidformers as vf
from tools.benchmark import main
from vidformers.benchmarks import memory, model
from vidformers.benchmarks.timing import timed_on_cuda
from vidformers.benchmarks.video_models import PAIRS, Pair, build_ours, build_theirs, clip_for

GROWTH = ((1, 2.0), (3, 2.0))
STRIDES = [[], [1, 2, 2], [], [1, 2, 2]]


def torchvision_tiny() -> nn.Module:
    from vidformers.compat import prepare_torchvision

    prepare_torchvision()
    from torchvision.models.video.mvit import MSBlockConfig, MViT

    blocks = [
        MSBlockConfig(
            num_heads=(1, 2, 2, 4)[i],
            input_channels=(16, 32, 32, 64)[i],
            output_channels=(32, 32, 64, 64)[i],
            kernel_q=[3, 3, 3] if STRIDES[i] else [],
            kernel_kv=[3, 3, 3],
            stride_q=STRIDES[i],
            stride_kv=[1, kv, kv],
        )
        for i, kv in enumerate((4, 2, 2, 1))
    ]
    return MViT(
        spatial_size=(32, 32),
        temporal_size=4,
        block_setting=blocks,
        residual_pool=False,
        residual_with_cls_embed=False,
        rel_pos_embed=False,
        proj_after_attn=False,
        num_classes=5,
    )


TINY = Pair(
    "mvit_tiny",
    torchvision_tiny,
    {
        "num_frames": 4,
        "image_size": 32,
        "num_classes": 5,
        "embed_dim": 16,
        "dim_mul": GROWTH,
        "head_mul": GROWTH,
        "pool_q_stride": [(i, *stride) for i, stride in enumerate(STRIDES) if stride],
    },
)


@pytest.fixture
def tiny_pair(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The models that are to be compiled: what is compiled is no matter here, and takes its time."""
    monkeypatch.setitem(PAIRS, "torchvision/tiny", TINY)
    monkeypatch.setattr(model, "GEMM_SIZE", {"cpu": 64})
    monkeypatch.setitem(model.TIME_BARS, ("torchvision/tiny", "forward"), 1e9)
    monkeypatch.setitem(model.MEMORY_BARS, ("torchvision/tiny", "train"), 1e9)
    monkeypatch.setattr(model, "in_fresh_process", lambda function, *arguments, **_: function(*arguments))
    compiled: list[nn.Module] = []
    monkeypatch.setattr(torch, "compile", lambda one: compiled.append(one) or one)
    return compiled


def test_every_row_is_printed_and_written(
    tiny_pair: list[nn.Module], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = "--models torchvision/tiny --batch 1 --rounds 2 --threads 1 --compile"
    main(["model", *settings.split(), "--out", str(tmp_path / "new")])
    assert len(tiny_pair) == 2 + 4  # of both, and again in the process that measures the memory of a step
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "new" / "model.md").read_text()
    found = json.loads((tmp_path / "new" / "model.json").read_text())
    assert [(row["step"], row["batch"], row["mode"]) for row in found["rows"]] == [
        (step, 1, mode) for step in ("forward", "train") for mode in ("eager", "compiled")
    ]
    for row in found["rows"]:
        ours, theirs = row["ours"], row["theirs"]
        assert row["wall_ratio"] == pytest.approx(theirs["wall_ms"] / ours["wall_ms"])
        assert row["cpu_ratio"] == pytest.approx(theirs["cpu_ms"] / ours["cpu_ms"])
        low, high = ours["wall_quartiles_ms"]
        assert 0 < low <= ours["wall_ms"] <= high
        assert ours["gemm_fraction"] > 0
        assert f"| {ours['wall_ms']:.1f} ({low:.1f}-{high:.1f}) |" in printed
    bars = [row["bar"] for row in found["rows"]]
    assert bars == ["at least 1e+09x: MISSED", "", "memory at most 1e+09x: met", ""]
    (agreement,) = found["agreements"]
    assert agreement["largest_difference"] < 1e-5 and agreement["largest_logit"] > 1e-2
    assert agreement["gflops"] > 0
    for word in ("date 20", "commit ", "machine ", "threads 1", "dtype fp32", "at most 0.0001: met"):
        assert word in printed


def test_half_precision_and_batches_have_no_bar(
    tiny_pair: list[nn.Module], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = "--models torchvision/tiny --steps forward --rounds 1 --threads 1"
    for more, batch in (("--dtype bf16 --batch 1", 1), ("--batch 2", 2)):
        main(["model", *settings.split(), *more.split()])
        printed = capsys.readouterr().out
        assert ("dtype bf16" in printed) == ("bf16" in more)
        assert not tiny_pair
        assert "### forward" in printed and "### train" not in printed
        assert f"| torchvision/tiny | {batch} | eager |" in printed and "at least" not in printed


def test_a_step_is_what_it_says() -> None:
    """Training mode, gradients and none left; evaluation without any."""
    ours, clips, settings = build_ours(TINY), clip_for(TINY, 2), model.Settings("cpu", "bf16", 1)
    seen = []

    def note(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        seen.append((module.training, torch.is_grad_enabled(), output.dtype))

    gradients = []
    ours.head.projection.register_forward_hook(note)
    ours.head.projection.weight.register_hook(lambda gradient: gradients.append(gradient.norm()))
    model.step_of(ours, clips, "forward", settings)()
    assert seen == [(False, False, torch.bfloat16)] and not gradients
    model.step_of(ours, clips, "train", settings)()
    assert seen[1:] == [(True, True, torch.bfloat16)] and gradients[0] > 0
    assert all(parameter.grad is None for parameter in ours.parameters())


def test_all_pairs_have_the_same_weights_and_no_dropout() -> None:
    """Names and shapes of the real models; nothing is computed."""
    for name, pair in PAIRS.items():
        with torch.device("meta"):
            ours = build_ours(pair)
        theirs = build_theirs(pair)
        count = sum(p.numel() for p in theirs.parameters())
        assert sum(p.numel() for p in ours.parameters()) == count, name
        rates = [
            m.p for m in theirs.modules() if isinstance(m, nn.Dropout) or "Stochastic" in type(m).__name__
        ]
        assert rates and not any(rates), name
        assert clip_for(pair, 2).shape == (2, 3, 16, 224, 224)


def allocate(mebibytes: int) -> int:
    def run() -> None:
        torch.ones(mebibytes * 2**18).sum()

    return memory.peak_bytes(run, torch.device("cpu"))


def test_memory_is_that_of_a_process_of_its_own() -> None:
    """More than what the step takes is held, and was held and freed, in this process: neither counts."""
    torch.ones(512 * 2**18).sum()
    held = torch.ones(300 * 2**18)
    found = memory.in_fresh_process(allocate, 200, maps_blocks=True)
    assert 199 <= found / 2**20 <= 220
    assert 199 <= allocate(200) / 2**20 <= 220, "also in a process that has had more before"
    assert held[0] == 1


def test_time_on_the_gpu_is_between_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is under way before the first, and the second has happened before it is read."""
    order: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool):
            assert enable_timing

        def record(self) -> None:
            order.append("record")

        def synchronize(self) -> None:
            order.append("wait for event")

        def elapsed_time(self, end: "Event") -> float:
            order.append("read")
            return 12.5

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: order.append("wait for all"))
    sample = timed_on_cuda(lambda: (order.append("run"), time.sleep(0.01)))
    assert order == ["wait for all", "record", "run", "record", "wait for event", "read"]
    assert sample.wall_ms == 12.5 and sample.cpu_ms < 9


def test_memory_on_the_gpu_is_above_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: order.append("wait"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 350)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: order.append("reset"))
    assert memory.peak_bytes(lambda: order.append("run"), torch.device("cuda")) == 250
    assert order == ["run", "wait", "reset", "run", "wait"]


def test_mistakes_are_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        main(["model", "--models", "torchvision/resnet"])
    assert "torchvision/mvit_v2_s" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        main(["model", "--device", "cuda"])
    assert "PyTorch finds no CUDA device here; try --device cpu" in capsys.readouterr().err


def test_the_work_is_that_of_the_definition() -> None:
    """Multiply-adds of the model as papers count them, however ours computes it."""
    agreement = model._agreement("tiny", TINY, {"ours": build_ours(TINY), "theirs": build_ours(TINY)})
    from vidformers.analysis.complexity import count_flops

    tiny = vf.create_model(TINY.ours, **TINY.overrides)
    assert agreement.gflops == pytest.approx(count_flops(tiny, (1, 3, 4, 32, 32))["total"] / 1e9)
