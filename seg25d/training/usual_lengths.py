"""How long runs are unless a recipe or the user says otherwise; without imports, as `--help` tells it."""

EPOCHS = 500
"""Epochs of a training."""
PRETRAINING_EPOCHS = 300
"""Epochs of a pretraining: Sobirov et al. 2022 (methods.md 1.8)."""
ITERATIONS_PER_EPOCH = 100
"""Updates of an epoch, which is no pass over the data."""
