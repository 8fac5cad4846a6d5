"""Reading `dataset.json`: channels, labels, file ending; all problems are reported together."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from seg25d.core.errors import DatasetError, RecordError
from seg25d.core.files import read_json
from seg25d.core.limits import MAX_CHANNELS
from seg25d.core.names import is_number
from seg25d.core.records import Record
from seg25d.data.cases import ENDINGS, LABEL_ENDINGS
from seg25d.data.label_problems import label_problems
from seg25d.data.labels import Labels
from seg25d.data.segment_codes import KEY, SegmentCode, segment_codes

logger = logging.getLogger(__name__)
_KNOWN_KEYS = ("channel_names", "modality", "labels", "regions_class_order", "file_ending", "numTraining", "dataset")
Names = dict[str, int | tuple[int, ...]]


def _check_ending(ending: str) -> str:
    if ending not in ENDINGS:
        raise ValueError(f"wanted one of {', '.join(ENDINGS)}")
    return ending


class DatasetDescription(Record):
    """Content of `dataset.json`.

    Attributes:
        channel_names: Name of every channel, in order; the name chooses the normalisation.
        labels: The classes or regions.
        file_ending: Ending of image and label files, such as `.nii.gz`; see `label_ending` for pictures.
        num_training: Number of training cases as declared (`numTraining`).
        metadata: All other keys, unchanged; `segment_codes` is one of them, and is checked.
    """

    channel_names: tuple[str, ...] = Field(min_length=1, max_length=MAX_CHANNELS)
    labels: Labels
    file_ending: Annotated[str, AfterValidator(_check_ending)]
    num_training: int
    metadata: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_codes(self) -> "DatasetDescription":
        if problems := _parse_codes(self.metadata, self.labels.names)[1]:
            raise ValueError("; ".join(problems))
        return self

    @cached_property
    def segment_codes(self) -> dict[str, SegmentCode]:
        """What labels are, by their names, where `segment_codes` says it; a model has it with the other metadata."""
        return _parse_codes(self.metadata, self.labels.names)[0]

    @property
    def label_ending(self) -> str:
        """Ending of label files and predictions: `.png` for pictures of one slice, as JPEG changes the values."""
        return LABEL_ENDINGS.get(self.file_ending, self.file_ending)


def read_description(path: Path) -> DatasetDescription:
    """Read a `dataset.json`.

    The old key `modality` is read as `channel_names`, and labels in the old order (`{"0": "background"}`) are swapped,
    both with a warning.

    Raises:
        DatasetError: If the file is missing, is not JSON or has wrong or missing keys; lists all of them.
    """
    value, _ = read_object(path)
    description, problems = parse_description(value)
    if description is None:
        raise DatasetError(f"{path} is not valid:\n" + "\n".join(f"  {problem}" for problem in problems))
    return description


def with_codes_of(description: DatasetDescription, path: Path) -> DatasetDescription:
    """The description with the `segment_codes` of a `dataset.json`, if there is one that has some.

    Models carry their description; codes may be added to the file beside them later on.

    Raises:
        DatasetError: If the codes are wrong; lists all problems.
    """
    value = read_object(path)[0] if path.exists() else {}
    if KEY not in value:
        return description
    _, problems = _parse_codes(value, description.labels.names)
    if problems:
        raise DatasetError(f"{path} is not valid:\n" + "\n".join(f"  {problem}" for problem in problems))
    return description.model_copy(update={"metadata": description.metadata | {KEY: value[KEY]}})


def read_object(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Read the JSON object of a `dataset.json`.

    Returns:
        The object, and the keys that appear twice in it or in an object inside it; the last of the two counts.

    Raises:
        DatasetError: If the file is missing, is not JSON or holds something else.
    """
    doubled: list[str] = []

    def note_doubled(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        doubled.extend(sorted(key for key, count in Counter(key for key, _ in pairs).items() if count > 1))
        return dict(pairs)

    try:
        value = read_json(path, note_doubled)
    except RecordError as error:
        raise DatasetError(f"{error}; a data set needs a dataset.json in the nnU-Net format") from None
    if not isinstance(value, dict):
        raise DatasetError(f"{path} must hold a JSON object with channel_names, labels, numTraining and file_ending")
    return value, doubled


def parse_description(value: Mapping[str, Any]) -> tuple[DatasetDescription | None, list[str]]:
    """Parse the content of a `dataset.json`.

    Returns:
        The description, or None, and one sentence per problem.
    """
    channels, problems = _parse_channels(value)
    names, label_issues = _parse_labels(value.get("labels"))
    order, order_issues = _parse_order(value.get("regions_class_order"))
    problems += label_issues + order_issues
    if not label_issues and not order_issues:
        problems += label_problems(names, order)
    if not label_issues:
        problems += _parse_codes(value, names)[1]
    ending = value.get("file_ending")
    if ending not in ENDINGS:
        problems.append(f"file_ending must be one of {', '.join(ENDINGS)}; it is {_show(ending)}")
    count = value.get("numTraining")
    if not _is_int(count):
        problems.append(f"numTraining must be the number of training cases; it is {_show(count)}")
    if problems:
        return None, problems
    labels = Labels(names=names, regions_class_order=order)
    if order is not None and not labels.has_regions:
        logger.warning("dataset.json: regions_class_order is ignored, as no label is a region (a list of values)")
    metadata = {key: item for key, item in value.items() if key not in _KNOWN_KEYS}
    description = DatasetDescription(
        channel_names=channels, labels=labels, file_ending=str(ending), num_training=int(count or 0), metadata=metadata
    )
    return description, []


def _parse_channels(value: Mapping[str, Any]) -> tuple[tuple[str, ...], list[str]]:
    channels = value.get("channel_names")
    if channels is None and "modality" in value:
        logger.warning("dataset.json: the old key `modality` is taken for `channel_names`; rename it")
        channels = value["modality"]
    if not isinstance(channels, dict) or not channels:
        return (), [f"channel_names must be an object such as {{'0': 'CT'}}; it is {_show(channels)}"]
    if len(channels) > MAX_CHANNELS:
        return (), [f"channel_names has {len(channels)} channels; at most {MAX_CHANNELS} are possible"]
    expected = [str(index) for index in range(len(channels))]
    problems = []
    if sorted(channels) != sorted(expected):
        problems.append(
            f"channel_names must be numbered {', '.join(expected)}; the keys are {', '.join(channels)}: renumber them "
            f'from "0": {_renumbered(channels)}, where 0 is CASE_0000'
        )
    wrong = [key for key, name in channels.items() if not isinstance(name, str) or not name.strip()]
    problems += [
        f"channel_names: the name of channel {key} must be text; it is {_show(channels[key])}" for key in wrong
    ]
    return ((), problems) if problems else (tuple(channels[key] for key in expected), [])


def _renumbered(channels: Mapping[str, Any]) -> str:
    """Number channels from 0, in the order of their keys, or of their values where these are the numbers."""
    numbers = [str(value) for value in channels.values()]
    names: list[Any] = list(channels.values())
    if all(key.isdecimal() for key in channels):
        names = [channels[key] for key in sorted(channels, key=_order)]
    elif all(number.isdecimal() for number in numbers):
        names = [name for _, name in sorted(zip(map(_order, numbers), channels, strict=True))]
    return json.dumps({str(index): name for index, name in enumerate(names)}, ensure_ascii=False)


def _order(number: str) -> tuple[int, str]:
    digits = number.lstrip("0")
    return len(digits), digits


def _parse_labels(labels: Any) -> tuple[Names, list[str]]:
    if not isinstance(labels, dict) or not labels:
        return {}, [f"labels must be an object such as {{'background': 0, 'tumour': 1}}; it is {_show(labels)}"]
    if all(is_number(key) and isinstance(name, str) and not is_number(name) for key, name in labels.items()):
        return _turn_labels(labels)
    names: Names = {}
    problems = []
    for name, value in labels.items():
        if _is_int(value):
            names[name] = int(value)
        elif isinstance(value, list) and all(_is_int(item) for item in value):
            names[name] = tuple(int(item) for item in value)
        else:
            problems.append(
                f"labels: the value of '{name}' must be a whole number or a list of them; it is {_show(value)}"
            )
    return names, problems


def _turn_labels(labels: Mapping[str, str]) -> tuple[Names, list[str]]:
    if len(set(labels.values())) < len(labels):
        return {}, ["labels are the wrong way round and a name appears twice; write {'background': 0, 'NAME': 1, ...}"]
    logger.warning("dataset.json: labels are the old way round (value: name); taken as name: value")
    return {name: int(value) for value, name in labels.items()}, []


def _parse_order(order: Any) -> tuple[tuple[int, ...] | None, list[str]]:
    if order is None:
        return None, []
    if not isinstance(order, Sequence) or not all(_is_int(item) for item in order):
        return None, [f"regions_class_order must be a list of whole numbers; it is {_show(order)}"]
    return tuple(int(item) for item in order), []


def _parse_codes(value: Mapping[str, Any], names: Names) -> tuple[dict[str, SegmentCode], list[str]]:
    """The codes of the labels that are segments: neither background nor ignored."""
    segments = [name for name, members in names.items() if members not in (0, (0,)) and name != "ignore"]
    return segment_codes(value.get(KEY), segments)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _show(value: Any) -> str:
    return "missing" if value is None else repr(value)[:80]
