"""Curves for TensorBoard, in the fold's folder."""

import json
from collections.abc import Mapping
from typing import ClassVar

from seg25d.training.logged_run import LoggedRun


class TensorBoardLogger:
    """Writes event files for TensorBoard to `tensorboard/`.

    What an earlier session left there is replaced: that session may have got further than the checkpoint from which the
    run continues.
    """

    packages: ClassVar[tuple[str, ...]] = ("tensorboard",)

    def start(self, run: LoggedRun) -> int:
        """Begin anew, with the configuration as a text."""
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra

        # TensorBoard discards epochs from 1 on of earlier files. If these were removed while it is running, it would
        # not find the new file.
        self.writer = SummaryWriter(str(run.folder.tensorboard), purge_step=1)
        # Indented text is shown as it is.
        lines = json.dumps(run.configuration, indent=2).splitlines()
        self.writer.add_text("configuration", "\n".join(f"    {line}" for line in lines), 0)
        return 0

    def epoch(self, number: int, when: float, numbers: Mapping[str, float]) -> None:
        """Write an epoch, so that it is seen at once."""
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, number, when)
        self.writer.flush()

    def scores(self, last_epoch: int, numbers: Mapping[str, float]) -> None:
        """Write the final scores as curves of one point."""
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, last_epoch)

    def close(self) -> None:
        """Close the file."""
        self.writer.close()
