"""Prediction of images with one model: it is chosen, its inputs are found, and the cases are predicted and measured."""

import logging
from functools import partial
from pathlib import Path

from seg25d.core.files import check_writable_file
from seg25d.core.workspace import Workspace
from seg25d.data.inputs import find_inputs
from seg25d.inference.cases import outcomes_here, predict_cases
from seg25d.inference.device_pool import outcomes_on_devices
from seg25d.inference.prediction_files import PredictionRecord, prediction_lock
from seg25d.selection.chosen_model import check_host, loader
from seg25d.sharing.choice import is_portable, model_to_predict
from seg25d.workflows.measuring import measured_afterwards
from seg25d.workflows.options import PredictionOptions

logger = logging.getLogger(__name__)


def predict_images(workspace: Workspace, source: Path, out: Path, options: PredictionOptions) -> None:
    """Segment images with one model, see `api.predict`.

    Torch is loaded only for models that need it.

    Args:
        workspace: The workspace.
        source: A folder of images, one image, or a folder of DICOM files.
        out: Folder for the segmentations.
        options: Model and other options.

    Raises:
        InputError: If the model or the images do not exist, the device cannot be used, or `out` holds predictions of
            another model.
        BusyError: If another process predicts into `out`.
        CaseFailures: If some cases failed; all others are written.
    """
    if options.statistics is not None:
        check_writable_file(options.statistics)
    devices = _devices(options)
    with prediction_lock(out, options.part_id, options.num_parts), model_to_predict(workspace, options, out) as model:
        predictor_options = options.predictor
        meaning = model.meaning()
        found = find_inputs(source, len(meaning.description.channel_names), meaning.description.file_ending)
        cases, is_part = found[options.part_id :: options.num_parts], options.num_parts > 1
        if is_part and not cases:
            logger.info("part %d of %d has no cases", options.part_id, options.num_parts)
            return
        if len(devices) > 1:
            outcomes = partial(outcomes_on_devices, loader(model, predictor_options), devices)
        else:
            outcomes = partial(outcomes_here, model.load(predictor_options, options.device))
        arguments = {"input": str(source)} | options.model_dump(mode="json")
        record = PredictionRecord(arguments=arguments, model=model.describe(predictor_options))
        calibration = model.calibration_for(predictor_options) if options.uncertainty else None
        with measured_afterwards(options.statistics, found, out, meaning):
            predict_cases(outcomes, meaning, cases, out, options.cases, record, calibration)


def _devices(options: PredictionOptions) -> list[str]:
    """The devices of one process, or of a process each where there are several.

    Raises:
        InputError: If one is not there, or not for this model.
    """
    if is_portable(options.model):
        check_host(options.device)
        return ["cpu"]
    from seg25d.core.device import check_devices  # noqa: PLC0415 - loads torch

    return check_devices(options.device)
