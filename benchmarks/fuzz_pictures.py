"""Damaged PNG, JPEG, BMP and TIFF files, for `fault_campaign.py`: the product reads each or refuses it."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_headers import SEED, WRONG
from mutations import mutate
from PIL import Image

from seg25d.core.errors import ImageError
from seg25d.data.image_io import read_geometry, read_image, read_labels, write_labels

FORMATS = ("png", "jpg", "bmp", "tif")
HEADER_BYTES: Mapping[str, int] = {"png": 70, "jpg": 620, "bmp": 60, "tif": 400}
"""Where the pixels of good files begin, about."""
SIZE = (19, 23)
NUM_PAGES = 4


def good_pictures(folder: Path, ending: str) -> list[Path]:
    """Write good files of all kinds of a format: grey, colours, palette, 16 bits, compressed in several ways."""
    rng = np.random.default_rng(SEED)
    grey = Image.fromarray(rng.integers(0, 255, SIZE, np.uint8))
    colours = Image.fromarray(rng.integers(0, 255, (*SIZE, 3), np.uint8))
    palette = colours.quantize(5)
    black_and_white = grey.convert("1")
    wide = Image.fromarray(rng.integers(0, 60000, SIZE, np.uint16))
    pages = {"save_all": True, "append_images": [grey] * (NUM_PAGES - 1)}
    kinds: dict[str, list[tuple[Image.Image, dict[str, Any]]]] = {
        "png": [(grey, {}), (colours, {}), (palette, {}), (wide, {}), (black_and_white, {})],
        "jpg": [(grey, {}), (colours, {}), (colours, {"progressive": True}), (grey, {"optimize": True})],
        "bmp": [(grey, {}), (colours, {}), (palette, {}), (black_and_white, {})],
        "tif": [
            (grey, pages), (grey, pages | {"compression": "tiff_lzw"}), (grey, pages | {"compression": "tiff_deflate"}),
            (grey, pages | {"compression": "packbits"}), (grey, {"compression": "jpeg"}), (wide, {}), (palette, {}),
            (Image.fromarray(rng.normal(size=SIZE).astype(np.float32)), {}),
            (black_and_white, {"compression": "group4"}),
        ],
    }  # fmt: skip
    paths = []
    for index, (picture, settings) in enumerate(kinds[ending]):
        paths.append(folder / f"{index}.{ending}")
        picture.save(paths[-1], **settings)
    return paths


def mutated_picture(sources: list[Path], ending: str, rng: random.Random, target: Path) -> Path:
    """Change one of the good files, and write it into a folder."""
    source = rng.choice(sources)
    path = target / source.name
    path.write_bytes(mutate(source.read_bytes(), HEADER_BYTES[ending], rng))
    return path


def read_picture_everywhere(path: Path) -> int:
    """Read a file as image and as label, and write a result on its grid.

    Returns:
        0, or `WRONG` if image, label, geometry and result do not go together.

    Raises:
        Exception: Whatever the product raises; a mistake of the product unless it is an `InputError`.
    """
    geometry = read_geometry(path)
    image, same = read_image([path])
    result = path.parent / "result.nii.gz"
    write_labels(result, (image[0] > 0).astype(np.uint8), geometry)
    written, _ = read_labels(result)
    if geometry != same or image.shape[1:] != geometry.canonical_shape or not np.array_equal(written, image[0] > 0):
        return WRONG
    try:
        labels, of_labels = read_labels(path)
    except ImageError:
        return 0  # colours and losses are nothing for labels
    return 0 if labels.shape == geometry.canonical_shape and of_labels == geometry else WRONG
