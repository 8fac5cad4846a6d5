"""The numbers of log.jsonl as curves for TensorBoard, which is an extra."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg25d.core.errors import InputError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def check_tensorboard() -> None:
    """Check that curves can be written.

    Raises:
        InputError: If TensorBoard is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise InputError(
            f"--tensorboard needs TensorBoard ({error}); install it with `pip install 'seg25d[tensorboard]'`, or leave "
            "the option out"
        ) from None


class Curves:
    """Writes every epoch of a run once, including those before an interruption.

    Args:
        folder: For the curves only. Curves that an earlier session left there are replaced: that session may have got
            further than the checkpoint from which the run continues.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.num_written = 0
        self.writer: SummaryWriter | None = None
        self.begun = 0.0

    def write(self, log: Sequence[Mapping[str, Any]]) -> None:
        """Write the epochs that have not been written yet.

        Args:
            log: The lines of log.jsonl so far.
        """
        if self.num_written == len(log):
            return
        if self.writer is None:
            self.writer = _new_writer(self.folder)
            self.begun = time.time() - log[-1]["total_seconds"]
        for line in log[self.num_written :]:
            # Relative times in TensorBoard are those spent on training.
            when = self.begun + line["total_seconds"]
            for name, value in scalars(line).items():
                self.writer.add_scalar(name, value, line["epoch"], when)
        self.writer.flush()
        self.num_written = len(log)

    def close(self) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()


def _new_writer(folder: Path) -> "SummaryWriter":
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra

    # TensorBoard discards epochs from 1 on of earlier files. If these were removed while it is running, it would not
    # find the new file.
    return SummaryWriter(str(folder), purge_step=1)


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """Collect the numbers of a line of log.jsonl, except the epoch; Dice as `validation_dice_per_label/LABEL`.

    Null values are left out.
    """
    numbers: dict[str, Any] = {}
    for key, value in line.items():
        numbers |= {f"{key}/{part}": each for part, each in value.items()} if isinstance(value, dict) else {key: value}
    return {name: value for name, value in numbers.items() if value is not None and name != "epoch"}
