"""report.html after a step of a run, where the libraries for it are there."""

from pathlib import Path

from fvcore.common.config import CfgNode

from vidformers.engine.distributed import is_main_process
from vidformers.engine.logs import say


def report(cfg: CfgNode) -> None:
    """Write `report.html` anew from all that the run has left in OUTPUT_DIR; on the main process.

    Its libraries are an extra: without them one line says so.
    """
    if not is_main_process():
        return
    output = Path(cfg.OUTPUT_DIR)
    try:
        from vidformers.report.run_report import write_run_report

        path = write_run_report(output, title=f"{cfg.MODEL.NAME}: {output.name}")
    except ImportError as error:
        say(f"No {output / 'report.html'} is written ({error}): pip install 'vidformers[analysis]'.")
        return
    if path:
        say(f"Report: {path}")
