"""Finding cases: dataset.json, the folders, explicit lists, patients, splits, inputs of a prediction."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from seg25d.core.errors import DatasetError
from seg25d.data.dataset import find_inputs, read_dataset, read_description, scan_dataset

DESCRIPTION: dict[str, Any] = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "tumour": 1},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


def make_dataset(root: Path, **changes: Any) -> Path:
    """A data set of empty files: cases a and b with two channels."""
    value = {key: item for key, item in (DESCRIPTION | changes).items() if item is not None}
    touch(root, *(f"imagesTr/{case}_{channel:04d}.nii.gz" for case in "ab" for channel in range(2)))
    touch(root, "labelsTr/a.nii.gz", "labelsTr/b.nii.gz")
    (root / "dataset.json").write_text(json.dumps(value))
    return root


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def problems_of(root: Path) -> str:
    return "\n".join(f"{item.case}: {item.problem} -> {item.cure}" for item in scan_dataset(root)[1])


def test_read_dataset(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "Dataset001_Test", licence="CC0")
    touch(root, "imagesTr/.tmp-1-c_0000.nii.gz", "imagesTr/notes.txt", "imagesTs/c_0000.nii.gz")
    dataset = read_dataset(root)
    assert dataset.name == "Dataset001_Test"
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert [path.name for path in dataset.cases[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert dataset.cases[1].label == root / "labelsTr" / "b.nii.gz"
    assert dataset.description.channel_names == ("CT", "PET")
    assert dataset.description.metadata == {"licence": "CC0"}
    assert dataset.patients == {}
    assert dataset.splits is None


@pytest.mark.parametrize("key", ["channel_names", "modality"])
def test_channels_that_begin_at_1_are_refused_with_the_cure(key: str, tmp_path: Path) -> None:
    root = make_dataset(tmp_path, **({"channel_names": None} | {key: {"1": "T1", "2": "T2"}}))
    with pytest.raises(DatasetError, match="the keys are 1, 2") as caught:
        read_dataset(root)
    assert 'renumber them from "0": {"0": "T1", "1": "T2"}, where 0 is CASE_0000' in str(caught.value)


@pytest.mark.parametrize(
    ("names", "cure"),
    [
        ({"1": "CT"}, '{"0": "CT"}'),
        ({"2": "b", "10": "c", "1": "a"}, '{"0": "a", "1": "b", "2": "c"}'),
        ({"0000": "a", "0001": "b"}, '{"0": "a", "1": "b"}'),
        ({"ch0": "a", "ch1": "b"}, '{"0": "a", "1": "b"}'),
        ({"0": "a", "2": "b"}, '{"0": "a", "1": "b"}'),
        ({"T1": "0", "T2": "1"}, '{"0": "T1", "1": "T2"}'),
        ({"T2": 1, "T1": 0}, '{"0": "T1", "1": "T2"}'),
    ],
)
def test_other_keys_of_channels_are_refused_with_the_cure(names: dict[str, Any], cure: str, tmp_path: Path) -> None:
    assert cure in problems_of(make_dataset(tmp_path, channel_names=names))


def test_more_than_ten_channels_keep_their_order(tmp_path: Path) -> None:
    names = {str(index): f"channel{index}" for index in range(12)}
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(DESCRIPTION | {"channel_names": names}))
    assert read_description(path).channel_names == tuple(f"channel{index}" for index in range(12))


def test_all_errors_of_dataset_json_are_listed(tmp_path: Path) -> None:
    value = {
        "channel_names": {"0": "CT", "2": 5},
        "labels": {"background": 1, "ignore": 0, "a": "x"},
        "file_ending": "nii",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(value))
    with pytest.raises(DatasetError) as caught:
        read_description(tmp_path / "dataset.json")
    for words in (
        "numbered 0, 1",
        "channel 2 must be text",
        "'a' must be a whole number",
        "file_ending must be one of",
        "numTraining must be the number of training cases; it is missing",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel_names": None}, "channel_names must be an object"),
        ({"labels": {"background": 2, "a": 1}}, "'background' must be 0"),
        ({"labels": {"background": 0, "a": 1, "ignore": 1}}, "'ignore' must be one value, the highest"),
        ({"labels": {"background": 0, "a": [1, 2]}}, "regions_class_order is missing"),
        ({"labels": {"background": 0, "a": True}}, "whole number"),
        ({"labels": ["a"]}, "labels must be an object"),
        ({"regions_class_order": "12"}, "regions_class_order must be a list"),
        ({"labels": {"0": "a", "1": "a"}}, "wrong way round"),
        ({"labels": {"0": "background", "9" * 5000: "a"}}, "whole number"),
        ({"labels": {"0": "background", "²": "a"}}, "whole number"),
        ({"numTraining": "2"}, "numTraining must be"),
    ],
)
def test_wrong_descriptions(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert message in problems_of(make_dataset(tmp_path, **changes))
    with pytest.raises(DatasetError, match=message):
        read_description(tmp_path / "dataset.json")


@pytest.mark.parametrize("content", ["", "[]", "{", '"text"'])
def test_useless_dataset_json(content: str, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        read_description(tmp_path / "dataset.json")
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        read_dataset(tmp_path)


def test_missing_folder_and_missing_json(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a folder"):
        read_dataset(tmp_path / "none")
    with pytest.raises(DatasetError, match="does not exist"):
        read_dataset(tmp_path)


def test_old_keys_are_accepted_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    old = {"channel_names": None, "modality": {"0": "CT", "1": "PET"}, "labels": {"0": "background", "1": "tumour"}}
    description = read_dataset(make_dataset(tmp_path, **old)).description
    assert description.channel_names == ("CT", "PET")
    assert description.labels.names == {"background": 0, "tumour": 1}
    assert len(caplog.records) == 2


def test_regions_from_json(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    dataset = read_dataset(make_dataset(tmp_path, labels=labels, regions_class_order=[1, 2]))
    assert dataset.description.labels.foreground == {"whole": (1, 2), "core": (2,)}
    assert not caplog.records
    read_dataset(make_dataset(tmp_path, regions_class_order=[1]))
    assert "regions_class_order is ignored" in caplog.text


def test_all_problems_of_the_folders_are_listed(tmp_path: Path) -> None:
    root = make_dataset(tmp_path, numTraining=2)
    (root / "imagesTr/a_0001.nii.gz").unlink()
    (root / "labelsTr/b.nii.gz").unlink()
    touch(root, "imagesTr/b_0000.nrrd", "imagesTr/b_0002.nii.gz", "imagesTr/lonely.nii.gz", "imagesTr/A_0000.nii.gz")
    touch(root, "labelsTr/orphan.nii.gz", "labelsTr/a.nii", "imagesTr/c_0000.mha")
    text = problems_of(root)
    for line in (
        "a: missing channel 0001 (PET): imagesTr/a_0001.nii.gz does not exist -> add the file or remove the case",
        "b: missing label: labelsTr/b.nii.gz does not exist",
        "b: name collides: imagesTr/b_0000.nii.gz and imagesTr/b_0000.nrrd are the same without the ending",
        "a: name collides: labelsTr/a.nii and labelsTr/a.nii.gz",
        "b: b_0002.nii.gz: dataset.json declares only 2 channel(s)",
        "lonely: imagesTr/lonely.nii.gz has no channel number -> rename it to lonely_0000.nii.gz",
        "orphan: labelsTr/orphan.nii.gz has no image",
        "c: imagesTr/c_0000.mha does not end in .nii.gz",
        "a: duplicate case: differs from A in capitals only",
        "dataset.json: numTraining is 2, but there are 4 cases -> set numTraining to 4",
    ):
        assert line in text
    with pytest.raises(DatasetError, match="problems:\ncase "):
        read_dataset(root)


def test_no_cases(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(DESCRIPTION))
    assert "there are no training cases -> add imagesTr/CASE_0000.nii.gz" in problems_of(tmp_path)


def test_key_twice_in_json(tmp_path: Path) -> None:
    root = make_dataset(tmp_path)
    text = json.dumps(DESCRIPTION)[:-1] + ', "numTraining": 2}'
    (root / "dataset.json").write_text(text)
    assert "numTraining: duplicate: dataset.json has 'numTraining' twice" in problems_of(root)


def test_explicit_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "elsewhere/one.nii.gz", "elsewhere/two.nrrd", "set/label.mha")
    monkeypatch.setenv("ELSEWHERE", str(tmp_path / "elsewhere"))
    entry = {"images": ["$ELSEWHERE/one.nii.gz", "../elsewhere/two.nrrd"], "label": "label.mha"}
    root = tmp_path / "set"
    (root / "dataset.json").write_text(json.dumps(DESCRIPTION | {"dataset": {"x": entry}, "numTraining": 1}))
    case = read_dataset(root).cases[0]
    assert case.name == "x"
    assert all(path.is_file() for path in (*case.images, case.label) if path)


def test_explicit_problems(tmp_path: Path) -> None:
    touch(tmp_path, "one.nii.gz", "two.nii.gz", "label.gif")
    entries = {
        "a": {"images": ["one.nii.gz", "two.nii.gz"], "label": "one.nii.gz"},
        "b": {"images": ["one.nii.gz", "two.nii.gz"], "label": "two.nii.gz"},
        "c": {"images": ["one.nii.gz"]},
        "d": {"images": ["none.nii.gz", "two.nii.gz"], "label": "label.gif"},
        "e": {"image": "one.nii.gz"},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(DESCRIPTION | {"dataset": entries, "numTraining": 5}))
    text = problems_of(tmp_path)
    for line in (
        "b: duplicate case: one.nii.gz is also an image of a",
        "c: 1 images are listed",
        "c: missing label",
        "none.nii.gz does not exist",
        "label.gif has an unknown ending",
        "e: `dataset.e` is not valid",
    ):
        assert line in text
    (tmp_path / "dataset.json").write_text(json.dumps(DESCRIPTION | {"dataset": []}))
    assert "`dataset` is not an object" in problems_of(tmp_path)


def test_patients_and_splits(tmp_path: Path) -> None:
    root = make_dataset(tmp_path)
    (root / "patients.json").write_text('{"a": "p1", "b": "p1"}')
    (root / "splits.json").write_text('[{"train": ["a"], "val": ["b"]}]')
    dataset = read_dataset(root)
    assert dataset.patients == {"a": "p1", "b": "p1"}
    assert dataset.splits is not None
    assert dataset.splits[0].val == ("b",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("patients.json", '{"z": "p"}', "z: patients.json names an unknown case"),
        ("patients.json", '["a"]', "patients.json: it must be an object"),
        ("patients.json", "{", "patients.json: "),
    ],
)
def test_wrong_patients(name: str, content: str, message: str, tmp_path: Path) -> None:
    root = make_dataset(tmp_path)
    (root / name).write_text(content)
    assert message in problems_of(root)


def names_of(source: Path, num_channels: int) -> dict[str, list[str]]:
    cases = find_inputs(source, num_channels, ".nii.gz")
    assert all(case.label is None for case in cases)
    return {case.name: [path.name for path in case.images] for case in cases}


def test_find_inputs_in_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "b_0001.nrrd", "b_0000.nii.gz", "a_0000.mha", "a_0001.mha", "prediction.json")
    assert names_of(tmp_path, 2) == {"a": ["a_0000.mha", "a_0001.mha"], "b": ["b_0000.nii.gz", "b_0001.nrrd"]}
    assert names_of(tmp_path / "a_0000.mha", 2) == {"a": ["a_0000.mha", "a_0001.mha"]}


def test_find_inputs_with_one_channel(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz", "b.nii", "scan_2019.nii.gz")
    assert names_of(tmp_path, 1) == {"a": ["a_0000.nii.gz"], "b": ["b.nii"], "scan_2019": ["scan_2019.nii.gz"]}
    assert names_of(tmp_path / "b.nii", 1) == {"b": ["b.nii"]}
    assert names_of(tmp_path / "a_0000.nii.gz", 1) == {"a": ["a_0000.nii.gz"]}
    assert names_of(tmp_path / "scan_2019.nii.gz", 1) == {"scan_2019": ["scan_2019.nii.gz"]}


def test_find_inputs_lists_all_problems(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a_0001.nii.gz",
        "b_0000.nii.gz",
        "c.nii.gz",
        "d_0000.nii",
        "d_0000.nii.gz",
        "d_0001.nii",
        "d_0002.nii",
    )
    with pytest.raises(DatasetError) as caught:
        find_inputs(tmp_path, 2, ".nii.gz")
    for line in (
        "a: missing channel: a_0000.nii.gz",
        "b: missing channel: b_0001.nii.gz",
        "c.nii.gz has no channel number",
        "d_0000.nii and d_0000.nii.gz are the same",
        "d: the model takes 2 channel(s), but there is d_0002.nii",
    ):
        assert line in str(caught.value)


def test_one_channel_model_and_two_channels(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz")
    with pytest.raises(DatasetError, match="the model takes 1 channel"):
        find_inputs(tmp_path, 1, ".nii.gz")
    touch(tmp_path / "other", "b.nii.gz", "b_0000.nii.gz")
    with pytest.raises(DatasetError, match="both channel 0 of b"):
        find_inputs(tmp_path / "other", 1, ".nii.gz")


@pytest.mark.parametrize(
    ("name", "num_channels", "message"),
    [
        ("none", 1, "does not exist"),
        ("empty", 1, "CASE_0000"),
        ("notes.txt", 1, "known endings"),
        ("a.nii", 2, "takes 2 channels"),
        ("series", 2, "one folder per channel"),
        ("b_0000.nii", 2, "missing channel: b_0001"),
        ("series/1.dcm", 1, "give the folder that holds all files of its series"),
    ],
)
def test_find_inputs_errors(name: str, num_channels: int, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "notes.txt", "a.nii", "series/1.dcm", "b_0000.nii")
    with pytest.raises(DatasetError, match=message):
        find_inputs(tmp_path / name, num_channels, ".nii.gz")


def test_find_dicom_folders(tmp_path: Path) -> None:
    touch(tmp_path, "in/x_0000/1.dcm", "in/x_0001/IM1", "in/other/readme")
    (tmp_path / "in/x_0001/IM1").write_bytes(bytes(128) + b"DICM")
    assert names_of(tmp_path / "in", 2) == {"x": ["x_0000", "x_0001"]}
    assert names_of(tmp_path / "in" / "x_0001", 1) == {"x_0001": ["x_0001"]}


def test_find_dicom_folders_further_down(tmp_path: Path) -> None:
    touch(tmp_path, "anna/study/ct/1.dcm", "bert/study/ct/1.dcm", "bert/.hidden/1.dcm")
    assert names_of(tmp_path, 1) == {"anna_study_ct": ["ct"], "bert_study_ct": ["ct"]}
    assert names_of(tmp_path / "anna", 1) == {"study_ct": ["ct"]}
    touch(tmp_path, "x.nii.gz")
    assert names_of(tmp_path, 1) == {"anna_study_ct": ["ct"], "bert_study_ct": ["ct"], "x": ["x.nii.gz"]}
    touch(tmp_path, "carl/1.dcm", "1.dcm")
    assert names_of(tmp_path, 1) == {
        "anna_study_ct": ["ct"], "bert_study_ct": ["ct"], "carl": ["carl"], tmp_path.name: [tmp_path.name],
        "x": ["x.nii.gz"],
    }  # fmt: skip


@pytest.mark.parametrize("series", ["1.dcm", "anna/1.dcm", "anna/study/1.dcm"])
@pytest.mark.parametrize("file", ["", "x_0000.nii.gz"])
def test_pictures_beside_images_are_told(series: str, file: str, tmp_path: Path, caplog: Any) -> None:
    touch(tmp_path, series, "shot.png", *filter(None, [file]))
    cases = {
        "1.dcm": tmp_path.name, "anna/1.dcm": "anna", "anna/study/1.dcm": "anna_study"
    }  # fmt: skip
    assert set(names_of(tmp_path, 1)) == {cases[series], *(["x"] if file else [])}
    assert f"{tmp_path}: left out, as pictures do not count beside medical images: shot.png" in caplog.text


def test_medical_images_beside_the_pictures_of_a_data_set_are_told(tmp_path: Path, caplog: Any) -> None:
    touch(tmp_path, "a_0000.png", "b_0000.png", *(f"old_{number}.nii" for number in range(7)))
    assert [case.name for case in find_inputs(tmp_path, 1, ".png")] == ["a", "b"]
    assert "as medical images do not count beside pictures: old_0.nii, old_1.nii, old_2.nii, " in caplog.text
    assert "old_4.nii and 2 more" in caplog.text
    assert len(find_inputs(tmp_path, 1, ".nii.gz")) == 7


def test_real_data_sets(shared_data: Path) -> None:
    assert len(read_dataset(shared_data / "Dataset004_Hippocampus").cases) == 200
    sarcoma = read_dataset(shared_data / "Dataset005_SarcomaPETCT")
    assert len(sarcoma.cases) == 24
    assert len(find_inputs(sarcoma.root / "imagesTr", 2, ".nii.gz")) == 24


def test_names_in_the_explicit_list_become_files(tmp_path: Path) -> None:
    names = ["../a", "b\\c", ".d", "", "E", "e"]
    touch(tmp_path, *(f"{index}.nii.gz" for index in range(len(names))))
    entries = {name: {"images": [f"{index}.nii.gz"], "label": f"{index}.nii.gz"} for index, name in enumerate(names)}
    changes = {"dataset": entries, "numTraining": len(names), "channel_names": {"0": "CT"}}
    (tmp_path / "dataset.json").write_text(json.dumps(DESCRIPTION | changes))
    dataset, problems = scan_dataset(tmp_path)
    assert dataset is not None
    assert [case.name for case in dataset.cases] == ["E", "e"]
    assert [item.case for item in problems if "cannot be the name of a case" in item.problem] == names[:4]
    assert [item.case for item in problems if "in capitals only" in item.problem] == ["e"]


def test_an_empty_description_lists_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{}")
    assert "numTraining must be" in problems_of(tmp_path)


def renamed(root: Path, folder: str, old: str, new: str) -> None:
    for path in (root / folder).iterdir():
        path.rename(path.with_name(path.name.replace(old, new)))


@pytest.mark.parametrize(("digits", "count"), [("_0", 1), ("_00", 2), ("_000", 3), ("_00000", 5)])
def test_channel_numbers_of_other_than_four_digits(digits: str, count: int, tmp_path: Path) -> None:
    root = make_dataset(tmp_path, channel_names={"0": "CT"})
    for path in root.glob("imagesTr/*_0001.nii.gz"):
        path.unlink()
    renamed(root, "imagesTr", "_0000", digits)
    assert problems_of(root).splitlines() == [
        f"{case}: imagesTr/{case}{digits}.nii.gz has a channel number of {count} digits, expected are four -> "
        f"rename it to {case}_0000.nii.gz"
        for case in "ab"
    ]
    for path in root.glob("labelsTr/*"):
        path.unlink()
    assert (
        problems_of(root)
        .splitlines()[0]
        .endswith(f"rename it to a_0000.nii.gz, or, if a{digits} is the name of the case, to a{digits}_0000.nii.gz")
    )


def test_a_number_that_belongs_to_the_case(tmp_path: Path) -> None:
    root = make_dataset(tmp_path, channel_names={"0": "CT"}, numTraining=1)
    for path in [*root.glob("imagesTr/*"), *root.glob("labelsTr/*")]:
        path.unlink()
    touch(root, "imagesTr/a_001.nii.gz", "labelsTr/a_001.nii.gz")
    wanted = "a_001: imagesTr/a_001.nii.gz has no channel number -> rename it to a_001_0000.nii.gz"
    assert problems_of(root) == wanted


@pytest.mark.parametrize(
    ("new", "told"),
    [
        ("_0000.nii.gz", "has a channel number, as only images have"),
        ("_000.nii.gz", "has a channel number, as only images have"),
        (".seg.nii.gz", "is named as Slicer does it"),
    ],
)
def test_labels_that_are_named_otherwise_than_their_cases(new: str, told: str, tmp_path: Path) -> None:
    root = make_dataset(tmp_path)
    renamed(root, "labelsTr", ".nii.gz", new)
    assert problems_of(root).splitlines() == [
        f"{case}: labelsTr/{case}{new} {told} -> rename it to {case}.nii.gz" for case in "ab"
    ]


def test_a_label_that_is_there_under_two_names(tmp_path: Path) -> None:
    root = make_dataset(tmp_path)
    touch(root, "labelsTr/a_0000.nii.gz")
    assert problems_of(root).endswith("rename it to a.nii.gz; a.nii.gz is there too: keep one")


def test_a_case_whose_name_ends_as_a_channel_does(tmp_path: Path) -> None:
    root = make_dataset(tmp_path, channel_names={"0": "CT"}, numTraining=1)
    for path in [*root.glob("imagesTr/*"), *root.glob("labelsTr/*")]:
        path.unlink()
    touch(root, "imagesTr/a_0000_0000.nii.gz", "labelsTr/a_0000.nii.gz")
    assert [case.name for case in read_dataset(root).cases] == ["a_0000"]


def test_every_json_file_may_have_a_byte_order_mark(tmp_path: Path) -> None:
    root = make_dataset(tmp_path)
    (root / "dataset.json").write_text((root / "dataset.json").read_text(), encoding="utf-8-sig")
    (root / "patients.json").write_text('{"a": "x", "b": "y"}', encoding="utf-8-sig")
    (root / "splits.json").write_text('[{"train": ["a"], "val": ["b"]}]', encoding="utf-16")
    dataset = read_dataset(root)
    assert dataset.patients == {"a": "x", "b": "y"}
    assert dataset.splits is not None
    assert dataset.description.channel_names == ("CT", "PET")


def test_three_digits_at_prediction(tmp_path: Path) -> None:
    touch(tmp_path, "a_000.nii.gz", "a_001.nii.gz")
    with pytest.raises(DatasetError, match=r"a_000.nii.gz has no channel number of four digits"):
        find_inputs(tmp_path, 2, ".nii.gz")
