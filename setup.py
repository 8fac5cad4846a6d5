"""Name, version, dependencies and commands of seg25d."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
COMMANDS = (
    *("plan_and_preprocess", "pretrain", "train", "find_best_configuration", "predict", "ensemble", "evaluate"),
    *("report", "export_model", "install_model", "convert", "info", "demo"),
)


def read_version() -> str:
    """The version that seg25d/__init__.py states, without importing it."""
    text = (HERE / "seg25d" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"', text, flags=re.MULTILINE)
    if match is None:
        raise ValueError("seg25d/__init__.py states no __version__")
    return match.group(1)


setup(
    name="seg25d",
    version=read_version(),
    description="Self-configuring segmentation of 3D medical images with 2.5D methods",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["seg25d", "seg25d.*"]),
    package_data={"seg25d": ["py.typed", "report/assets/*"]},
    python_requires=">=3.11,<3.14",
    install_requires=[
        "torch>=2.8,!=2.9.*",
        "numpy",
        "SimpleITK",
        "scipy",
        "batchgenerators",
        "acvl-utils<0.3",
        "monai[einops]",
        "pydantic>=2",
        "blosc2",
        "safetensors",
        "rich",
        "matplotlib",
        "jinja2",
        "ipyniivue>=2.4,<3",
        "connected-components-3d",
    ],
    extras_require={
        "tensorboard": ["tensorboard"],
        "docs": ["sphinx", "myst-parser", "pydata-sphinx-theme", "sphinx-argparse-cli"],
        "test": [
            "pytest",
            "pytest-cov",
            "pytest-xdist",
            "hypothesis",
            "ruff",
            "mypy",
            "scipy-stubs",
            "psutil",
            "playwright",
            "tensorboard",
        ],
    },
    entry_points={
        "console_scripts": [
            "seg25d=seg25d.cli.main:script",
            *(f"seg25d_{command}=seg25d.cli.{command}:main.script" for command in COMMANDS),
        ]
    },
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
