"""Runs tasks in their order on an engine, and leaves out what needs a failed one."""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic

from seg25d.core.errors import InputError
from seg25d.core.records import read_record
from seg25d.orchestration.engine import Engine, Job
from seg25d.orchestration.journal import Journal, Kept
from seg25d.orchestration.table import Table
from seg25d.orchestration.task import INTERRUPTED, Call, Outcome, Task, in_order
from seg25d.runs.task_records import TaskRecord
from seg25d.training.signals import stop_signals

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_LOOKS = 0.25


class Executor(Generic[Kept]):
    """Runs the tasks of a run, in one or several calls: later ones may need those of earlier ones.

    Args:
        engine: What runs them.
        journal: Gets their states.
        table: Shows them.
        folder: For records and logs of tasks.
        environment: Variables that say where the workspace is.
    """

    def __init__(
        self, engine: Engine, journal: Journal[Kept], table: Table, folder: Path, environment: Mapping[str, str]
    ) -> None:
        self.engine = engine
        self.journal = journal
        self.table = table
        self.folder = folder
        self.environment = environment
        self.outcomes: dict[str, Outcome] = {}
        self.tasks: dict[str, Task] = {}
        self.begun: set[str] = set()
        """Those that an engine has begun, and that have not ended."""
        self.looked = 0.0

    def run(self, tasks: Sequence[Task]) -> dict[str, Outcome]:
        """Do tasks, those that are done already aside.

        Returns:
            How each of them ended; those that were left out because of others, with the status of the cause.

        Raises:
            ValueError: If they cannot be put in an order.
            KeyboardInterrupt: If the process is to stop; what runs is stopped then, and keeps what it has.
        """
        self.tasks |= {task.name: task for task in tasks}
        wanted = {task.name for task in tasks}
        waiting = [task for task in in_order(list(self.tasks.values())) if task.name in wanted]
        for task in waiting:
            self.outcomes.pop(task.name, None)
        self.journal.add(waiting)
        running: set[str] = set()
        with stop_signals("stopping all tasks; trainings save their state") as received:
            try:
                while waiting or running:
                    waiting, jobs = self._next(waiting)
                    self.engine.start(jobs)
                    running |= {job.task.name for job in jobs}
                    for name, outcome in self.engine.finished(SECONDS_BETWEEN_LOOKS if running else 0.0):
                        if received and outcome.status == INTERRUPTED:
                            continue  # Ctrl-C has reached it, too: it has not failed
                        running.discard(name)
                        self._end(name, outcome)
                    self._note_begun(running)
                    self.journal.write_now_and_then()
                    self.table.show([self.tasks[name] for name in self.tasks if name in self.begun & running])
                    if received:
                        raise KeyboardInterrupt
            except BaseException:
                self.engine.stop()
                for name in self.begun & running:
                    self.journal.set_state(name, "waiting")
                self.journal.write()
                raise
        return {task.name: self.outcomes[task.name] for task in tasks}

    def is_done(self, name: str) -> bool:
        """Whether a task was among those that were run, and is done."""
        return name in self.outcomes and self.outcomes[name].is_done

    def was_done(self, task: Task) -> bool:
        """Whether an earlier call has done a task, so that it is not done again."""
        return self._earlier(task) is not None

    def _next(self, waiting: Sequence[Task]) -> tuple[list[Task], list[Job]]:
        """What still has to wait, and what can be done now."""
        later, jobs = [], []
        for task in waiting:
            ended = {need: self.outcomes[need] for need in task.needs if need in self.outcomes}
            failed = [need for need, outcome in ended.items() if not outcome.is_done]
            if failed:
                status = ended[failed[0]].status
                self.outcomes[task.name] = Outcome(status=status, message=f"left out, as {failed[0]} failed")
                self.journal.set_state(task.name, "left out", message=f"needs {failed[0]}, which failed")
                self.journal.write()
            elif len(ended) < len(task.needs):
                later.append(task)
            elif (outcome := self._earlier(task)) is not None:
                self._end(task.name, outcome)
            else:
                call = Call(task.name, task.words, self.folder, self.environment)
                jobs.append(Job(task, call))
        return later, jobs

    def _earlier(self, task: Task) -> Outcome | None:
        """How a task ended in an earlier call, if it is done; its record and its outputs say so."""
        if task.always:
            return None
        path = self.folder / f"{task.name}.json"
        with suppress(InputError):
            record = read_record(path, TaskRecord)
            if record.words == task.words and record.status == 0 and all(each.exists() for each in task.outputs):
                return Outcome(status=0, seconds=record.seconds or 0.0, place=record.place)
        return None

    def _end(self, name: str, outcome: Outcome) -> None:
        self.outcomes[name] = outcome
        self.begun.discard(name)
        self.journal.end(name, outcome)
        self.table.ended(name, outcome)

    def _note_begun(self, running: set[str]) -> None:
        """Note tasks that the engine has begun: their own process writes a record then."""
        now = time.monotonic()
        if now - self.looked < SECONDS_BETWEEN_LOOKS:
            return
        self.looked = now
        for name in running - self.begun:
            with suppress(InputError):
                record = read_record(self.folder / f"{name}.json", TaskRecord)
                if record.status is None and record.words == self.tasks[name].words:
                    self.begun.add(name)
                    self.journal.set_state(name, "running", place=record.place)
                    self.journal.write()
                    logger.info("%s: seg25d %s (%s)", name, " ".join(record.words), record.place)
