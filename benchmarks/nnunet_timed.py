"""Training of nnU-Net for a given time, or some updates; run by the Python of an environment with `nnunetv2`.

    PYTHON benchmarks/nnunet_timed.py DATASET CONFIGURATION FOLD SECONDS PLANS [UPDATES [DEVICE]]

See peers.py and clinical_size.py. With UPDATES it ends after so many, without the prediction of the validation cases.

nnU-Net trains for a fixed number of epochs of 250 iterations. Here the learning rate decreases with the elapsed share
of the time, by nnU-Net's own formula, and validation windows are not scored between epochs; everything else is as in
its trainer. The class has the same name, so that `nnUNetv2_predict` finds it. Seconds per update and waiting for data
are written to `timed.json` beside the checkpoint.
"""

import json
import math
import sys
import time
from pathlib import Path

import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as trainers  # noqa: N813 - a module, by the name of its class

EXPONENT = 0.9
"""Exponent of nnU-Net's polynomial schedule (PolyLRScheduler)."""


class nnUNetTrainer(trainers.nnUNetTrainer):  # type: ignore[misc] # noqa: N801 - the name in checkpoints
    """nnU-Net's trainer with a length in seconds or updates."""

    def train_for(self, seconds: float, most_updates: float) -> None:
        """Train for so many seconds or updates, save the model, and predict the validation cases after seconds."""
        self.on_train_start()
        self.network.train()
        first_rate = self.optimizer.param_groups[0]["lr"]
        started, waited, updates = time.perf_counter(), 0.0, 0
        while (over := time.perf_counter() - started) < seconds and updates < most_updates:
            for group in self.optimizer.param_groups:
                group["lr"] = first_rate * (1 - over / seconds) ** EXPONENT
            asked = time.perf_counter()
            batch = next(self.dataloader_train)
            waited += time.perf_counter() - asked
            self.train_step(batch)
            updates += 1
        spent = time.perf_counter() - started
        self.save_checkpoint(str(Path(self.output_folder) / "checkpoint_final.pth"))
        patch = self.configuration_manager.patch_size
        voxels = self.batch_size * int(torch.tensor(patch).prod())
        timed = {"updates": updates, "seconds": spent, "data_wait_share": waited / spent, "voxels_per_update": voxels}
        (Path(self.output_folder) / "timed.json").write_text(json.dumps(timed))
        self.dataloader_train._finish()
        self.dataloader_val._finish()
        if math.isinf(most_updates):
            # As at the end of nnUNetv2_train and of `seg25d train`.
            self.network.eval()
            self.perform_actual_validation()


def main() -> None:
    """Train the configuration given by the arguments."""
    dataset, configuration, fold, seconds, plans_name, *further = sys.argv[1:]
    updates = float(further[0]) if further else math.inf
    folder = Path(nnUNet_preprocessed) / dataset
    plans = {**json.loads((folder / f"{plans_name}.json").read_text()), "continue_training": False}
    description = json.loads((folder / "dataset.json").read_text())
    device = torch.device(further[1] if further[1:] else "cuda" if torch.cuda.is_available() else "cpu")
    nnUNetTrainer(plans, configuration, int(fold), description, device=device).train_for(float(seconds), updates)


if __name__ == "__main__":
    main()
