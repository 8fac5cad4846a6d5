import numpy as np
import pytest

from seg25d.evaluation.pictures import draw_contours, draw_curves, fullest_slice


def test_slice_with_most_labels_wins():
    labels = np.zeros((4, 6, 6), np.uint8)
    labels[1] = 1
    labels[2, :2], labels[2, 2:3] = 1, 2
    labels[3, :1], labels[3, 2:4] = 1, 2
    assert fullest_slice(labels) == 3


def test_empty_labels_give_the_middle():
    assert fullest_slice(np.zeros((5, 3, 3), np.uint8)) == 2


@pytest.mark.parametrize("panels", [{}, {"truth": np.eye(12, dtype=np.uint8), "si": np.zeros((12, 12), np.uint8)}])
def test_pictures_are_png_files(tmp_path, panels):
    image = np.arange(144, dtype=np.float32).reshape(12, 12)
    draw_contours(tmp_path / "a" / "picture.png", image, panels, {"background": 0, "organ": 1})
    assert (tmp_path / "a" / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["picture.png"]


def test_constant_image_is_drawn(tmp_path):
    draw_contours(tmp_path / "picture.png", np.zeros((8, 8), np.float32), {}, {"organ": 1})
    assert (tmp_path / "picture.png").exists()


def test_curves_are_a_png_file(tmp_path):
    draw_curves(tmp_path / "a" / "curves.png", {"truth": (0.0, 1.0), "si": (1.0, 0.5)}, ("case", "slice", "area"))
    assert (tmp_path / "a" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["curves.png"]


def test_names_are_drawn_as_they_are_written(tmp_path):
    names = {"background": 0, "$\\bad$ left": 1, "\N{CJK UNIFIED IDEOGRAPH-5DE6}": 2, "_rest": 3}
    labels = np.eye(12, dtype=np.uint8)
    draw_contours(tmp_path / "picture.png", np.zeros((12, 12), np.float32), {"$x_": labels}, names)
    draw_curves(tmp_path / "curves.png", {"truth": (0.0, 1.0), "_a$": (1.0, 0.5)}, ("$a_", "slice", "area"))
    assert len(list(tmp_path.iterdir())) == 2
