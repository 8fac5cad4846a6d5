"""What entries of a zip file say of themselves, where no program writes such files by itself."""

from zipfile import ZipInfo

from seg25d.sharing.entries import MAX_JSON_BYTES, entry_problems


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


def test_records_are_not_endless_however_well_they_shrink():
    entry = make_entry("si/plans.json", MAX_JSON_BYTES + 1, MAX_JSON_BYTES)
    problems = entry_problems([make_entry("manifest.json"), entry], 2 * MAX_JSON_BYTES)
    assert problems == ["'si/plans.json' unpacks to more than the 64 MiB that a record may have"]
    model = make_entry("si/fold_0/model_final.safetensors", MAX_JSON_BYTES + 1, MAX_JSON_BYTES)
    assert entry_problems([make_entry("manifest.json"), model], 2 * MAX_JSON_BYTES) == []


def test_entries_that_share_their_content_are_told_by_their_sum():
    entries = [make_entry("manifest.json"), *(make_entry(f"run_{index}/plans.json") for index in range(5))]
    assert entry_problems(entries, archive_bytes=59) == ["the sizes of its entries are larger than the file"]
    assert entry_problems(entries, archive_bytes=60) == []
