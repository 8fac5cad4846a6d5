"""Records: digests of plain values."""

import pytest

from seg25d.core import records
from seg25d.core.errors import RecordError
from seg25d.core.records import Record, digest, parse_record


def test_a_digest_depends_on_values_alone() -> None:
    first = digest({"a": 1, "b": [1.5, None]})
    assert first == digest({"b": [1.5, None], "a": 1})
    assert first != digest({"a": 2, "b": [1.5, None]})
    assert len(first) == 32
    assert first.startswith(digest({"a": 1, "b": [1.5, None]}, 8))


class Numbers(Record):
    numbers: tuple[int, ...]


@pytest.mark.parametrize(
    ("count", "told"), [(30, "numbers.0: "), (31, "is not valid: 31 of its values are wrong; get")]
)
def test_places_of_few_mistakes_are_named_and_many_are_counted(
    count: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MOST_COUNTED", 30)
    with pytest.raises(RecordError) as caught:
        parse_record({"numbers": [None] * count}, Numbers, "file")
    assert told in str(caught.value)
