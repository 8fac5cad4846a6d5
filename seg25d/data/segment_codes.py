"""Codes of labels, such as those of SNOMED CT, as `dataset.json` gives them under `segment_codes`.

They say in DICOM segmentations what a segment is, whatever the label is called (DICOM PS3.16, CID 7150 and 7151).
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Any

from pydantic import Field

from seg25d.core.records import Record

KEY = "segment_codes"
"""The key of `dataset.json`."""
SNOMED = "SCT"
"""How DICOM calls SNOMED CT (PS3.16, table 8-1)."""
_PARTS = ("category", "type", "modifier", "region")
_OTHER_NAMES = ("SNOMED", "SNOMEDCT", "SNOMED-CT", "SNOMED CT", "SNOMED_CT", "SCTID")
_CONCEPTS = ("00", "10")
"""Digits before the check digit that mark a concept, of SNOMED CT or of an extension (its partition identifier)."""
_VERHOEFF_TIMES = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_VERHOEFF_TURN = "1576283094"
"""The group table and the permutation of Verhoeff's check digit, which codes of SNOMED CT have (its release file
specification, "check-digit computation")."""
_EXAMPLE = '["10200004", "SCT", "Liver"]'

Text = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\\\x00-\x1f]*$")]
"""What DICOM calls a long string: at most 64 characters, no backslash."""


class Code(Record):
    """A coded concept: what DICOM calls a triple."""

    value: Text
    scheme: Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[^\\\x00-\x1f]*$")]
    """Designator of the coding scheme, such as `SCT` for SNOMED CT."""
    meaning: Text


class SegmentCode(Record):
    """What a segment is."""

    type: Code
    """Such as liver, or neoplasm."""
    category: Code | None = None
    """Such as anatomical structure; None: what DICOM counts the type to."""
    modifier: Code | None = None
    """Such as left."""
    region: Code | None = None
    """Where it is."""


def segment_codes(value: Any, names: Collection[str]) -> tuple[dict[str, SegmentCode], list[str]]:
    """Read the codes of labels.

    Args:
        value: What stands in `dataset.json`: for a label's name a triple `[value, scheme, meaning]`, which is its type,
            or an object of such triples: `type`, and as wanted `category`, `modifier`, `region`. None: nothing.
        names: The labels that there are.

    Returns:
        The codes by the name of the label, and one sentence per problem.
    """
    if value is None:
        return {}, []
    if not isinstance(value, Mapping):
        return {}, [f"{KEY} must be an object such as {{'liver': {_EXAMPLE}}}; it is {value!r:.80}"]
    codes: dict[str, SegmentCode] = {}
    problems: list[str] = []
    for name, said in value.items():
        where = f"{KEY}: '{name}'"
        if name not in names:
            problems.append(f"{where} is no label; the labels are {', '.join(names)}")
            continue
        parts = said if isinstance(said, Mapping) else {"type": said}
        wrong = sorted(set(parts) - set(_PARTS))
        found = {part: _code(triple, f"{where}, {part},", problems) for part, triple in parts.items() if part in _PARTS}
        if wrong or "type" not in parts:
            lacks = f"has the unknown key {wrong[0]!r}" if wrong else "lacks the key 'type'"
            problems.append(f"{where} {lacks}; give a triple such as {_EXAMPLE}, or some of {', '.join(_PARTS)}")
        elif (kind := found.pop("type")) is not None:
            codes[name] = SegmentCode(type=kind, **found)
    return codes, problems


def _code(triple: Any, where: str, problems: list[str]) -> Code | None:
    """The code of a triple; None where it is none, which is added to the problems."""
    if not isinstance(triple, list | tuple) or len(triple) != 3 or not all(isinstance(each, str) for each in triple):
        wanted = f"three texts, value, scheme and meaning, as in {_EXAMPLE}"
        problems.append(f"{where} must be {wanted}; it is {triple!r:.80}")
        return None
    value, scheme, meaning = (each.strip() for each in triple)
    if problem := _problem(value, scheme, meaning):
        problems.append(f"{where} {problem}")
        return None
    return Code(value=value, scheme=scheme, meaning=meaning)


def _problem(value: str, scheme: str, meaning: str) -> str | None:
    """What is wrong with a code."""
    for what, text, most in (("value", value, 64), ("scheme", scheme, 16), ("meaning", meaning, 64)):
        if not 0 < len(text) <= most or "\\" in text or not text.isprintable():
            return f"has the {what} {text[:80]!r}; wanted are 1 to {most} characters without backslashes"
    if value == SNOMED:
        return f'has scheme and value the wrong way round; write ["{scheme}", "{SNOMED}", "{meaning}"]'
    if scheme.upper() in _OTHER_NAMES:
        return f"has the scheme {scheme!r}; DICOM calls SNOMED CT {SNOMED!r}"
    if scheme == SNOMED and not is_snomed_concept(value):
        return (
            f"has the value {value!r}, which is no concept of SNOMED CT: these have 6 to 18 digits, the last of which "
            "is a check digit; look it up, it was probably mistyped"
        )
    return None


def is_snomed_concept(value: str) -> bool:
    """Whether a text can be the identifier of a concept of SNOMED CT: digits, partition and check digit."""
    if not (6 <= len(value) <= 18 and value.isascii() and value.isdecimal()) or value[0] == "0":
        return False
    return value[-3:-1] in _CONCEPTS and _verhoeff(value) == "0"


def _verhoeff(digits: str) -> str:
    """Verhoeff's check sum, which is 0 where all digits are right."""
    check = "0"
    for place, digit in enumerate(reversed(digits)):
        turned = digit
        for _ in range(place % 8):
            turned = _VERHOEFF_TURN[int(turned)]
        check = _VERHOEFF_TIMES[int(check)][int(turned)]
    return check
