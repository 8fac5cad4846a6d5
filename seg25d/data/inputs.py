"""Finding the cases to predict: files CASE_0000.nii.gz, one per channel, single files, or folders of DICOM files."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from seg25d.core.errors import DatasetError
from seg25d.data.cases import (
    ENDINGS,
    PICTURES,
    Case,
    all_image_files,
    by_stem,
    dicom_folders,
    has_dicom_mark,
    holds_segmentations_only,
    image_files,
    is_picture,
    name_of_folder,
    split_channel,
    split_ending,
)
from seg25d.data.problems import first_names

logger = logging.getLogger(__name__)
_NAMING = (
    "name the files CASE_0000.nii.gz, CASE_0001.nii.gz ..., one per channel "
    f"(endings {', '.join(ENDINGS)}; CASE.nii.gz will do with one channel, CASE.png with one picture), or give a "
    "folder of DICOM files"
)


def find_inputs(source: Path, num_channels: int, file_ending: str) -> list[Case]:
    """Find the cases to predict.

    Args:
        source: A folder of files CASE_0000.EXT, where one picture may have several channels; a folder of DICOM files,
            which is one case with one channel; a folder with such folders in it, at any depth, beside files or not; or
            one file, whose other channels lie beside it.
        num_channels: Channels that the model takes.
        file_ending: Ending of the data set's files; every known ending is accepted. Where there are medical images and
            pictures, those of its kind count, and a warning names the others.

    Returns:
        The cases sorted by name, without labels; images in the order of the channels.

    Raises:
        DatasetError: If there are no images, channels are missing or too many, or names collide; lists all problems.
    """
    if not source.exists():
        raise DatasetError(f"{source} does not exist; give a folder or a file to predict")
    if source.is_file():
        return [_find_file(source, num_channels, file_ending)]
    folders = [folder for folder in dicom_folders(source) if not holds_segmentations_only(folder)]
    files = _files(source, folders, file_ending)
    if folders == [source] and not files:
        if num_channels != 1:
            raise DatasetError(
                f"{source} is one DICOM series, but the model takes {num_channels} channels; "
                "give a folder with one folder per channel, named CASE_0000, CASE_0001 ..."
            )
        return [Case(name=source.resolve().name, images=(source,))]
    if not files and not folders:
        raise DatasetError(f"{source} holds no images; {_NAMING}")
    named = by_stem(files)
    for folder in folders:
        named.setdefault(name_of_folder(folder, source), []).append(folder)
    return _make_cases(source, named, num_channels, file_ending)


def number_of_channels(source: Path) -> int:
    """The number of channels that the names of the files in a folder of images say, 1 where they say nothing.

    As in `find_inputs`, a number is that of a channel only where the case has a channel 0: `scan_2019` has none.
    """
    files = all_image_files(source) if source.is_dir() else []
    named = [split_channel(split_ending(path)[0]) for path in files]
    cases = {case for case, channel in named if channel == 0}
    return max((channel + 1 for case, channel in named if case in cases and channel is not None), default=1)


def _files(source: Path, folders: Sequence[Path], file_ending: str) -> list[Path]:
    """The files of a folder that count; others are named in a warning."""
    wants_pictures = file_ending in PICTURES
    files = image_files(source, pictures=wants_pictures)
    if not wants_pictures and folders:
        files = [path for path in files if not is_picture(path)]
    counted = set(files)
    if others := [path.name for path in all_image_files(source) if path not in counted]:
        kinds = ("pictures", "medical images")[:: -1 if wants_pictures else 1]
        logger.warning("%s: left out, as %s do not count beside %s: %s", source, *kinds, first_names(others))
    return files


def _find_file(source: Path, num_channels: int, file_ending: str) -> Case:
    stem, ending = split_ending(source)
    if not ending and (source.suffix.lower() == ".dcm" or has_dicom_mark(source)):
        raise DatasetError(f"{source} is a single DICOM file; give the folder that holds all files of its series")
    if not ending:
        raise DatasetError(f"{source} has none of the known endings {', '.join(ENDINGS)}; {_NAMING}")
    if num_channels == 1:
        case, channel = split_channel(stem)
        return Case(name=case if channel == 0 else stem, images=(source,))
    case, channel = split_channel(stem)
    if channel is None and is_picture(source):
        return Case(name=stem, images=(source,))
    if channel is None:
        raise DatasetError(
            f"{source}: the model takes {num_channels} channels, but the name has no number of four digits; {_NAMING}"
        )
    beside = [path for path in all_image_files(source.parent) if split_channel(split_ending(path)[0])[0] == case]
    same_ending = {source, *(path for path in beside if split_ending(path)[1] == ending)}
    return _make_cases(source.parent, by_stem(sorted(same_ending)), num_channels, file_ending)[0]


def _make_cases(source: Path, groups: Mapping[str, Sequence[Path]], num_channels: int, file_ending: str) -> list[Case]:
    """Cases of images by their names without endings."""
    problems = [
        f"{' and '.join(path.name for path in same)} are the same without the ending; keep one"
        for same in groups.values()
        if len(same) > 1
    ]
    channels: dict[str, dict[int, Path]] = {}
    for stem, same in groups.items():
        case, channel = _parse_name(stem, groups, several=num_channels > 1 and not is_picture(same[0]))
        if channel is None:
            problems.append(
                f"{same[0].name} has no channel number of four digits, but the model takes {num_channels} channels"
            )
        elif channel in channels.setdefault(case, {}):
            problems.append(f"{same[0].name} and {channels[case][channel].name} are both channel 0 of {case}; keep one")
        else:
            channels[case][channel] = same[0]
    for case, images in sorted(channels.items()):
        problems += _channel_problems(case, images, num_channels, file_ending)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise DatasetError(f"{source} cannot be predicted:\n{listed}\n{_NAMING}")
    return [
        Case(name=case, images=tuple(images[channel] for channel in sorted(images)))
        for case, images in sorted(channels.items())
    ]


def _parse_name(stem: str, stems: Mapping[str, object], *, several: bool) -> tuple[str, int | None]:
    """Case and channel of a file.

    Unless there are `several` files per case, a number that is no channel (`scan_2019`) is part of the name.
    """
    case, channel = split_channel(stem)
    if not several and (channel is None or (channel > 0 and f"{case}_0000" not in stems)):
        return stem, 0
    return case, channel


def _channel_problems(case: str, images: Mapping[int, Path], num_channels: int, file_ending: str) -> list[str]:
    ending = split_ending(next(iter(images.values())))[1] or file_ending
    # How many channels pictures have is known when they are read.
    wanted = max(images) if is_picture(next(iter(images.values()))) else num_channels
    missing = [f"{case}_{channel:04d}{ending}" for channel in range(min(wanted, num_channels)) if channel not in images]
    extra = [path.name for channel, path in sorted(images.items()) if channel >= num_channels]
    problems = [f"{case}: missing channel: {', '.join(missing)}"] if missing else []
    if extra:
        problems.append(f"{case}: the model takes {num_channels} channel(s), but there is {', '.join(extra)}")
    return problems
