"""Archives of trained models, as they are or as graphs that run without torch."""

import logging
from collections.abc import Sequence
from pathlib import Path

from seg25d.core.errors import InputError
from seg25d.core.files import copy_file, read_text, temporary_folder
from seg25d.core.records import write_record
from seg25d.planning.model_formats import StoredWeights
from seg25d.planning.portable_model import GRAPH_SUFFIX
from seg25d.sharing.choice import ChosenModels, ExportOptions
from seg25d.sharing.manifest import MANIFEST, Manifest
from seg25d.sharing.pack import check_place, held, list_files, write_archive, write_files
from seg25d.sharing.unpack import open_archive, unpack

logger = logging.getLogger(__name__)


def write_models(path: Path, folder: Path, models: ChosenModels, options: ExportOptions) -> Manifest:
    """Write an archive of models in the format that the options name, or a folder (`web`); it is complete or absent.

    Args:
        path: The archive.
        folder: `results/DATASET`.
        models: The models to export.
        options: Format, weights and licence.

    Returns:
        The manifest of the archive.

    Raises:
        InputError: See `write_archive`; also if there can be no graph of a model, a package of the extra `onnx` is not
            installed, or options contradict each other.
    """
    licence = None if options.licence_file is None else read_text(options.licence_file)
    if options.format == "safetensors":
        if options.weights is not None:
            raise InputError(f"--weights {options.weights} is for --format onnx and web, got none; leave it out")
        return write_archive(path, folder, models, licence, overwrite=options.overwrite)
    if options.format == "web":
        from seg25d.portable.web_page import write_page  # noqa: PLC0415 - it uses `write_folder`

        return write_page(path, folder, models, options)
    from seg25d.portable.export import check_packages  # noqa: PLC0415 - what it needs is an extra

    check_packages()
    other = check_place(path, overwrite=options.overwrite)
    with temporary_folder(path.parent, "graphs") as place:
        with held(folder, models):
            files = _convert(folder, place, list_files(folder, models), options.weights or "float32")
        return write_files(path, place, files, licence, None if options.overwrite else other)


def write_folder(path: Path, folder: Path, models: ChosenModels, options: ExportOptions) -> Manifest:
    """Write what an archive of models has into a new folder: `manifest.json` and the files that it names.

    Args:
        path: The folder, which must not exist.
        folder: `results/DATASET`.
        models: The models to export.
        options: See `write_models`.

    Raises:
        InputError: See `write_models`; also if the folder exists.
    """
    if path.exists():
        raise InputError(f"{path} exists already; choose another name, or remove it")
    with temporary_folder(path.parent, "unpacked") as place:
        manifest = write_models(place / "models.zip", folder, models, options)
        with open_archive(place / "models.zip") as archive:
            unpack(archive, place / "models")
        write_record(place / "models" / MANIFEST, manifest)
        (place / "models").rename(path)
    return manifest


def _convert(folder: Path, target: Path, files: Sequence[str], weights: StoredWeights) -> list[str]:
    """Write files of `results/DATASET` to another folder, with graphs in the place of models.

    Returns:
        The names of the files there, sorted.
    """
    from seg25d.portable.export import export_graph  # noqa: PLC0415 - what it needs is an extra

    written = []
    for file in files:
        if not file.endswith(".safetensors"):
            copy_file(folder / file, target / file)
            written.append(file)
            continue
        graph = Path(file).with_suffix(GRAPH_SUFFIX)
        logger.info("writing the graph %s", graph.as_posix())
        export_graph(folder / file, target / graph, weights)
        written += [graph.as_posix(), graph.with_suffix(".json").as_posix()]
    return sorted(written)
