"""The file that each predicted case gets."""

from collections.abc import Sequence
from pathlib import Path

from seg25d.core.errors import InputError
from seg25d.data.cases import ONE_SLICE, VOLUMES, Case, is_picture, split_ending
from seg25d.data.description import DatasetDescription


def check_targets(description: DatasetDescription, cases: Sequence[Case], out: Path) -> dict[str, Path]:
    """Choose the output file of each case.

    Args:
        description: Channels of the model, and the ending of its data set.
        cases: The cases.
        out: Folder for the results.

    Returns:
        The file of each case, by its name.

    Raises:
        InputError: If there are no cases, one has another number of channels, or an image would be overwritten.
    """
    if not cases:
        raise InputError("there is nothing to predict")
    num_channels = len(description.channel_names)
    wrong = [f"{case.name} has {len(case.images)}" for case in cases if not _is_possible(case, num_channels)]
    if wrong:
        raise InputError(
            f"the model takes {num_channels} channel(s), but {'; '.join(wrong)}; give one file per channel"
        )
    targets = {case.name: out / f"{case.name}{_choose_ending(description, case)}" for case in cases}
    inputs = {image.resolve() for case in cases for image in case.images}
    clashes = sorted(str(path) for path in targets.values() if path.resolve() in inputs)
    if clashes:
        raise InputError(f"the result would overwrite an image: {', '.join(clashes)}; choose another output folder")
    return targets


def _is_possible(case: Case, num_channels: int) -> bool:
    """Whether the files of a case can hold the channels; one picture may have several."""
    fewest = 1 if all(map(is_picture, case.images)) else num_channels
    return fewest <= len(case.images) <= num_channels


def _choose_ending(description: DatasetDescription, case: Case) -> str:
    """The ending of a prediction: the data set's, unless it has one slice and the image may have more."""
    ending, own = description.label_ending, split_ending(case.images[0])[1]
    if ending not in ONE_SLICE or own in ONE_SLICE:
        return ending
    return own or VOLUMES[0]
