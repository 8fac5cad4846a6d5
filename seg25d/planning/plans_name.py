"""The names that plans may have; light, as the commands check them before anything heavy is loaded."""

import re

from seg25d.networks import MIXINGS, REQUESTABLE
from seg25d.planning.recipe_names import PLACES as RECIPES

DEFAULT_PLANS_NAME = "plans"
RESERVED_FILES = ("dataset", "fingerprint", "splits", "splits_final", "verified")
"""Other files of a preprocessed data set."""
RUN_VARIANTS = ("holdout", "no_image", "joint", "fine")
"""Parts of the names of runs that are not as usual, in their order: see seg25d/views/tasks.py and
seg25d/workflows/coarse_to_fine.py."""
RESERVED = (*RESERVED_FILES, *REQUESTABLE, *MIXINGS, *RECIPES, *RUN_VARIANTS)
"""Names that stand at the same place in the names of files or of folders of results."""
TRAINERS = "nnUNetTrainer"
"""The beginning of the names of nnU-Net's trainers, which are parts of the names of runs, too."""
_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def check_plans_name(name: str) -> str:
    """Give the name back when plans may be called so: it becomes a file beside others and a part of folders' names.

    Raises:
        ValueError: If not.
    """
    if not _PATTERN.fullmatch(name) or name.lower() in RESERVED or name.startswith(TRAINERS):
        raise ValueError(
            f"the name of plans must be letters, digits, - and _, begin with a letter or digit, and be none of "
            f"{', '.join(RESERVED)} or the name of a trainer; got {name!r}"
        )
    return name
