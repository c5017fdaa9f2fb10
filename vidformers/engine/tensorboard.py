"""The numbers of log.jsonl for TensorBoard, an extra."""

from collections.abc import Mapping
from pathlib import Path


class TensorBoardLog:
    """Scalars `event/name` in event files under `folder`; ImportError says what to install.

    A run that continues from a checkpoint writes a new file; `first_step` hides what an earlier one has from
    that step on, because those steps are done again.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                f"TENSORBOARD.ENABLE is True, but TensorBoard cannot be imported ({error}); "
                "pip install 'vidformers[tensorboard]', or set it to False"
            ) from error
        self.writer = SummaryWriter(str(folder), purge_step=first_step)

    def write(self, event: str, values: Mapping[str, object], *, step: int) -> None:
        """The numbers among `values` at a step, counted from the beginning of training."""
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self.writer.add_scalar(f"{event}/{name}", value, step)

    def close(self) -> None:
        """Write what is still in memory."""
        self.writer.close()
