"""What stands in place of training leaves what training leaves."""

import json
from collections.abc import Callable

import pytest
import torch

from seg25d.planning.model_file import load_model
from seg25d.training.checkpoint import load_checkpoint
from seg25d.training.trainer import FoldJob, train_fold

Maker = Callable[..., FoldJob]


def test_the_files_of_a_training_are_there_and_hold_the_same_entries(
    make_job: Maker, request: pytest.FixtureRequest
) -> None:
    real, written = make_job("real"), make_job("written")
    train_fold(real)
    request.getfixturevalue("written_models")
    train_fold(written)
    ours, theirs = ({path.name for path in job.folder.root.rglob("*")} for job in (written, real))
    assert ours == theirs
    for name in ("model_final", "model_best"):
        (header, weights), (real_header, real_weights) = (
            load_model(getattr(job.folder, name)) for job in (written, real)
        )
        assert header == real_header
        assert {key: value.shape for key, value in weights.items()} == {
            key: value.shape for key, value in real_weights.items()
        }
    checkpoint, real_checkpoint = (load_checkpoint(job.folder.checkpoint) for job in (written, real))
    assert checkpoint.keys() == real_checkpoint.keys()
    assert checkpoint["iteration"] == real_checkpoint["iteration"]
    assert checkpoint["finished"]
    log, real_log = ([json.loads(line) for line in job.folder.log.read_text().splitlines()] for job in (written, real))
    assert [line.keys() for line in log] == [line.keys() for line in real_log]
    assert [line["iteration"] for line in log] == [line["iteration"] for line in real_log]


@pytest.mark.usefixtures("written_models")
def test_a_longer_run_goes_on_and_one_that_is_over_stays(make_job: Maker) -> None:
    train_fold(make_job("a", epochs=1))
    job = make_job("a", epochs=2)
    begun = load_model(job.folder.model_final)[1]
    train_fold(job)
    longer, modified = load_model(job.folder.model_final)[1], job.folder.model_final.stat().st_mtime_ns
    assert any(not torch.equal(longer[name], begun[name]) for name in begun)
    train_fold(job)
    assert job.folder.model_final.stat().st_mtime_ns == modified
    assert len(job.folder.log.read_text().splitlines()) == 2
