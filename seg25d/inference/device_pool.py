"""Prediction on several devices: one process per device takes cases from a common queue."""

from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from queue import Empty
from typing import Any, NamedTuple

from seg25d.core.errors import InputError, ResourceError, Seg25dError, WorkerError
from seg25d.core.parallel import available_cores, watch_parent, worker_context
from seg25d.core.system_errors import refusal
from seg25d.inference.cases import CaseModel, Done, Outcome, Work, outcomes_here

SECONDS_BETWEEN_LOOKS = 1.0
"""Seconds between checks for processes that have died."""


class _Report(NamedTuple):
    """Outcome of one case, or of a process that cannot start (no case), as not every error can be pickled."""

    case: str | None
    done: Done | None = None
    message: str | None = None
    expected: bool = True
    """Whether the input is the cause."""

    def error(self) -> Seg25dError:
        """The error of the report."""
        return (InputError if self.expected else WorkerError)(self.message)


def outcomes_on_devices(
    load: Callable[[str], CaseModel], devices: Sequence[str], work: Work, begin: Callable[[], None]
) -> Iterator[Outcome]:
    """Predict cases with one process per device, see `cases.Outcomes`.

    Args:
        load: Function that loads the model to a device; picklable.
        devices: Names of devices, such as `cuda:0`, `cuda:1`.
        work: The cases.
        begin: Function that every process calls once before it writes files; picklable.

    Raises:
        WorkerError: If a process died.
        InputError: If a process cannot load the model.
    """
    context = worker_context()
    waiting = {case.name: case for case in work.cases}
    cases, reports = context.Queue(), context.Queue()
    for case in (*waiting.values(), *(None for _ in devices)):
        cases.put(case)
    processes = [
        context.Process(  # type: ignore[attr-defined] # every context has it, but the base class does not declare it
            target=_work, args=(load, (device, len(devices)), (cases, reports), work._replace(cases=()), begin)
        )
        for device in devices
    ]
    for process in processes:
        process.start()
    try:
        while waiting:
            report = _next_report(reports, processes)
            if report.case is None:
                raise report.error()
            yield waiting.pop(report.case), report.done or report.error()
    finally:
        for process in processes:
            # Finished processes end by themselves; the others would block on a queue that nobody reads.
            if waiting:
                process.kill()
            process.join()


def _next_report(reports: "Queue[_Report]", processes: Sequence[BaseProcess]) -> _Report:
    while True:
        dead = [process for process in processes if process.exitcode not in (None, 0)]
        try:
            return reports.get(timeout=SECONDS_BETWEEN_LOOKS)
        except Empty:
            if dead:
                raise WorkerError(
                    f"a prediction process ended with status {dead[0].exitcode}; the system may have killed it for "
                    "lack of memory. Use fewer devices; the same command continues where it stopped"
                ) from None


def _share_cores(num_processes: int) -> None:
    """Restrict this process to its share of the cores; even with GPUs, resampling and export run on the CPU."""
    import torch  # noqa: PLC0415 - loaded only in the process that predicts

    torch.set_num_threads(min(torch.get_num_threads(), max(1, available_cores() // num_processes)))


def _work(
    load: Callable[[str], CaseModel],
    place: tuple[str, int],
    queues: "tuple[Queue[Any], Queue[_Report]]",
    work: Work,
    begin: Callable[[], None],
) -> None:
    watch_parent()
    cases, reports = queues
    device, num_devices = place
    try:
        _share_cores(num_devices)
        model = load(device)
    except Exception as raised:
        error = refusal(raised) or raised
        reports.put(_Report(None, message=f"{device}: {error}", expected=isinstance(error, Seg25dError)))
        return
    for case, outcome in outcomes_here(model, work._replace(cases=iter(cases.get, None)), begin):
        if isinstance(outcome, Exception):
            if isinstance(outcome, ResourceError):
                reports.put(_Report(None, message=str(outcome)))
                return
            message = str(outcome) or repr(outcome)
            reports.put(_Report(case.name, message=message, expected=isinstance(outcome, Seg25dError)))
        else:
            reports.put(_Report(case.name, outcome))
