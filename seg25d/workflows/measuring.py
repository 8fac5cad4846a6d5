"""Measuring structures: of finished segmentations, and of those that a prediction has just written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from seg25d.core.errors import CaseFailures
from seg25d.core.files import check_writable_file
from seg25d.core.locks import reading_lock
from seg25d.data.cases import VOLUMES, Case
from seg25d.data.description import read_description
from seg25d.data.inputs import find_inputs, number_of_channels
from seg25d.evaluation.structures import pair_with_images, write_structures
from seg25d.inference.cases import Meaning
from seg25d.inference.prediction_files import labels_of_predictions, predicted_dice_of


def measure_structures(
    images: Path, segmentations: Path, output: Path | None = None, num_processes: int | None = None
) -> None:
    """Measure the structures of finished segmentations and write a table with a row per case and structure.

    Names of labels and channels are those of a `dataset.json` with the segmentations, with the images or in their
    parent, or else of the record of the predictions; without any, values and channels have numbers.

    Args:
        images: Folder of images, named as for `predict`, or of DICOM files.
        segmentations: Folder of segmentations, `CASE.ENDING`.
        output: The table; None: `statistics.csv` in the folder of segmentations.
        num_processes: Worker processes; 0 works in this process, None chooses.

    Raises:
        InputError: If files are missing or do not fit, or the table cannot be written; nothing is written then.
        BusyError: If another process writes the table, or into the folder of segmentations.
    """
    path = output or segmentations / "statistics.csv"
    check_writable_file(path)
    folders = (segmentations, images, images.resolve().parent)
    described = next((each / "dataset.json" for each in folders if (each / "dataset.json").is_file()), None)
    description = read_description(described) if described else None
    labels = description.labels if description else labels_of_predictions(segmentations)
    numbers = range(number_of_channels(images))
    channel_names = description.channel_names if description else [f"channel_{index}" for index in numbers]
    cases = find_inputs(images, len(channel_names), description.file_ending if description else VOLUMES[0])
    with reading_lock(segmentations, "measuring structures"):
        pairs, dice = pair_with_images(cases, segmentations), predicted_dice_of(segmentations)
        write_structures(pairs, labels, channel_names, path, num_processes, dice)


@contextmanager
def measured_afterwards(path: Path | None, cases: Sequence[Case], out: Path, meaning: Meaning) -> Iterator[None]:
    """Measure the structures of predictions once they are there, also where some cases failed.

    Args:
        path: The table; None: nothing is measured.
        cases: What is predicted.
        out: Folder of the predictions.
        meaning: Of the model.
    """
    try:
        yield
    except CaseFailures:
        _measure(path, cases, out, meaning)
        raise
    _measure(path, cases, out, meaning)


def _measure(path: Path | None, cases: Sequence[Case], out: Path, meaning: Meaning) -> None:
    if path is not None:
        measured = pair_with_images(cases, out, further=True)
        dice = predicted_dice_of(out)
        write_structures(measured, meaning.labels, meaning.description.channel_names, path, predicted_dice=dice)
