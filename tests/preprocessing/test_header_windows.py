"""Windows of headers: worked out by hand, each channel its own, and no case is lost over a bad tag."""

import logging
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from seg25d.data.cases import Case
from seg25d.planning.normalization import ChannelNormalization
from seg25d.preprocessing.header_windows import parse_window, with_header_windows

HEADER = ChannelNormalization(channel="CT", scheme="ct_window_dicom", lower=-1350, upper=150)
FIXED = ChannelNormalization(channel="CT", scheme="ct_window", lower=-1, upper=1)


def _write(path: Path, center: str, width: str) -> Path:
    image = sitk.GetImageFromArray(np.zeros((2, 3, 4), np.int16))
    for key, text in (("0028|1050", center), ("0028|1051", width)):
        if text:
            image.SetMetaData(key, text)
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize(
    ("center", "width", "expected"),
    [
        ("-600", "1500", (-1350, 150)),
        ("40", "400", (-160, 240)),
        ("40\\-600", "400\\1500", (-160, 240)),
        (" 40.5 ", "+1.0e2\\", (-9.5, 90.5)),
    ],
)
def test_a_window_by_hand(center: str, width: str, expected: tuple[float, float]) -> None:
    assert parse_window(center, width) == expected


@pytest.mark.parametrize(
    ("center", "width"),
    [("", "400"), ("40", ""), ("40", "0"), ("40", "-3"), ("lung", "400"), ("nan", "400"), ("40", "inf"), ("\\40", "1")],
)
def test_tags_without_sense(center: str, width: str) -> None:
    with pytest.raises(ValueError, match=r"float|no window"):
        parse_window(center, width)


def test_every_channel_has_the_window_of_its_own_file(tmp_path: Path) -> None:
    images = (_write(tmp_path / "a_0000.mha", "40", "400"), tmp_path / "absent", _write(tmp_path / "b.nrrd", "0", "10"))
    normalization, remarks = with_header_windows((HEADER, FIXED, HEADER), Case(name="a", images=images))
    assert [(each.lower, each.upper) for each in normalization] == [(-160, 240), (-1, 1), (-5, 5)]
    assert [each.scheme for each in normalization] == ["ct_window_dicom", "ct_window", "ct_window_dicom"]
    assert not remarks


@pytest.mark.parametrize(
    ("center", "width", "level", "words"),
    [
        ("", "", logging.INFO, "no window in its header"),
        ("40", "", logging.WARNING, "centre '40' and width '', but must have numbers"),
        ("40", "0", logging.WARNING, "centre '40' and width '0', but must have numbers"),
    ],
)
def test_without_a_window_that_makes_sense_the_plans_stays(
    tmp_path: Path, center: str, width: str, level: int, words: str
) -> None:
    case = Case(name="case_7", images=(_write(tmp_path / "x.mha", center, width),))
    normalization, (remark,) = with_header_windows((HEADER,), case)
    assert normalization == (HEADER,)
    assert remark.level == level
    assert remark.text.startswith("case_7: x.mha")
    assert words in remark.text
    assert "the plan's, -1350.0 .. 150.0" in remark.text
