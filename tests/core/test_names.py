"""Names that become parts of paths, and what is shown of them."""

import json

import pytest

from seg25d.core.names import check_case_name, check_inner_path, check_name, is_number
from seg25d.core.printing import harmless

LEADING_OUT = [
    "",
    ".",
    "..",
    "../evil",
    "a/b",
    "/etc/passwd",
    "a\\b",
    ".hidden",
    "x\x00",
    "x\n",
    "x\x1b[31m",
    "\u202ex",
]


@pytest.mark.parametrize("name", LEADING_OUT)
def test_nothing_leads_out_of_a_folder(name: str) -> None:
    for check in (check_name, check_case_name):
        with pytest.raises(ValueError, match="cannot be the name of a file"):
            check(name)


@pytest.mark.parametrize("name", ["C:evil", "a:stream", "a?", "con", "NUL.json", "lpt1", "ends.", "ends "])
def test_names_from_elsewhere_suit_every_system_and_those_of_cases_this_one(name: str) -> None:
    assert check_case_name(name) == name
    with pytest.raises(ValueError, match="cannot be the name of a file everywhere"):
        check_name(name)


def test_long_names_are_refused_by_their_bytes() -> None:
    assert check_name("a" * 180)
    with pytest.raises(ValueError, match="too long for the name of a file; at most 180 bytes"):
        check_name("ä" * 91)


def test_usual_names_stay() -> None:
    for name in ("Dataset001_Größe", "axial__resnet_unet__fine", "patient 7 (left)", "1.2.840.113619", "症例"):
        assert check_name(name) == name


def test_paths_of_files_stay_inside() -> None:
    assert check_inner_path("./imagesTr/a.nii.gz") == "./imagesTr/a.nii.gz"
    for path in ("../a", "a/../b", "/a", "a//b", "a/" * 17 + "b"):
        with pytest.raises(ValueError, match=r"cannot be the name|too deep"):
            check_inner_path(path)


def test_what_commands_a_terminal_is_shown_as_escapes_that_json_reads_too() -> None:
    assert harmless("two\nlines\tä") == "two\nlines\tä"
    assert harmless("\x1b[31m \x9b \u202e \udcff") == "\\u001b[31m \\u009b \\u202e \\udcff"
    assert json.loads(harmless('"\x7f"')) == "\x7f"


def test_numbers_are_those_that_can_be_counted_with() -> None:
    assert all(map(is_number, ("0", "007", "999999999")))
    assert not any(map(is_number, ("", "-1", "1.0", "²", "٣", " 1", "1\n", "1" * 10)))
