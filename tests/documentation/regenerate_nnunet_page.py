"""Makes documentation/how_to/coming_from_nnunet.md of the table of nnU-Net's commands.

python tests/documentation/regenerate_nnunet_page.py
"""

import textwrap
from collections.abc import Iterable
from pathlib import Path

from seg25d.cli.nnunet_parsing import CASCADE, CHECKPOINTS, CONFIGURATIONS
from seg25d.cli.nnunet_table import NNUNET_COMMANDS
from seg25d.cli.nnunet_word import NnunetCommand, Word
from seg25d.training.nnunet_trainers import NNUNET_TRAINERS, OTHERS

PAGE = Path(__file__).parents[2] / "documentation" / "how_to" / "coming_from_nnunet.md"
TEXT = """# Coming from nnU-Net

Every command of nnU-Net v2 has its counterpart: `seg25d_NAME` for `nnUNetv2_NAME`, or `seg25d NAME`, with the same
options. A script runs here once its prefix is replaced:

    sed 's/nnUNetv2_/seg25d_/g' my_script.sh > my_new_script.sh

What an option means in nnU-Net it means here. One that can have no effect says so in a line; what is not here is an
error that names the cure, with status 2. Further options of our commands stand in the
[reference of the commands](../reference/commands.md). This page is made of the table that the parsers are made of
(`seg25d/cli/nnunet_table.py`, after nnunetv2 2.8.1; `tests/documentation/regenerate_nnunet_page.py` writes it).

## What is as it was

- Data sets: the raw layout, `dataset.json` with regions and `ignore`, `splits_final.json`, and the same five folds
- The variables `nnUNet_raw`, `nnUNet_preprocessed` and `nnUNet_results` are enough. Where `--workspace`,
  `SEG25D_WORKSPACE` or `seg25d_raw` says something else, that counts, and the error for a data set that is not found
  says so. Our files have other names than nnU-Net's, so that both can use the same folders
- Plans `nnUNetPlans` are the plans `plans`; other names are kept
{configurations}
- `summary.json` of `evaluate_folder`, `evaluate_simple`, `accumulate_crossval_results` and
  `evaluate --format nnunet` has nnU-Net's keys: `foreground_mean.Dice`, `mean`, `metric_per_case`. Scores that are
  undefined are NaN, as there; a class that is nowhere does not make the mean of all NaN
- nnU-Net's own results become candidates of `find_best_configuration`: `convert --from nnunet-results`

## What is different

- Models are safetensors in `results/DATASET/CONFIG`, or `CONFIG__TRAINER__PLANS` where trainer or plans are not the
  default; nnU-Net's `.pth` files are pickles, which are never loaded: they cannot be predicted with or started from
- `nnUNetTrainer` is the default recipe, with its own optimizer and length: 500 epochs of 100 updates
- Trainings go on where they stopped, and predictions that are there are kept, without being asked: `--restart` and
  `--overwrite` start over
{cascade}
- A post-processing is a JSON file, `postprocessing.json`, not a pickle. `find_best_configuration` stores it with the
  choice, and `predict` without `-c` applies it
- The variables of nnU-Net's logger for Weights & Biases are not read: `train --wandb` is `nnUNet_wandb_enabled=1`,
  `WANDB_PROJECT` is `nnUNet_wandb_project`, `WANDB_MODE=online` is `nnUNet_wandb_mode=online`, its default; here it is
  offline. [Loggers](training.md#tensorboard-weights--biases-mlflow) has the others
- `-d` finds data sets by number or name everywhere; folds may be several: `train 4 3d_fullres 0 1 2`, `cv` is all

## Commands

{commands}

{options}
## Trainers

`-tr` of `train` takes these; the run gets the trainer's name, so that `predict -tr`, `find_best_configuration -tr` and
the others find it. `--set`, `--epochs` and `--time-budget` change what a trainer sets.

{trainers}

Others are an error that says what to use instead:

{others}
"""


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(headings)]
    lines.append(["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(row) + " |" for row in [*lines, *map(list, rows)])


def item(text: str) -> str:
    return textwrap.fill(text, 119, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)


def meaning(word: Word) -> str:
    """What a line of the table says of an option."""
    if word.kind == "same" and word.home in word.spellings:
        return "the same"
    if word.kind == "idle":
        return f"no effect: {word.meaning}"
    if word.kind == "only":
        return f"`{word.value}` alone: {word.meaning}"
    return word.meaning


def commands() -> str:
    rows = []
    for each in NNUNET_COMMANDS:
        home = " ".join((each.home, *each.leading))
        rows.append((f"`nnUNetv2_{each.name}`", f"`seg25d_{each.name}`", "" if home == each.name else f"`{home}`"))
    return table(("nnU-Net", "here", "another name of"), rows)


def options(command: NnunetCommand) -> str:
    rows = [
        (", ".join(f"`{spelling}`" for spelling in word.spellings), meaning(word))
        for word in command.words
        if word.spellings[0].startswith("-")
    ]
    return f"### {command.name}\n\n{table(('option', 'here'), rows)}\n" if rows else ""


def page() -> str:
    names = ", ".join(f"`{name}` is `{own}`" for name, own in CONFIGURATIONS.items())
    files = " and ".join(f"`{name}`" for name in CHECKPOINTS if name.endswith(".pth"))
    return TEXT.format(
        configurations=item(f"Configuration {names}, and `2d` is `2d`; models of a fold may be called {files}"),
        cascade=item(
            f"{' and '.join(f'`{name}`' for name in CASCADE)} do not exist: lists of configurations leave them out "
            "with a line, alone they are an error. Coarse-to-fine models (`train --set fine=true`) have the first "
            "stage in them"
        ),
        commands=commands(),
        options="\n".join(text for command in NNUNET_COMMANDS if (text := options(command))),
        trainers=table(
            ("trainer", "here"), ((f"`{name}`", trainer.meaning) for name, trainer in NNUNET_TRAINERS.items())
        ),
        others=table(("begins with", "instead"), ((f"`{name}`", cure) for name, cure in OTHERS.items())),
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
