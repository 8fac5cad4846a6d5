"""nnU-Net's commands and options, each line of the one table: what is parsed, what is said, what is refused."""

import argparse
import logging

import pytest

from seg25d.cli.main import COMMANDS, main
from seg25d.cli.nnunet_parsing import (
    ALIASES,
    own_checkpoint,
    own_configuration,
    read_words,
    run_names,
)
from seg25d.cli.nnunet_table import NNUNET_COMMANDS
from seg25d.cli.nnunet_word import NnunetCommand, Word
from seg25d.core.errors import InputError

# The 21 programs of nnunetv2 2.8.1 and the options of their parsers, written down from its pyproject.toml and sources.
PROGRAMS = {
    "plan_and_preprocess": "-d -fpe -npfp --verify_dataset_integrity --no_pp --clean -pl -gpu_memory_target "
    "-preprocessor_name -overwrite_target_spacing -overwrite_plans_name -c -np --verbose --no_pbar",
    "extract_fingerprint": "-d -fpe -np --verify_dataset_integrity --clean --verbose --no_pbar",
    "plan_experiment": "-d -pl -gpu_memory_target -preprocessor_name -overwrite_target_spacing -overwrite_plans_name",
    "preprocess": "-d -plans_name -c -np --verbose --no_pbar",
    "train": "-tr -p -pretrained_weights -num_gpus --npz --c --val --val_best --disable_checkpointing -device",
    "predict": "-i -o -d -p -tr -c -f -step_size --disable_tta --verbose --save_probabilities --continue_prediction "
    "-chk -npp -nps -prev_stage_predictions -num_parts -part_id -device --disable_progress_bar --not_on_device",
    "predict_from_modelfolder": "-i -o -m -f -step_size --disable_tta --verbose --save_probabilities "
    "--continue_prediction --c -chk -npp -nps -prev_stage_predictions -device --disable_progress_bar --not_on_device",
    "find_best_configuration": "-p -c -tr -np -f --disable_ensembling --no_overwrite",
    "accumulate_crossval_results": "-c -o -f -p -tr",
    "determine_postprocessing": "-i -ref -plans_json -dataset_json -np --remove_postprocessed",
    "apply_postprocessing": "-i -o -pp_pkl_file -np -plans_json -dataset_json",
    "ensemble": "-i -o -np --save_npz",
    "evaluate_folder": "-djfile -pfile -o -np --chill",
    "evaluate_simple": "-l -il -o -np --chill",
    "plot_overlay_pngs": "-d -o -np -channel_idx --use_raw -p -c -overlay_intensity",
    "export_model_to_zip": "-d -o -c -tr -p -f -chk --not_strict --exp_cv_preds",
    "install_pretrained_model_from_zip": "",
    "download_pretrained_model_by_url": "",
    "convert_MSD_dataset": "-i -overwrite_id -np",
    "convert_old_nnUNet_dataset": "",
    "move_plans_between_datasets": "-s -t -sp -tp",
}
OPTIONS = [(command, word) for command in NNUNET_COMMANDS for word in command.words if word.spellings[0][0] == "-"]


def parser_of(command: NnunetCommand) -> argparse.ArgumentParser:
    return COMMANDS[command.name].parser()


def test_the_table_has_every_command_and_option_of_nnunet() -> None:
    table = {each.name: {spelling for word in each.words for spelling in word.spellings} for each in NNUNET_COMMANDS}
    assert set(table) == set(PROGRAMS)
    missing = {name: set(options.split()) - table[name] for name, options in PROGRAMS.items()}
    assert not {name: options for name, options in missing.items() if options}


def test_every_name_is_a_command_and_the_help_of_its_home_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    overview = capsys.readouterr().out
    for each in NNUNET_COMMANDS:
        assert each.name in COMMANDS
        assert each.name in overview
    for name, alias in ALIASES.items():
        assert name in (COMMANDS[alias.home].parser().epilog or "")
        assert COMMANDS[name].summary == f"Another name of `{' '.join(('seg25d', alias.home, *alias.leading))}`."


@pytest.mark.parametrize(
    ("command", "word"), OPTIONS, ids=lambda each: getattr(each, "name", None) or each.spellings[0]
)
def test_every_spelling_is_an_option_and_means_what_the_table_says(command: NnunetCommand, word: Word) -> None:
    actions = parser_of(command)._option_string_actions
    found = [actions[spelling] for spelling in word.spellings]
    assert all(each is found[0] for each in found)
    if word.kind == "same":
        assert found[0] is actions[word.home]
    elif word.kind == "idle":
        assert (found[0].help or "").startswith("no effect")


@pytest.mark.parametrize("command", NNUNET_COMMANDS, ids=lambda each: each.name)
def test_words_without_effect_say_so_and_those_with_one_value_take_no_other(
    command: NnunetCommand, caplog: pytest.LogCaptureFixture
) -> None:
    for word in command.words:
        place = "nnunet_" + word.spellings[0].strip("-").replace("-", "_")
        if word.kind == "idle":
            with caplog.at_level(logging.INFO):
                read_words(argparse.Namespace(**{place: True}), command.home)
            assert f"{word.spellings[0]} has no effect: {word.meaning}" in caplog.text
        elif word.kind == "only":
            read_words(argparse.Namespace(**{place: word.value}), command.home)
            with pytest.raises(InputError, match=f"expected {word.value}, got other; "):
                read_words(argparse.Namespace(**{place: "other"}), command.home)


def test_configurations_and_plans_get_our_names(caplog: pytest.LogCaptureFixture) -> None:
    assert [own_configuration(name) for name in ("2d", "3d_fullres", "3d_fullres__vnet", "si")] == [
        *("2d", "3d", "3d__vnet", "si")
    ]
    with pytest.raises(InputError, match="take 3d_fullres"):
        own_configuration("3d_lowres")
    words = argparse.Namespace(
        configurations=["2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"], plans_name="nnUNetPlans"
    )
    with caplog.at_level(logging.INFO):
        read_words(words, "find_best_configuration")
    assert (words.configurations, words.plans_name) == (["2d", "3d"], "plans")
    assert "left out: 3d_lowres, 3d_cascade_fullres" in caplog.text
    with pytest.raises(InputError, match="there is no cascade"):
        read_words(argparse.Namespace(configurations=["3d_lowres"]), "predict")


@pytest.mark.parametrize(
    ("configurations", "trainers", "plans", "runs"),
    [
        (["3d"], None, None, ["3d"]),
        (["3d"], ["nnUNetTrainer"], ["nnUNetPlans"], ["3d"]),
        (["3d"], ["nnUNetTrainer_5epochs"], None, ["3d__nnUNetTrainer_5epochs"]),
        (["2d", "3d"], ["nnUNetTrainer", "T"], ["nnUNetPlans", "P"], "2d 2d__P 2d__T 2d__T__P 3d 3d__P 3d__T 3d__T__P"),
        (None, None, None, None),
        (None, ["nnUNetTrainer"], None, None),
    ],
)
def test_runs_are_called_after_configuration_trainer_and_plans(
    configurations: list[str] | None, trainers: list[str] | None, plans: list[str] | None, runs: list[str] | str | None
) -> None:
    assert run_names(configurations, trainers, plans) == (runs.split() if isinstance(runs, str) else runs)


def test_a_trainer_alone_names_no_run() -> None:
    with pytest.raises(InputError, match="with -c"):
        run_names(None, ["nnUNetTrainer_5epochs"])


def test_checkpoints() -> None:
    words = (None, "checkpoint_final.pth", "checkpoint_best.pth", "best")
    assert [own_checkpoint(word) for word in words] == ["final", "final", "best", "best"]
    with pytest.raises(InputError, match=r"expected checkpoint_final\.pth or checkpoint_best\.pth"):
        own_checkpoint("checkpoint_latest.pth")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train 4 3d_lowres 0", "there is no cascade over a lower resolution here"),
        ("train 4 2d 0 -num_gpus 2", "torchrun --nproc-per-node 2 -m seg25d train 4 2d 0"),
        ("predict -i a -o b -d 4 -c 2d -prev_stage_predictions c", "--set fine=true"),
        ("predict -i a -o b -d 4 -c 2d -chk checkpoint_latest.pth", "expected checkpoint_final.pth"),
        ("predict -i a -o b -d 4 -tr nnUNetTrainer_5epochs", "with -c"),
        ("plan_and_preprocess -d 4 -pl nnUNetPlannerResEncL", "-gpu_memory_target"),
        ("plan_and_preprocess -d 4 -np 8 4 8 -c 2d 3d_fullres", "one for each of the 2 configurations"),
        ("plan_and_preprocess -d 4 -overwrite_target_spacing 1 1", "expected three numbers"),
        ("plan_and_preprocess -d 4 --fingerprint-only --plan-only", "--fingerprint-only and --plan-only"),
        ("plan_experiment -d 4 -preprocessor_name Mine", "expected DefaultPreprocessor, got Mine"),
        ("evaluate_simple a b -il 3", "-il needs -l"),
        ("evaluate_simple a b -l 0 1", "background or ignored"),
        ("evaluate_simple a b -l 1 -djfile c", "give one of them"),
        ("export_model_to_zip -o a.zip", "expected the data set once"),
        ("export_model_to_zip -d 4 -o a.zip -chk checkpoint_best.pth", "archives hold the final models"),
        ("export_model_to_zip -d 4 -o a.zip --exp_cv_preds", "accumulate_crossval_results"),
        ("apply_postprocessing -i a -o b -pp_pkl_file c.pkl", "a pickle, which could run code"),
        ("convert_old_nnUNet_dataset a Task004_Hippocampus", "expected a name such as Dataset004_Hippocampus"),
        ("plan_and_preprocess -d 77", "nnUNet_raw (absent) does not count, --workspace does"),
    ],
)
def test_what_is_not_here_names_the_cure(
    words: str, told: str, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    workspace = tmp_path_factory.mktemp("empty")
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("nnUNet_raw", "absent")
    assert main([*words.split(), "--workspace", str(workspace)]) == 2
    message = capsys.readouterr().err
    assert told in message
    assert "error: " in message
    assert "Traceback" not in message
