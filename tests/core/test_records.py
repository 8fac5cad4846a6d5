"""Records: digests of plain values."""

from seg25d.core.records import digest


def test_a_digest_depends_on_values_alone() -> None:
    first = digest({"a": 1, "b": [1.5, None]})
    assert first == digest({"b": [1.5, None], "a": 1})
    assert first != digest({"a": 2, "b": [1.5, None]})
    assert len(first) == 32
    assert first.startswith(digest({"a": 1, "b": [1.5, None]}, 8))
