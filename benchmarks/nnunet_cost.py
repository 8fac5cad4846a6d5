"""Cost of a prediction by a model of nnU-Net; run by the Python of an environment with `nnunetv2`.

    PYTHON benchmarks/nnunet_cost.py MODEL FOLD PREPROCESSED CASE OUTPUT.json DEVICE

MODEL is the folder of a trained configuration, PREPROCESSED the preprocessed data set, CASE one of its cases. As
`find_best_configuration` measures seg25d: one preprocessed case, read and predicted without mirroring, and its labels
on the grid of its file; the first prediction counts operations, the second one is timed. Versions are those of this
environment. See mixing.py.
"""

import json
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

PACKAGES = ("torch", "numpy", "nnunetv2")
"""What the results depend on, see `seg25d.core.versions`."""


def of_convolution(images: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """Operations of a convolution that oneDNN computes, which torch's counter does not know."""
    return conv_flop_count(list(images), list(weight), list(out_shape))


def main() -> None:
    """Measure the model and the case given by the arguments."""
    model, fold, preprocessed, case, output, device = sys.argv[1:]
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device(device), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(model, use_folds=(int(fold),))
    folder = str(Path(preprocessed) / predictor.configuration_manager.data_identifier)
    cases = infer_dataset_class(folder)(folder, [case])
    managers = predictor.plans_manager, predictor.configuration_manager, predictor.label_manager

    def predict() -> None:
        image, *_, properties = cases.load_case(case)
        scores = predictor.predict_sliding_window_return_logits(torch.from_numpy(image[:].copy())).cpu().numpy()
        convert_predicted_logits_to_segmentation_with_correct_shape(
            scores, *managers, properties, num_threads_torch=torch.get_num_threads()
        )

    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mkldnn_convolution: of_convolution}) as counter:
        predict()
    started = time.perf_counter()
    predict()
    seconds = time.perf_counter() - started
    cost = {
        "num_parameters": sum(each.numel() for each in predictor.network.parameters()),
        "flops_per_case": float(counter.get_total_flops()),
        "seconds_per_case": round(seconds, 4),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }
    Path(output).write_text(json.dumps(cost), encoding="utf-8")


if __name__ == "__main__":
    main()
