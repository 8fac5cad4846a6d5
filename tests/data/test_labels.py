"""Labels: values to indices and back, regions, ignore, sides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg25d.core.errors import DatasetError, InputError, RecordError
from seg25d.core.records import parse_record
from seg25d.data import labels as labels_module
from seg25d.data.label_problems import label_problems
from seg25d.data.labels import IGNORE_INDEX, Labels, is_any_of, logit, round_nearly_whole

GAPS = Labels(names={"background": 0, "liver": 3, "spleen": 7, "ignore": 9})
ORGAN = Labels(names={"background": 0, "organ": 4})
TUMOUR = Labels(
    names={"background": 0, "whole": (1, 2, 3), "core": (2, 3), "enhancing": 3}, regions_class_order=(1, 2, 3)
)


def test_gaps_are_closed() -> None:
    assert GAPS.values == (0, 3, 7)
    assert GAPS.ignore_value == 9
    assert GAPS.num_outputs == 3
    assert GAPS.output_members == ((0,), (1,), (2,))
    assert GAPS.foreground == {"3": (1,), "7": (2,)}
    assert not GAPS.has_regions


def test_what_is_evaluated_has_the_name_of_dataset_json() -> None:
    assert [GAPS.name_of(key) for key in (*GAPS.foreground, "5", "all labels")] == [
        "liver",
        "spleen",
        "5",
        "all labels",
    ]
    assert [TUMOUR.name_of(key) for key in TUMOUR.foreground] == ["whole", "core", "enhancing"]


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint16", "int32", "int64", "uint64", "float32", "float64"]
)
def test_encode_any_type(dtype: str) -> None:
    encoded = GAPS.encode(np.array([[0, 3], [7, 9]], dtype), "case")
    assert encoded.dtype == np.uint8
    assert encoded.tolist() == [[0, 1], [2, IGNORE_INDEX]]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float32"])
def test_each_block_is_encoded_as_its_voxels(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of declared values, of others within the table, and beyond it."""
    monkeypatch.setattr(labels_module, "_BLOCK", 4)
    values = np.array([0, 3, 7, 9, 0, 5, 3, 3, 9, 120, 7, 0, 7], dtype)
    encoded, undeclared = GAPS.translate(values)
    places = {0: 0, 3: 1, 7: 2, 9: IGNORE_INDEX}
    assert encoded.tolist() == [places.get(int(value), 254) for value in values]
    assert undeclared == [5, 120]


@pytest.mark.parametrize("value", [-1, 5, 120, 1e30, np.nan, np.inf])
def test_undeclared_value_names_case_value_and_cure(value: float) -> None:
    with pytest.raises(DatasetError, match=r"case_7: label value .* not declared .* correct the label file"):
        GAPS.encode(np.array([0, 3, value]), "case_7")


def test_many_undeclared_values_are_cut_short() -> None:
    encoded, undeclared = GAPS.translate(np.arange(100, 200))
    assert len(undeclared) == 100
    assert encoded.shape == (100,)
    assert ", ..." in GAPS.undeclared_message(undeclared)


def test_empty_array_encodes_to_empty() -> None:
    assert GAPS.encode(np.zeros((0, 3), np.int16), "case").shape == (0, 3)


@given(
    st.sets(st.integers(1, 100_000), min_size=1, max_size=20),
    st.booleans(),
    st.lists(st.integers(0, 1000), max_size=30),
)
def test_decode_undoes_encode(values: set[int], ignore: bool, picks: list[int]) -> None:
    names: dict[str, int] = {"background": 0} | {f"organ{value}": value for value in values}
    if ignore:
        names["ignore"] = max(values) + 1
    labels = Labels(names=dict(names))
    choices = list(names.values())
    array = np.array([choices[pick % len(choices)] for pick in picks], np.int32)
    decoded = labels.decode(labels.encode(array, "case"))
    assert decoded.tolist() == array.tolist()


@pytest.mark.parametrize(("top", "dtype"), [(255, np.uint8), (256, np.uint16), (65536, np.int32)])
def test_decode_takes_the_smallest_type(top: int, dtype: type) -> None:
    assert Labels(names={"background": 0, "a": top}).decode(np.array([1])).dtype == dtype


def test_regions() -> None:
    assert TUMOUR.has_regions
    assert TUMOUR.values == (0, 1, 2, 3)
    assert TUMOUR.num_outputs == 3
    assert TUMOUR.output_members == ((1, 2, 3), (2, 3), (3,))
    assert TUMOUR.foreground == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}


def test_regions_are_painted_in_order() -> None:
    scores = np.array([[-1.0, 1.0, 1.0, 1.0, -1.0], [-1.0, -1.0, 1.0, 1.0, -1.0], [-1.0, -1.0, -1.0, 1.0, 1.0]])
    assert TUMOUR.from_scores(scores).tolist() == [0, 1, 2, 3, 3]


def test_a_threshold_is_a_probability() -> None:
    scores = np.array([[0.0, 0.0, 0.0], [-1.5, -1.3, 0.1]])  # probabilities 0.182, 0.214, 0.525
    assert ORGAN.from_scores(scores, 0.2).tolist() == [0, 1, 1]
    assert ORGAN.from_scores(scores + 5, 0.5).tolist() == [0, 0, 1]
    assert TUMOUR.from_scores(np.array([[-1.3], [-1.3], [-1.5]]), 0.2).tolist() == [2]
    assert logit(0.2) == pytest.approx(-1.3862944)


def test_a_threshold_for_several_classes_is_refused() -> None:
    for labels in (ORGAN, TUMOUR):
        labels.check_threshold(0.2)
    GAPS.check_threshold(None)
    with pytest.raises(InputError, match=r"\(0\.2\).*2 classes \(liver, spleen\).*threshold=null"):
        GAPS.check_threshold(0.2)


def test_from_scores_takes_the_largest() -> None:
    assert GAPS.from_scores(np.array([[3.0, 0.0], [1.0, 0.5], [2.0, 9.0]])).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("names", "order", "message"),
    [
        ({"background": 1, "a": 2}, None, "'background' must be 0"),
        ({"a": 1}, None, "no name has the value 0"),
        ({"background": 0}, None, "no foreground class"),
        ({"background": 0, "a": 1, "ignore": 1}, None, "'ignore' must be one value, the highest"),
        ({"background": 0, "a": (1, 2), "ignore": (3, 4)}, (1,), "'ignore' must be one value"),
        ({"background": 0, "a": 1, "b": 1}, None, "value 1 has several names"),
        ({"background": 0, "a": (1, 2), "b": 2}, None, "regions_class_order is missing"),
        ({"background": 0, "a": (1, 2), "b": 2}, (1,), "has 1 values, but there are 2 regions"),
        ({"background": 0, "a": (1, 2), "b": 2}, (1, 5), "value 5 is not declared"),
        ({"background": 0, "a": (0, 1)}, (1,), "holds the background"),
        ({"background": 0, "a": ()}, None, "empty list"),
        ({"background": 0, "a": -1, "b": 2}, None, "negative"),
        ({"background": 0} | {f"a{i}": i for i in range(1, 256)}, None, "at most 254"),
    ],
)
def test_wrong_declarations(names: dict[str, int], order: tuple[int, ...] | None, message: str) -> None:
    assert any(message in problem for problem in label_problems(names, order))
    with pytest.raises(RecordError, match=message):
        parse_record({"names": names, "regions_class_order": order}, Labels, "dataset.json")


@pytest.mark.parametrize(
    ("names", "sided"),
    [
        (("left kidney",), True),
        (("kidney_right",), True),
        (("LeftLung",), True),
        (("leftlung", "rightlung"), True),
        (("leftovers",), False),
        (("bright spot", "cleft"), False),
        (("L_hippo", "R_hippo"), True),
        (("L_hippo",), False),
        (("lh.cortex", "rh.cortex"), True),
        (("hippo-l", "hippo-r"), True),
        (("anterior", "posterior"), False),
        (("L1", "L2"), False),
    ],
)
def test_sided(names: tuple[str, ...], sided: bool) -> None:
    labels = Labels(names={"background": 0} | {name: value for value, name in enumerate(names, 1)})
    assert labels.sided is sided


def test_the_ignored_value_is_no_side() -> None:
    assert Labels(names={"background": 0, "left lung": 1, "ignore": 2}).directed == {2: ("left lung",)}


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (("anterior", "posterior"), (1,)),
        (("anterior horn",), ()),
        (("upper lobe left", "lower_lobe_left"), (0, 2)),
        (("InferiorVenaCava", "aorta"), ()),
        (("VentralRoot", "dorsal root", "superior", "inferior"), (0, 1)),
    ],
)
def test_directed_axes(names: tuple[str, ...], axes: tuple[int, ...]) -> None:
    labels = Labels(names={"background": 0} | {name: value for value, name in enumerate(names, 1)})
    assert labels.directed_axes == axes


def test_record_survives_json() -> None:
    assert Labels.model_validate_json(TUMOUR.model_dump_json()) == TUMOUR


@pytest.mark.parametrize(
    ("labels", "threshold"), [(ORGAN, None), (ORGAN, 0.3), (TUMOUR, None), (TUMOUR, 0.3), (GAPS, None)]
)
def test_probabilities_are_decoded_as_their_scores(labels: Labels, threshold: float | None) -> None:
    scores = np.random.default_rng(0).normal(size=(labels.num_outputs, 3, 4, 5))
    exponentials = np.exp(scores)
    probabilities = exponentials / (1 + exponentials if labels.has_regions else exponentials.sum(axis=0))
    decoded = labels.from_probabilities(probabilities, threshold)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, labels.from_scores(scores, threshold))


def test_probabilities_at_their_thresholds() -> None:
    halves = np.array([0.5, 0.3, 0.7])
    assert ORGAN.from_probabilities(np.stack([1 - halves, halves])).tolist() == [0, 0, 1]
    assert ORGAN.from_probabilities(np.stack([1 - halves, halves]), 0.3).tolist() == [1, 1, 1]
    assert TUMOUR.from_probabilities(np.stack([halves] * 3)).tolist() == [0, 0, 3]


def test_values_that_are_nearly_whole_are_rounded() -> None:
    array = np.array([0.9995, 1.0009, 2, -0.0004, 0.997, 1.0015, np.nan, np.inf], np.float32)
    rounded = round_nearly_whole(array)
    assert rounded[:4].tolist() == [1, 1, 2, 0]
    assert np.array_equal(rounded[4:], array[4:], equal_nan=True)
    whole = np.array([1, 2], np.int16)
    assert round_nearly_whole(whole) is whole


def test_negative_values_cannot_be_declared() -> None:
    labels = Labels(names={"background": 0, "a": 3})
    with pytest.raises(
        DatasetError, match=r"value -2, -1, 5 is not declared .*; correct the label file: -2, -1 cannot"
    ):
        labels.encode(np.array([-1, 0, 3, 5, -2]), "case_7")


def test_values_that_are_not_whole_are_no_labels() -> None:
    with pytest.raises(DatasetError) as caught:
        Labels(names={"background": 0, "a": 3}).encode(np.array([0.0, 0.5, 3.25, 5]), "case_7")
    message = str(caught.value)
    assert "label value 0.5, 3.25 is not a whole number, and 5 is not declared" in message
    assert "declare no such label" in message
    assert "declare it" not in message


def test_indices_of_a_class_or_region() -> None:
    indices = np.array([[0, 1, 2], [3, IGNORE_INDEX, 1]], np.uint8)
    assert is_any_of(indices, (1,)).tolist() == [[False, True, False], [False, False, True]]
    assert is_any_of(indices, TUMOUR.foreground["core"]).tolist() == [[False, False, True], [True, False, False]]
