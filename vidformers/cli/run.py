"""Train, test and analyse as one YAML file says:

    vidformers-run --cfg mvit_b_16x4 [KEY VALUE ...]
    python tools/run_net.py --cfg configs/mvit_b_16x4.yaml [KEY VALUE ...]     (the same, in a checkout)

--cfg is a YAML file, or the name of one of those that come with the package. Every key that can follow is in
vidformers/config/defaults.py. Exit code: 0 all is done, 1 it is said what is wrong.
"""

import argparse
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vidformers.cli import exit_code
from vidformers.config import load_config


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cfg", required=True, help="YAML file, ours or PySlowFast's, or the name of one of ours"
    )
    parser.add_argument("--opts", nargs="*", default=[], help="KEY VALUE ..., as PySlowFast accepts them")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="e.g. SOLVER.BASE_LR 1e-4")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    logging.getLogger("vidformers.checkpoints").setLevel(logging.ERROR)  # the engine says the same, in full
    program = Path(sys.argv[0]).name
    warnings.showwarning = lambda message, *_: print(f"{program}: warning: {message}", file=sys.stderr)
    with interrupted_once():
        return exit_code(lambda: run(parse_arguments(arguments)))


@contextmanager
def interrupted_once() -> Iterator[None]:
    """The first Ctrl-C in the block unwinds what is under way. A second one ends the process at once, as it
    would be raised in the middle of the unwinding or of Python's own end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    pressed = False

    def interrupt(number: int, frame: object) -> None:
        nonlocal pressed
        if pressed:
            os._exit(130)
        pressed = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if not pressed:
            signal.signal(signal.SIGINT, before)


def run(chosen: argparse.Namespace) -> None:
    cfg = load_config(chosen.cfg, [*chosen.overrides, *chosen.opts])
    from vidformers.engine.build import load_videos
    from vidformers.engine.distributed import is_main_process, process_group
    from vidformers.engine.folder_summary import report_folder
    from vidformers.engine.logs import write_text_atomically
    from vidformers.engine.model import with_num_classes
    from vidformers.engine.output_folder import sole_use
    from vidformers.engine.pretrain import Pretrainer
    from vidformers.engine.run_report import report
    from vidformers.engine.test import check_test_weights, test
    from vidformers.engine.train import Trainer
    from vidformers.engine.training_settings import settings_without_training

    if not (cfg.TRAIN.ENABLE or cfg.TEST.ENABLE or cfg.ABLATION.ENABLE):
        raise ValueError("Nothing to do: TRAIN.ENABLE, TEST.ENABLE and ABLATION.ENABLE are all False.")
    if cfg.ABLATION.ENABLE:
        # Its libraries are an extra; and a perturbation that makes no sense must not cost a training run.
        from vidformers.engine.ablate import ablate, check_ablated_videos, check_ablation

        check_ablation(cfg)
    if cfg.TEST.ENABLE or cfg.ABLATION.ENABLE:
        check_test_weights(cfg)
    # All lists are read before the first epoch: a missing test list must not cost a training run.
    training = [load_videos(cfg, "train"), load_videos(cfg, "val")] if cfg.TRAIN.ENABLE else []
    tested = [load_videos(cfg, "test")] if cfg.TEST.ENABLE or cfg.ABLATION.ENABLE else []
    cfg = with_num_classes(cfg, [*training, *tested])
    if cfg.ABLATION.ENABLE:
        check_ablated_videos(cfg, *tested)
    output = Path(cfg.OUTPUT_DIR)
    with sole_use(output), process_group(cfg.DEVICE):
        if training:
            report_folder(cfg, *training)
        training_class = Pretrainer if cfg.PRETRAIN.ENABLE else Trainer
        trainer = training_class(cfg, *training) if training else None
        if is_main_process():
            settings = trainer.state.settings if trainer else settings_without_training(cfg)
            write_text_atomically(output / "config.yaml", settings.dump())
        if trainer:
            trainer.run()
            report(cfg)
        if cfg.TEST.ENABLE:
            test(cfg, *tested)
            report(cfg)
        if cfg.ABLATION.ENABLE:
            ablate(cfg, *tested)
