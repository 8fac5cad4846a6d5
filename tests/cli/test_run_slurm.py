"""What `seg25d run --slurm` takes; nothing is run."""

import pytest
from pydantic import ValidationError

from seg25d.cli.main import main
from seg25d.orchestration.options import CohortOptions, RunOptions


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--slurm", "partition=gpu"], "--slurm is for --on slurm: drop it, got --on local"),
        (["--on", "slurm", "--slurm", "partitions=gpu"], "got partitions; for other options of sbatch"),
        (["--on", "slurm", "--slurm", "qos=a", "--slurm", "qos=b"], "expected each key once, got qos, qos"),
        (["--on", "slurm", "--slurm", "gpu"], "expected KEY=VALUE, such as partition=gpu, got 'gpu'"),
        (["--on", "slurm", "--slurm", "=gpu"], "expected KEY=VALUE, such as partition=gpu, got '=gpu'"),
    ],
)
def test_words_for_slurm_that_cannot_be_meant(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["run", "1", *words])
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert told in capsys.readouterr().err


def test_options_for_slurm_need_it() -> None:
    with pytest.raises(ValidationError, match="--slurm is for --on slurm"):
        RunOptions(slurm={"partition": "gpu"})
    with pytest.raises(ValidationError, match="--slurm is for --on slurm"):
        CohortOptions(slurm={"partition": "gpu"})
    assert RunOptions(slurm={"partition": "gpu"}, on="slurm").slurm == {"partition": "gpu"}
