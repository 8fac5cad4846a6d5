from pathlib import Path

import pytest

from seg25d.cli import ensemble
from seg25d.core.errors import InputError
from seg25d.ensembling.nonlocal_staple import NonlocalStapleSettings
from seg25d.ensembling.options import METHODS, EnsembleOptions


def test_the_command_knows_all_methods():
    assert ensemble.METHODS == METHODS


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "mean", "weights": (1, 0), "dataset_json": Path("d"), "save_probabilities": True},
        {"method": "mean", "fit_weights": Path("truth")},
        {"method": "majority", "weights": (2, 1), "overwrite": True, "num_processes": 0},
        {"method": "staple"},
        {"method": "nlstaple", "images": Path("i"), "channel": 0},
    ],
)
def test_what_goes_together(options):
    EnsembleOptions(**options).check(2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "staple", "weights": (1, 1)}, "--weights is for mean and majority, not for staple"),
        ({"method": "majority", "fit_weights": Path("t")}, "--fit-weights is for mean, not for majority"),
        ({"method": "majority", "save_probabilities": True}, "--save-probabilities is for mean"),
        ({"method": "staple", "dataset_json": Path("d")}, "--dataset-json is for mean"),
        ({"method": "mean", "images": Path("i")}, "--images is for nlstaple"),
        ({"method": "mean", "channel": 0}, "--channel is for nlstaple"),
        ({"nonlocal_staple": NonlocalStapleSettings(search_radius=1)}, "--nonlocal-staple is for nlstaple"),
        ({"method": "nlstaple"}, "name their folder with --images"),
        ({"weights": (1, 1), "fit_weights": Path("t")}, "choose one"),
        ({"weights": (1, 1, 1)}, "one weight for each of the 2 folders, got 3"),
        ({"weights": (1, -1)}, "at least 0"),
        ({"weights": (0, 0)}, "at least 0"),
    ],
)
def test_what_does_not(options, message):
    with pytest.raises(InputError, match=message):
        EnsembleOptions(**options).check(2)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(InputError, match=r"--weights .*; --channel"):
        EnsembleOptions(method="staple", weights=(1, 1), channel=1).check(2)
