"""What entries of a zip file say of themselves, where no program writes such files by itself."""

from zipfile import ZipInfo

import pytest

from seg25d.core.files import MAX_JSON_BYTES
from seg25d.sharing.entries import MAX_RECORD_BYTES, entry_problems, overlap_problems


def make_entry(name: str, size: int = 10, packed: int = 10) -> ZipInfo:
    entry = ZipInfo(name)
    entry.file_size, entry.compress_size = size, packed
    return entry


def test_sound_entries_have_no_problems():
    entries = [make_entry("manifest.json"), make_entry("best.json"), make_entry("si/plans.json", 2000)]
    assert entry_problems(entries, archive_bytes=30) == []
    assert entry_problems([], archive_bytes=30) == [
        "manifest.json is missing: it was not written by `seg25d export_model`"
    ]


def test_a_second_name_in_an_extra_field_is_no_way_around_the_first():
    entry = make_entry("si/plans.json")
    entry.filename = "../plans.json"
    assert entry_problems([make_entry("manifest.json"), entry], 30) == ["'si/plans.json' has a second name"]


def test_an_entry_without_a_name_is_refused():
    problems = entry_problems([make_entry("manifest.json"), make_entry("")], 30)
    assert problems == ["'' does not belong in an archive of models"]


@pytest.mark.parametrize(
    ("name", "limit"), [("si/plans.json", MAX_RECORD_BYTES), ("si/crossval/summary.json", MAX_JSON_BYTES)]
)
def test_records_are_not_endless_however_well_they_shrink(name, limit):
    entries = [make_entry("manifest.json"), make_entry(name, limit + 1, limit)]
    problems = entry_problems(entries, 2 * limit)
    assert problems == [f"{name!r} unpacks to more than the {limit >> 20} MiB that a record may have"]
    assert entry_problems([make_entry("manifest.json"), make_entry(name, limit, limit)], 2 * limit) == []
    model = make_entry("si/fold_0/model_final.safetensors", limit + 1, limit)
    assert entry_problems([make_entry("manifest.json"), model], 2 * limit) == []


def test_entries_that_share_their_content_are_told_by_their_sum():
    entries = [make_entry("manifest.json"), *(make_entry(f"run_{index}/plans.json") for index in range(5))]
    assert entry_problems(entries, archive_bytes=59) == ["the sizes of its entries are larger than the file"]
    assert entry_problems(entries, archive_bytes=60) == []


def test_entries_that_overlap_in_the_file_are_refused():
    first, second = make_entry("si/plans.json", 100, 100), make_entry("si/dataset.json", 100, 100)
    first.header_offset, second.header_offset = 0, 60
    assert overlap_problems([second, first]) == ["'si/plans.json' overlaps 'si/dataset.json'"]
    second.header_offset = 200
    assert overlap_problems([second, first]) == []


def test_there_may_not_be_thousands_of_entries():
    entries = [make_entry(f"si/fold_0/views/v{number}.safetensors") for number in range(10_001)]
    assert entry_problems(entries, 1 << 30) == ["it has 10,001 entries; at most 10,000 are possible"]
