"""Curves for MLflow: in a database in the folder of results, unless MLFLOW_TRACKING_URI says otherwise."""

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from seg25d.training.logged_run import LoggedRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")
"""Characters that MLflow does not take in names (mlflow/utils/validation.py)."""
LONGEST_VALUE = 6000
"""Characters of the value of a parameter that MLflow takes (MAX_PARAM_VAL_LENGTH in mlflow/utils/validation.py)."""
ONE_OF_ALL = "train_loss"
"""A number that every epoch has."""


class MlflowLogger:
    """Writes a run of MLflow: the experiment is the data set.

    A run goes on under its id. Its parameters cannot change: where the configuration has, as by a longer training, a
    new run takes its place.

    The database is SQLite, as MLflow 3 refuses its former folders of text files (mlflow/store/tracking/file_store.py).
    """

    packages: ClassVar[tuple[str, ...]] = ("mlflow", "sqlalchemy", "alembic")

    def start(self, run: LoggedRun) -> int:
        """Begin, with the configuration as parameters, or go on."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would tell its makers that it is used
        from mlflow import MlflowClient  # noqa: PLC0415 - an extra
        from mlflow.entities import Param  # noqa: PLC0415 - an extra

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # each new database is no news
        local = f"sqlite:///{run.mlflow_database.resolve().as_posix()}"
        self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", local))
        versions = run.configuration.get("versions", {})  # no parameters: they change while a run goes on
        parameters = dict(_parameters({key: each for key, each in run.configuration.items() if key != "versions"}))
        earlier = run.runs().mlflow
        if earlier is not None and (done := _num_epochs(self.client, earlier, parameters)) is not None:
            self.run = earlier
            self.client.update_run(earlier, "RUNNING")
            return done
        self.run = self.client.create_run(
            _experiment(self.client, run),
            run_name=run.folder.name,
            tags={"configuration": run.folder.root.parent.name, **dict(_parameters({"versions": versions}))},
        ).info.run_id
        run.keep(mlflow=self.run)
        self.client.log_batch(self.run, params=[Param(name, value) for name, value in parameters.items()])
        return 0

    def epoch(self, number: int, when: float, numbers: Mapping[str, float]) -> None:
        """Write an epoch, all of it or nothing."""
        from mlflow.entities import Metric  # noqa: PLC0415 - an extra

        milliseconds = round(when * 1000)
        named = [Metric(_name(name), value, milliseconds, number) for name, value in numbers.items()]
        self.client.log_batch(self.run, metrics=named)

    def scores(self, last_epoch: int, numbers: Mapping[str, float]) -> None:
        """Write the final scores, unless they are there."""
        there = self.client.get_run(self.run).data.metrics
        new = {name: value for name, value in numbers.items() if there.get(_name(name)) != value}
        self.epoch(last_epoch, time.time(), new)

    def close(self) -> None:
        """Say that nothing more comes for now."""
        self.client.set_terminated(self.run)


def _experiment(client: "MlflowClient", run: LoggedRun) -> str:
    """The experiment of the data set, which is made where it is missing."""
    known = client.get_experiment_by_name(run.dataset_name)
    if known is not None:
        if known.lifecycle_stage != "active":
            client.restore_experiment(known.experiment_id)
        return str(known.experiment_id)
    local = os.environ.get("MLFLOW_TRACKING_URI") is None
    # Nothing is written there: the default would be a folder where the command runs.
    place = (run.results / "mlflow").resolve().as_uri() if local else None
    return str(client.create_experiment(run.dataset_name, artifact_location=place))


def _num_epochs(client: "MlflowClient", identifier: str, parameters: Mapping[str, str]) -> int | None:
    """Number of epochs that a run has; None: it is no longer there, or has another configuration and is put away."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - an extra

    try:
        found = client.get_run(identifier)
    except MlflowException:
        return None
    if found.info.lifecycle_stage != "active":
        return None
    if found.data.params != parameters:
        client.delete_run(identifier)
        return None
    return max((metric.step for metric in client.get_metric_history(identifier, ONE_OF_ALL)), default=0)


def _parameters(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Flatten nested settings: `training.epochs`; lists are one value."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _parameters(each, f"{name}.{key}" if name else str(key))
    else:
        yield _name(name), str(value)[:LONGEST_VALUE]


def _name(name: str) -> str:
    return NOT_IN_NAMES.sub("_", name)
