"""Reading of one model for prediction, with the checks that come before anything is computed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seg25d.core.errors import ModelError
from seg25d.planning.model_file import ModelHeader, load_model
from seg25d.planning.model_memory import check_graph_memory
from seg25d.planning.plan import ConfigurationPlan
from seg25d.planning.portable_model import GRAPH_SUFFIX, read_portable


def read_model(
    path: Path, known: Sequence[ConfigurationPlan], *, fuses_views: bool, on_cpu: bool
) -> tuple[ModelHeader, Any]:
    """Read a model.

    Args:
        path: A model file, or a graph.
        known: Plans of models that were read with it, whose memory is checked already.
        fuses_views: Whether it is to take the probabilities of others beside the image.
        on_cpu: Whether the CPU computes.

    Returns:
        The header, and the model on the CPU: a module of torch, or for a graph a function of numpy's arrays.

    Raises:
        ModelError: If the file cannot be used, or memory does not suffice.
    """
    if path.suffix == GRAPH_SUFFIX:
        from seg25d.inference.graph_model import GraphModel  # noqa: PLC0415 - only for graphs

        record = read_portable(path)
        _check_kind(path, record.header, fuses_views=fuses_views)
        check_graph_memory(path, record)
        return record.header, GraphModel(path, record)
    header, state = load_model(path)
    _check_kind(path, header, fuses_views=fuses_views)
    from seg25d.planning.model_size import check_memory, check_weights  # noqa: PLC0415 - loads torch

    check_weights(path, header, state)
    if header.plan not in known:
        channels = len(header.description.channel_names)
        check_memory(path, header.plan, channels, header.num_outputs, on_cpu=on_cpu)
    model = header.build_model()
    model.load_state_dict(state)
    return header, model


def _check_kind(path: Path, header: ModelHeader, *, fuses_views: bool) -> None:
    if header.pretext is not None:
        raise ModelError(
            f"{path} is a pretrained model, which restores images and segments nothing; train with --pretrained"
        )
    if header.plan.representation.fuses_views != fuses_views:
        raise ModelError(f"{path} does not belong here, as it takes other input; get the model again")
