"""The Dockerfile, without Docker: its steps run in a fresh folder, and what they install does a whole story."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from seg25d.data.phantom import DATASET_NAME, write_phantom_dataset

ROOT = Path(__file__).parents[1]
TINY = ["--epochs", "1", "--iterations", "2", "--set", "validation_windows=1", "--num-processes", "0"]


class Step(NamedTuple):
    """An instruction of the Dockerfile, such as `RUN` and its command."""

    word: str
    rest: str


def steps() -> list[Step]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [Step(*line.split(maxsplit=1)) for line in lines if line]


def values_of(step: Step) -> list[tuple[str, str]]:
    """The names and values of `ENV` and `ARG`."""
    return [(name, value.strip('"')) for name, value in (part.split("=", 1) for part in step.rest.split())]


def context() -> list[str]:
    """What Docker sees of the checkout."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    return [line[1:] for line in lines if line.startswith("!")]


def expanded(text: str, known: dict[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda match: known.get(match[1], ""), text)


def test_it_runs_seg25d_as_an_ordinary_user_on_a_volume() -> None:
    last = {step.word: step.rest for step in steps()}
    assert last["ENTRYPOINT"] == '["seg25d"]'
    assert last["USER"] == "1000:1000"
    assert last["VOLUME"] == last["WORKDIR"] == "$SEG25D_WORKSPACE"
    arguments = dict(values_of(step)[0] for step in steps() if step.word == "ARG")
    assert set(arguments) == {"BASE", "TORCH_OPTIONS", "EXTRAS"}
    page = (ROOT / "documentation" / "get_started" / "installation.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in arguments)


def test_steps_name_no_paths_but_their_variables() -> None:
    for step in steps():
        if step.word == "RUN":
            assert set(re.findall(r"(?<![\w\"$}/])/\w[\w/]*", step.rest)) <= {"/dev/null", "/var/lib/apt/lists/"}


def test_docker_sees_all_that_the_wheel_is_made_of() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = {"README.md", "LICENSE"}
    assert all(f'"{name}"' in project for name in named)
    assert {"pyproject.toml", "seg25d", "constraints.txt", *named} <= set(context())
    assert all((ROOT / name).exists() for name in context())


def copies(step: Step, root: Path, known: dict[str, str]) -> Iterator[tuple[Path, Path]]:
    """What a `COPY` copies, and to where below the folder that stands for the container."""
    *options, source, target = expanded(step.rest, known).split()
    names = context() if source == "." else [source]
    for name in names if not options else []:  # of another stage: it is there, as all stages share one folder
        yield ROOT / name, Path(target) if not target.endswith("/") and source != "." else Path(target) / name
    assert target.startswith(str(root))


def run_steps(root: Path, **arguments: str) -> dict[str, str]:
    """Run all `RUN` steps below a folder, and return the environment that a command then has."""
    kept = ("PATH", "LANG", "HOME", "PIP_CONFIG_FILE", "XDG_CONFIG_HOME", "HTTPS_PROXY", "https_proxy", "SSL_CERT_FILE")
    known = {name: os.environ[name] for name in kept if name in os.environ}
    for step in steps():
        if step.word in ("ENV", "ARG"):
            for name, value in values_of(step):
                text = expanded(value, known)
                inside = text.startswith("/") and not text.startswith(str(root))
                known[name] = arguments.get(name, f"{root}{text}" if inside else text)
        elif step.word == "COPY":
            for source, target in copies(step, root, known):
                target.parent.mkdir(parents=True, exist_ok=True)
                if source.is_dir():
                    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
                else:
                    shutil.copy2(source, target)
        elif step.word == "RUN":
            subprocess.run(["/bin/sh", "-c", step.rest], env=known, check=True, cwd=root)
    return known


@pytest.mark.campaign
@pytest.mark.slow
def test_its_steps_install_what_does_a_whole_story_without_any_extra(tmp_path: Path) -> None:
    environment = run_steps(tmp_path, EXTRAS="")
    workspace = Path(environment["SEG25D_WORKSPACE"])
    assert workspace == tmp_path / "workspace"
    raw = workspace / "raw" / DATASET_NAME
    write_phantom_dataset(raw, num_training=5, num_test=1, shape=(8, 32, 32))

    def seg25d(*words: str, status: int = 0) -> str:
        command = [Path(environment["VIRTUAL_ENV"]) / "bin" / "seg25d", *words]
        done = subprocess.run(
            command,
            env=environment,
            cwd=workspace,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    seg25d("plan_and_preprocess", "-d", "900", "-c", "2d", "--num-processes", "1")
    seg25d("train", "900", "2d", "0", *TINY)
    segmented = workspace / "segmented"
    seg25d("predict", "-d", "900", "-c", "2d", "-f", "0", "-i", str(raw / "imagesTs"), "-o", str(segmented))
    assert len(list(segmented.glob("*.nii.gz"))) == 1
    assert "pip install 'seg25d[report]'" in seg25d("report", "900")
    assert (workspace / "results" / DATASET_NAME / "report.html").exists()
    for extra in ("tensorboard", "wandb", "mlflow"):
        assert f"pip install 'seg25d[{extra}]'" in seg25d("train", "900", "2d", "0", *TINY, f"--{extra}", status=2)
    installed = subprocess.run(
        [Path(environment["VIRTUAL_ENV"]) / "bin" / "pip", "list", "--format=freeze"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    ).stdout.lower()
    assert not re.search("ipython|jupyter|ipyniivue|acvl", installed)
