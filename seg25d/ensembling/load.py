"""Loading of trained models of any kind, with the files of others that they need."""

from collections.abc import Sequence
from pathlib import Path

from seg25d.core.errors import InputError
from seg25d.core.execution import AnyExecution
from seg25d.core.workspace import FoldFolder
from seg25d.ensembling.fused_predictor import FusedPredictor, coarse_view_model, view_model
from seg25d.inference.fine_predictor import FinePredictor
from seg25d.inference.predictor import Predictor, PredictorOptions
from seg25d.planning.configurations import known_names
from seg25d.planning.portable_model import GRAPH_SUFFIX, header_of
from seg25d.representations.fused_views import FusedViews


def load_predictor(
    paths: Sequence[Path], execution: AnyExecution, options: PredictorOptions | None = None
) -> Predictor:
    """Read model files of any kind, see `Predictor.load`; others that they need are read from beside them.

    Raises:
        ModelError: See `Predictor.load`.
        InputError: If a fusion is asked for where there are no views.
    """
    header = header_of(paths[0]) if paths else None
    fused = header is not None and header.plan.representation.fuses_views
    if options is not None and options.fusion != "network" and not fused:
        raise InputError(
            f"fusion {options.fusion!r} is for models that fuse views "
            f"({', '.join(known_names(lambda each: each.fuses_views))}); `seg25d ensemble` fuses folders of "
            "predictions of any configurations"
        )
    if options is not None and options.fusion != "network" and paths[0].suffix == GRAPH_SUFFIX:
        raise InputError(
            f"fusion {options.fusion!r} of views needs torch, and {paths[0]} is a graph for use without it: leave "
            "--fusion out, or take an archive that export_model wrote without --format"
        )
    if header is not None and header.fine is not None:
        return FinePredictor.load(paths, execution, options)
    return (FusedPredictor if fused else Predictor).load(paths, execution, options)


def files_of_model(path: Path) -> list[Path]:
    """All files that are read to predict with a model file, itself first; of a graph with the records beside them.

    Raises:
        ModelError: If one of those that have to be opened is missing, damaged, or not one of ours.
    """
    header, folder, suffix = header_of(path), path.parent, path.suffix
    files = [path]
    if header.fine is not None:
        files.append(FoldFolder(root=folder).coarse)
    if header.plan.representation.fuses_views:
        names = FusedViews.of(header.plan.representation).views
        views = [view_model(folder, name) for name in names]
        fine = any(header_of(view.with_suffix(suffix)).fine is not None for view in views)
        files += [*views, *(coarse_view_model(folder, name) for name in names if fine)]
    files = [file.with_suffix(suffix) for file in files]
    return files + [file.with_suffix(".json") for file in files if suffix == GRAPH_SUFFIX]
