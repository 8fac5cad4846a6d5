"""Cost of a prediction by a model of nnU-Net; run by the Python of an environment with `nnunetv2`.

    PYTHON benchmarks/nnunet_cost.py MODEL FOLD PREPROCESSED CASE OUTPUT.json DEVICE

MODEL is the folder of a trained configuration, PREPROCESSED the preprocessed data set, CASE one of its cases. As
`find_best_configuration` measures seg25d: one preprocessed case, without mirroring; the first prediction counts
operations, the second one is timed. See mixing.py.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count


def of_convolution(images: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """Operations of a convolution that oneDNN computes, which torch's counter does not know."""
    return conv_flop_count(list(images), list(weight), list(out_shape))


def main() -> None:
    """Measure the model and the case given by the arguments."""
    model, fold, preprocessed, case, output, device = sys.argv[1:]
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device(device), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(model, use_folds=(int(fold),))
    folder = str(Path(preprocessed) / predictor.configuration_manager.data_identifier)
    image = torch.from_numpy(infer_dataset_class(folder)(folder, [case]).load_case(case)[0][:].copy())
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mkldnn_convolution: of_convolution}) as counter:
        predictor.predict_sliding_window_return_logits(image)
    started = time.perf_counter()
    predictor.predict_sliding_window_return_logits(image)
    seconds = time.perf_counter() - started
    cost = {
        "num_parameters": sum(each.numel() for each in predictor.network.parameters()),
        "flops_per_case": float(counter.get_total_flops()),
        "seconds_per_case": round(seconds, 4),
    }
    Path(output).write_text(json.dumps(cost), encoding="utf-8")


if __name__ == "__main__":
    main()
