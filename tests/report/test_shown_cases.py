"""Pictures and volumes of cases that were made by hand."""

import base64
import gzip
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from seg25d.core.errors import InputError
from seg25d.data.cases import Case
from seg25d.data.description import DatasetDescription
from seg25d.data.image_geometry import Geometry
from seg25d.data.image_io import write_channel, write_labels
from seg25d.data.labels import Labels
from seg25d.evaluation.metrics import case_metrics
from seg25d.evaluation.summary import CaseSummary, summarize
from seg25d.report.shown_cases import ShownCase, choose_cases, class_colours, show_case

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
LABELS = Labels(names={"background": 0, "lump": 1, "ignore": 2})


class Files:
    """A case of ones with a bright corner, and its prediction by a run."""

    def __init__(self, folder: Path, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> None:
        self.geometry = Geometry(shape=shape, spacing_mm=spacing_mm, origin_mm=(0.0, 0.0, 0.0), direction=IDENTITY)
        self.image = np.ones(shape, np.float32)
        self.truth, self.predicted = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
        self.folder = folder

    def show(self, in_viewer: bool = False) -> ShownCase:
        write_channel(self.folder / "a_0000.nii.gz", self.image, self.geometry)
        write_labels(self.folder / "a.nii.gz", self.truth, self.geometry)
        write_labels(self.folder / "predicted.nii.gz", self.predicted, self.geometry)
        case = Case(name="a", images=(self.folder / "a_0000.nii.gz",), label=self.folder / "a.nii.gz")
        return show_case(case, "worst", [a_run(self.folder / "predicted.nii.gz", {"a": 0.5})], description(), in_viewer)


def a_run(prediction: Path, dice: dict[str, float]) -> Any:
    """With as much of a run as pictures need."""
    metrics = {share: made_metrics(share) for share in set(dice.values())}
    cases = [CaseSummary(case=name, metrics={"1": metrics[share]}) for name, share in dice.items()]
    return SimpleNamespace(name="stack", prediction=lambda _: prediction, summary=summarize(cases))


def made_metrics(dice: float) -> Any:
    empty = np.zeros((1, 2, 2), np.uint8)
    return case_metrics(empty, empty, {"1": (1,)}, (1.0, 1.0, 1.0))["1"].model_copy(update={"dice": dice})


def description() -> DatasetDescription:
    return DatasetDescription(channel_names=("CT",), labels=LABELS, file_ending=".nii.gz", num_training=1)


def decoded(webp: str) -> np.ndarray:
    return imread(io.BytesIO(base64.b64decode(webp)), format="webp").astype(float)


@pytest.mark.parametrize(
    ("spacing_mm", "bright", "where"),
    [((3.0, 1.0, 1.0), (8, 0, 0), "axial slice 8"), ((1.0, 3.0, 1.0), (19, 8, 0), "coronal slice 8")],
    ids=["axial", "coronal"],
)
def test_pictures_show_the_right_at_the_left_and_front_or_head_up(tmp_path, spacing_mm, bright, where):
    """The canonical axes begin at the feet, in front, and at the right."""
    files = Files(tmp_path, (20, 20, 20), spacing_mm)
    number = spacing_mm.index(3.0)
    corner = tuple(
        slice(each, each + 1) if axis == number else slice(max(0, each - 4), each + 5)
        for axis, each in enumerate(bright)
    )
    files.image[corner] = 9
    middle = tuple(slice(8, 9) if axis == number else slice(5, 15) for axis in range(3))
    files.truth[middle] = files.predicted[middle] = 1
    shown = files.show()
    assert shown.where == where, "counted in the whole case, though pictures show a part of it"
    assert shown.pictures[0].description == f"{where} of a, CT, without contours"
    picture = decoded(shown.pictures[0].webp)[..., :3].mean(axis=2)
    assert picture[:20, :20].min() > 200
    assert max(picture[-20:].max(), picture[:, -20:].max()) < 50


def test_what_reaches_the_border_has_its_outline_there(tmp_path):
    """A prediction that fills the whole slice, or nearly, has an outline all around."""
    files = Files(tmp_path, (2, 30, 30), (3.0, 1.0, 1.0))
    files.truth[:, 10:20, 10:20] = 1
    files.predicted[:] = 1
    files.predicted[:, 15, 15] = 0
    shown = {picture.title: decoded(picture.webp)[..., :3] for picture in files.show().pictures}
    coloured = {title: np.ptp(picture, axis=2) > 60 for title, picture in shown.items()}
    border = np.ones(coloured["stack"].shape, bool)
    border[4:-4, 4:-4] = False
    inner = ~border
    inner[len(inner) // 2 - 20 : len(inner) // 2 + 25, len(inner) // 2 - 20 : len(inner) // 2 + 25] = False
    for side in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        assert coloured["stack"][side].mean() > 0.9
        assert not coloured["truth"][side].any()
    assert not coloured["stack"][inner].any(), "an outline, not a filled area"


def test_what_the_truth_ignores_is_no_difference(tmp_path):
    files = Files(tmp_path, (4, 6, 6), (1.0, 1.0, 1.0))
    files.truth[:, :2, :2] = 1
    files.truth[:, 4:] = 2
    files.predicted[:, :2, 1:3] = 1
    files.predicted[:, 4:] = 1
    viewer = files.show(in_viewer=True).viewer
    assert viewer is not None
    content = gzip.decompress(base64.b64decode(viewer["volumes"]["difference"]["nifti"]))
    difference = np.frombuffer(content[352:], np.uint8).reshape(4, 6, 6)
    assert difference[0].tolist()[:2] == [[2, 1, 3, 0, 0, 0]] * 2, "missed, right, added"
    assert not difference[:, 2:].any()


def test_a_volume_of_one_thin_row_can_be_shown(tmp_path):
    files = Files(tmp_path, (1, 9, 400), (0.1, 3.0, 1.0))
    files.truth[0, 4, 3:390] = 1
    assert len(files.show(in_viewer=True).pictures) == 3


def test_a_missing_prediction_is_named(tmp_path):
    case = Case(name="a", images=(tmp_path / "a_0000.nii.gz",), label=tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=r"gone\.nii\.gz is missing"):
        show_case(case, "worst", [a_run(tmp_path / "gone.nii.gz", {"a": 0.5})], description(), in_viewer=False)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, []),
        (1, ["worst"]),
        (2, ["worst", "best"]),
        (3, ["worst", "median", "best"]),
        (9, ["worst", "second worst", "third worst", "median", "best"]),
    ],
)
def test_cases_are_chosen_by_their_dice(count, words):
    dice = {f"case {number}": number / 10 for number in range(count)}
    run = a_run(Path(), dice) if dice else SimpleNamespace(summary=SimpleNamespace(per_case=[]))
    chosen = choose_cases(run)
    assert list(chosen.values()) == words
    assert list(chosen) == sorted(chosen), "rising"


def test_colours_are_named_by_class_or_by_what_a_region_is_painted_with():
    classes = Labels(names={"background": 0, "b": 7, "a": 3})
    assert [name for name, _ in class_colours(classes)] == ["a", "b"], "by their values"
    regions = Labels(names={"background": 0, "whole": (1, 2), "core": 2}, regions_class_order=(1, 2))
    assert [name for name, _ in class_colours(regions)] == ["whole", "core"]
