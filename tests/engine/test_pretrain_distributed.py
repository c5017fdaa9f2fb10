"""Pre-training on two processes (gloo), replicated and sharded: the losses are those of one."""

from pathlib import Path

import pytest
import simplejson

from tests.warm_processes import RUN_NET, run_script

MODELS = {
    "vit": "{NAME: vit_tiny, ARGS: {embed_dim: 24, depth: 2, class_token: False}}",
    "mvit": "{ARGS: {depth: 2, dim_mul: [], head_mul: [], pool_q_stride: [[1, 1, 2, 2]]}}",
}
CONFIG = """
_BASE_: {base}
MODEL: {model}
PRETRAIN: {{ENABLE: True, MASK_RATIO: 0.5, DECODER_DIM: 16, DECODER_DEPTH: 1, DECODER_HEADS: 2}}
DATA: {{PATH_TO_DATA_DIR: {data}}}
TRAIN: {{BATCH_SIZE: 4, EVAL_PERIOD: 1}}
TEST: {{ENABLE: False, BATCH_SIZE: 3}}
SOLVER: {{OPTIMIZING_METHOD: sgd, MAX_EPOCH: 2, BASE_LR: 1e-1, EMA_DECAY: 0.5, CLIP_GRAD_L2NORM: 1.0}}
OUTPUT_DIR: {output}
"""


def run(folder: Path, data: Path, model: str, processes: int, *overrides: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "run.yaml"
    base = Path(__file__).with_name("tiny.yaml")
    config.write_text(CONFIG.format(base=base, model=MODELS[model], data=data, output=folder / "out"))
    result = run_script(RUN_NET, "--cfg", str(config), *overrides, processes=processes)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def losses(folder: Path) -> list[float]:
    rows = list(map(simplejson.loads, (folder / "out" / "log.jsonl").read_text().splitlines()))
    assert {row["num_videos"] for row in rows if row["event"] == "val"} == {8}
    return [row[key] for row in rows for key in ("loss", "ema_loss") if row.get(key) is not None]


@pytest.mark.parametrize(
    ("model", "overrides"),
    [("vit", ("TRAIN.MICRO_BATCHES", "2")), ("mvit", ()), ("vit", ("TRAIN.SHARD", "True")),
     ("mvit", ("TRAIN.SHARD", "True", "PRETRAIN.TARGET", "hog"))],
    ids=["vit-ddp-micro-batches", "mvit-ddp", "vit-fsdp2", "mvit-fsdp2-hog"],
)  # fmt: skip
def test_two_processes_have_the_losses_of_one(tmp_path, tiny_dataset, model, overrides):
    alone = tuple(word for word in overrides if word not in ("TRAIN.SHARD", "True"))
    run(tmp_path / "one", tiny_dataset, model, 1, *alone)
    said = run(tmp_path / "two", tiny_dataset, model, 2, *overrides)
    wanted = losses(tmp_path / "one")
    assert len(wanted) == 4 + 2 * 2  # steps, and two validations of the weights and of their averages
    assert losses(tmp_path / "two") == pytest.approx(wanted, rel=1e-4)
    assert (tmp_path / "two" / "out" / "reconstruction.png").is_file() and "2 x cpu" in said
    if "TRAIN.SHARD" in overrides:
        more = run(tmp_path / "two", tiny_dataset, model, 2, *overrides, "SOLVER.MAX_EPOCH", "3")
        assert "checkpoint_epoch_00002.sharded after 2 of 3 epochs" in more
        assert len(losses(tmp_path / "two")) == len(wanted) + 2 + 2
