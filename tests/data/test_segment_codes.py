"""Codes of labels in `dataset.json`: what is read, and what is said of wrong ones."""

from typing import Any

import pytest
from pydantic import ValidationError
from pydicom.sr import _concepts_dict

from seg25d.data.description import DatasetDescription, parse_description
from seg25d.data.segment_codes import is_snomed_concept, segment_codes

LIVER = ["10200004", "SCT", "Liver"]
DATASET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "tumour": 2, "ignore": 3},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}


def test_codes_of_a_data_set_go_with_its_description() -> None:
    said = {"liver": LIVER, "tumour": {"type": ["108369006", "SCT", "Neoplasm"], "region": LIVER}}
    description, problems = parse_description(DATASET | {"segment_codes": said})
    assert not problems
    assert description is not None
    again = DatasetDescription.model_validate_json(description.model_dump_json())
    assert again == description
    assert again.segment_codes["liver"].type.value == "10200004"
    assert again.segment_codes["tumour"].region == again.segment_codes["liver"].type


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ([LIVER], "must be an object such as"),
        ({"lever": LIVER}, "'lever' is no label; the labels are liver, tumour"),
        ({"background": LIVER}, "'background' is no label"),
        ({"ignore": LIVER}, "'ignore' is no label"),
        ({"liver": "10200004"}, "must be three texts"),
        ({"liver": [10200004, "SCT", "Liver"]}, "must be three texts"),
        ({"liver": LIVER[:2]}, "must be three texts"),
        ({"liver": ["SCT", "10200004", "Liver"]}, 'the wrong way round; write ["10200004", "SCT", "Liver"]'),
        ({"liver": ["10200004", "SNOMED", "Liver"]}, "DICOM calls SNOMED CT 'SCT'"),
        ({"liver": ["10200005", "SCT", "Liver"]}, "'10200005', which is no concept of SNOMED CT"),
        ({"liver": ["10200004", "SCT", ""]}, "has the meaning ''; wanted are 1 to 64 characters"),
        ({"liver": ["10200004", "SCT", "x" * 65]}, "1 to 64 characters"),
        ({"liver": ["1", "x" * 17, "Liver"]}, "1 to 16 characters"),
        ({"liver": ["1", "99A\\B", "Liver"]}, "without backslashes"),
        ({"liver": {"category": LIVER}}, "lacks the key 'type'"),
        ({"liver": {"type": LIVER, "colour": LIVER}}, "has the unknown key 'colour'"),
        ({"liver": {"type": LIVER, "region": 3}}, "'liver', region, must be three texts"),
    ],
)
def test_wrong_codes_are_named(said: Any, problem: str) -> None:
    description, problems = parse_description(DATASET | {"segment_codes": said})
    assert description is None
    (found,) = problems
    assert found.startswith("segment_codes")
    assert problem in found


def test_a_model_with_wrong_codes_is_no_model() -> None:
    description, _ = parse_description(DATASET)
    assert description is not None
    assert description.segment_codes == {}
    content = description.model_dump(mode="json")
    content["metadata"] = {"segment_codes": {"liver": "x" * 10_000}}
    with pytest.raises(ValidationError, match="must be three texts"):
        DatasetDescription.model_validate(content)


def test_other_schemes_are_taken_as_they_are() -> None:
    codes, problems = segment_codes({"liver": ["7197", "FMA", "Liver"]}, ["liver"])
    assert not problems
    assert codes["liver"].type.scheme == "FMA"


def test_check_digits_are_those_of_snomed() -> None:
    """All concepts that DICOM knows pass, but for one that it misspells; most changes of a digit do not."""
    known = {value for concept in _concepts_dict.concepts["SCT"].values() for value in concept}
    assert {value for value in known if not is_snomed_concept(value)} <= {"115347700"}
    right = "10200004"
    changed = {right[:place] + digit + right[place + 1 :] for place in range(len(right)) for digit in "0123456789"}
    assert [value for value in changed if is_snomed_concept(value)] == [right]
    swapped = {right[:place] + right[place + 1] + right[place] + right[place + 2 :] for place in range(len(right) - 1)}
    assert [value for value in swapped if is_snomed_concept(value)] == [right]
    assert not any(map(is_snomed_concept, ("", "00000", "x10200004", "٠١٢٣٤٥٦", "010200004", "9" * 19)))
