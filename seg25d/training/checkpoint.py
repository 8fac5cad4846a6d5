"""The state of a run, written so that it can go on exactly where it was cut off."""

from pathlib import Path
from typing import Any

import torch

from seg25d.core.errors import ModelError
from seg25d.core.files import atomic_path


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write the state atomically: a kill at any moment leaves the last complete one.

    Args:
        path: The file.
        state: Tensors, numbers, strings, lists and dictionaries only, as `weights_only=True` demands on reading.
    """
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a state; nothing in the file can run code.

    Raises:
        ModelError: If the file is damaged or is not a checkpoint.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path} cannot be read ({error}); --restart begins the fold anew") from None
    except Exception as error:
        # pickle.UnpicklingError and its kin are what torch raises for anything that is no plain state.
        raise ModelError(
            f"{path} is not a checkpoint ({type(error).__name__}); --restart begins the fold anew"
        ) from None
    return state
