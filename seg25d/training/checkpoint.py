"""Checkpoints of a run, from which it continues exactly where it was interrupted."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from seg25d.core.device import Execution, choose_execution
from seg25d.core.errors import ModelError, RecordError
from seg25d.core.files import atomic_path
from seg25d.core.processor import read_verdict, this_processor
from seg25d.core.system_errors import refusal_to_read
from seg25d.core.workspace import FoldFolder, JointFolder
from seg25d.training.state import check_checkpoint, check_done

logger = logging.getLogger(__name__)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write the state atomically: if the process is killed, the last complete checkpoint remains.

    Args:
        path: The file.
        state: Tensors, numbers, strings, lists and dictionaries only, as required for reading with `weights_only=True`.
    """
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a state; code in the file is never run.

    Raises:
        ModelError: If the file is damaged, is not a checkpoint, or holds weights that are NaN.
    """
    return _checked(path, check_checkpoint)


def _checked(path: Path, check: Callable[[Any, Path], None], *, mmap: bool = False) -> dict[str, Any]:
    """Read a file of `save_checkpoint` and check it; with `mmap` its tensors stay on the disk until they are used."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, MemoryError) as error:
        raise refusal_to_read(error, path) or ModelError(
            f"{path} cannot be read ({error}); --restart starts the fold over"
        ) from None
    except Exception as error:
        # torch raises pickle.UnpicklingError and related errors for anything that is not a plain state.
        raise refusal_to_read(error, path) or ModelError(
            f"{path} is not a checkpoint ({type(error).__name__}); --restart starts the fold over"
        ) from None
    try:
        check(state, path)
    except RecordError as error:
        raise ModelError(f"{error}\n{path} is not a checkpoint; --restart starts the fold over") from None
    return state


class Done(NamedTuple):
    """What is done of a run."""

    updates: int
    seconds: float
    is_finished: bool
    """Whether it came to the end of the length that it had then."""
    log: tuple[dict[str, Any], ...]
    """The lines of `log.jsonl`, whose file may be lost or damaged."""


def read_done(path: Path) -> Done:
    """What is done of a run, from its checkpoint, of which the tensors stay on the disk.

    Raises:
        ModelError: If the file is damaged or is not a checkpoint.
    """
    state = _checked(path, check_done, mmap=True)
    return Done(state["iteration"], state["seconds"], state["finished"], tuple(state["log"]))


def clear_fold(folder: FoldFolder) -> None:
    """Remove what was trained, the checkpoint first: from then on the fold has not begun."""
    joint = JointFolder(root=folder.root)
    models = (folder.model_final, folder.model_best, joint.model_final, joint.model_best)
    records = (folder.log, folder.progress, folder.config, folder.transfer, folder.fusion_cases, folder.logger_runs)
    for path in (folder.checkpoint, *models, *records):
        path.unlink(missing_ok=True)
    results = (folder.validation, folder.validation_quick)
    for made in (*results, folder.views, folder.fusion_data, folder.tensorboard, folder.wandb):
        shutil.rmtree(made, ignore_errors=True)


def choose_execution_to_go_on(device: str | None, precision: str, checkpoint: dict[str, Any] | None) -> Execution:
    """Choose device and precision of a run; a run that continues keeps the type in which it began.

    Otherwise a self-test in the meantime, or the loss of its result, would change the result of the same command.

    Args:
        device: As for `choose_execution`.
        precision: Of the run's settings.
        checkpoint: Of the run, if it has started.

    Returns:
        The type in the settings; with `auto` the type in which the run began, unless it continues on another kind of
        device or bfloat16 has since been found unsafe.
    """
    execution = choose_execution(device, precision)
    kind, _, began_in = str((checkpoint or {}).get("computed_in", "")).partition(" ")
    same_kind = kind == execution.device.type and began_in in ("float32", "bfloat16", "float16")
    if precision != "auto" or not same_kind or str(execution) == f"{kind} {began_in}":
        return execution
    verdict = read_verdict(this_processor()) if kind == "cpu" else None
    if verdict is not None and not verdict.safe:
        logger.warning("the run began in %s and goes on in float32: %s", began_in, verdict.reason)
        return execution
    return choose_execution(device, began_in)
