"""Curves for Weights & Biases: in the fold's folder, without a network, unless WANDB_MODE says otherwise."""

import os
import shutil
from collections.abc import Mapping
from typing import ClassVar
from uuid import uuid4

from seg25d.training.logged_run import LoggedRun

OFFLINE = "offline"


class WandbLogger:
    """Writes a run of Weights & Biases to `wandb/`.

    Offline, one folder has all epochs: it is written anew by every session, under the same id, as wandb cannot continue
    a run of which it does not ask a server. Online, the server's run goes on.
    """

    packages: ClassVar[tuple[str, ...]] = ("wandb",)

    def start(self, run: LoggedRun) -> int:
        """Begin, with the configuration.

        Project is the data set, unless WANDB_PROJECT says otherwise, and group is the configuration. Neither names of
        machine and user nor code and output of the command are written.
        """
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # wandb would tell its makers of its own errors
        import wandb  # noqa: PLC0415 - an extra

        identifier = run.runs().wandb or uuid4().hex[:8]  # as many characters as in wandb's own ids
        mode = os.environ.get("WANDB_MODE", OFFLINE)
        replaced = list(run.folder.wandb.glob("offline-run-*")) if mode == OFFLINE else []
        run.keep(wandb=identifier)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", run.dataset_name),
            group=run.folder.root.parent.name,
            name=run.folder.name,
            dir=run.folder.root,
            id=identifier,
            mode=mode,
            resume=None if mode == OFFLINE else "allow",
            reinit="create_new",
            config=dict(run.configuration),
            settings=wandb.Settings(
                console="off", silent=True, host="", disable_git=True, disable_code=True, x_disable_meta=True
            ),
        )
        for earlier in replaced:
            shutil.rmtree(earlier, ignore_errors=True)
        # The first step that the run accepts: 0 of a new one.
        return max(0, int(self.run.step) - 1)

    def epoch(self, number: int, when: float, numbers: Mapping[str, float]) -> None:
        """Write an epoch."""
        self.run.log(dict(numbers), step=number, commit=True)

    def scores(self, last_epoch: int, numbers: Mapping[str, float]) -> None:
        """Write the final scores to the summary of the run."""
        self.run.summary.update(dict(numbers))

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()
