"""nnU-Net's 21 commands and every option of theirs, and what each is here: the one table of all that is nnU-Net's.

Parsers (`nnunet_parsing.py`), programs (`main.py`), tests and documentation/how_to/coming_from_nnunet.md are made of
it. Names, defaults and meanings are those of nnunetv2 2.8.1: the argument parsers of the functions in its
pyproject.toml, `project.scripts`; spellings of older versions that its documentation still has stand beside them.
"""

from seg25d.cli.argument_types import natural_number
from seg25d.cli.nnunet_word import NnunetCommand, Word, flag, given, idle, only, own, same

NUMBER = {"metavar": "N", "type": natural_number}
PROCESSES = same("-np", "--num-processes")
DEVICE = same("-device", "--device")
VERBOSE = same("--verbose", "--debug")
NO_BAR = flag("--no_pbar --disable_progress_bar", "lines instead of a progress bar", dest="no_progress_bar")
PLANS = same("-p", "--plans-name")
TRAINER = own(
    "-tr",
    "name of nnU-Net's trainer that the run was trained with: what `train -tr` took",
    dest="trainer",
    metavar="TRAINER",
)
CHECKPOINT = own(
    "-chk",
    "which model of each fold: checkpoint_final.pth (or final), at the end of its training, which is the default, or "
    "checkpoint_best.pth (or best), with the best validation windows",
    dest="checkpoint",
    metavar="NAME",
)
DATASET_JSON = "dataset.json with the labels"
PLANS_JSON = "labels are all that it is read for in nnU-Net, and those are in dataset.json here"
PLAN: dict[str, Word] = {
    "-d": same("-d", "--dataset"),
    "-fpe": only("-fpe", "DatasetFingerprintExtractor", "there is one fingerprint here; leave -fpe out"),
    "-npfp": own(
        "-npfp",
        "processes that measure the data set, if another number than --num-processes",
        dest="num_fingerprint_processes",
        **NUMBER,
    ),
    "-np": own(
        "-np",
        "number of processes; of several numbers, one per configuration, the smallest counts, as configurations share "
        "arrays",
        dest="processes_per_configuration",
        nargs="+",
        **NUMBER,
    ),
    "--verify_dataset_integrity": idle(
        "--verify_dataset_integrity", "data sets are verified whenever they have changed, with or without it"
    ),
    "--no_pp": same("--no_pp", "--plan-only"),
    "--clean": same("--clean", "--clean"),
    "-pl": only(
        "-pl",
        "ExperimentPlanner",
        "there is one planner here: choose its memory with -gpu_memory_target GB (nnU-Net's ResEnc presets: M 8, L 24, "
        "XL 40) and a name of its own with -overwrite_plans_name NAME; networks are chosen by `train --network`, such "
        "as resnet_unet",
    ),
    "-gpu_memory_target": same("-gpu_memory_target", "--gpu-memory-gb"),
    "-preprocessor_name": only(
        "-preprocessor_name", "DefaultPreprocessor", "there is one preprocessor here; leave -preprocessor_name out"
    ),
    "-overwrite_target_spacing": own(
        "-overwrite_target_spacing",
        "target spacing of `3d` in mm along D H W, as in nnU-Net for 3d_fullres alone",
        dest="spacing_3d_mm",
        nargs="+",
        type=float,
        metavar="MM",
    ),
    "-overwrite_plans_name": same("-overwrite_plans_name -plans_name", "--plans-name"),
    "-c": same("-c", "--configuration"),
    "--verbose": VERBOSE,
    "--no_pbar": NO_BAR,
}


def _plan(*names: str) -> tuple[Word, ...]:
    return tuple(PLAN[name] for name in names)


PREDICT: tuple[Word, ...] = (
    same("-i", "--input"),
    same("-o", "--output"),
    same("-f", "--folds"),
    same("-step_size", "--step-size"),
    same("--disable_tta", "--disable-tta"),
    VERBOSE,
    same("--save_probabilities", "--save-probabilities"),
    idle(
        "--continue_prediction --c",
        "cases that the same model has predicted are kept, with or without it; --overwrite predicts them again",
    ),
    CHECKPOINT,
    idle("-npp", "cases are read by threads while one is computed", **NUMBER),
    idle("-nps", "cases are written by threads while one is computed", **NUMBER),
    own(
        "-prev_stage_predictions",
        "refused: there are no cascades of nnU-Net's kind here; coarse-to-fine models (`train --set fine=true`) have "
        "their first stage in them",
        dest="prev_stage_predictions",
        metavar="DIR",
    ),
    DEVICE,
    NO_BAR,
    idle("--not_on_device", "scores go to the main memory by themselves where those of the device are full"),
)

NNUNET_COMMANDS: tuple[NnunetCommand, ...] = (
    NnunetCommand("plan_and_preprocess", "plan_and_preprocess", (), tuple(PLAN.values())),
    NnunetCommand(
        "extract_fingerprint",
        "plan_and_preprocess",
        ("--fingerprint-only",),
        _plan("-d", "-fpe", "-np", "--verify_dataset_integrity", "--clean", "--verbose", "--no_pbar"),
    ),
    NnunetCommand(
        "plan_experiment",
        "plan_and_preprocess",
        ("--plan-only",),
        _plan(
            "-d",
            "-pl",
            "-gpu_memory_target",
            "-preprocessor_name",
            "-overwrite_target_spacing",
            "-overwrite_plans_name",
        ),
    ),
    NnunetCommand(
        "preprocess",
        "plan_and_preprocess",
        ("--preprocess-only",),
        _plan("-d", "-overwrite_plans_name", "-c", "-np", "--verbose", "--no_pbar"),
    ),
    NnunetCommand(
        "train",
        "train",
        (),
        (
            *given("dataset", "configuration", "folds"),
            own(
                "-tr",
                "settings of one of nnU-Net's trainers, listed below; the run gets its name, such as "
                "3d__nnUNetTrainer_5epochs; nnUNetTrainer is the default: the recipe as it is",
                dest="trainer",
                metavar="TRAINER",
            ),
            PLANS,
            same("-pretrained_weights", "--pretrained"),
            own(
                "-num_gpus",
                "GPUs that train one fold: 1; more are an error that names the command: torchrun starts a process for "
                "each",
                dest="num_gpus",
                **NUMBER,
            ),
            flag(
                "--npz",
                "also write the probabilities of the validation cases, validation/CASE.npz",
                dest="save_probabilities",
            ),
            idle("--c", "training goes on where it stopped, with or without it; --restart starts over"),
            flag("--val", "score the validation cases again, and train nothing", dest="validate_only"),
            flag(
                "--val_best",
                "score the model with the best validation windows too, in validation_best/",
                dest="validate_best",
            ),
            idle("--disable_checkpointing", "there is one checkpoint per fold, replaced as training goes on"),
            idle("--use_compressed", "arrays are compressed, and read so"),
            DEVICE,
        ),
    ),
    NnunetCommand(
        "predict",
        "predict",
        (),
        (
            *PREDICT,
            same("-d", "--dataset"),
            PLANS,
            TRAINER,
            same("-c", "--configuration"),
            same("-num_parts", "--num-parts"),
            same("-part_id", "--part-id"),
        ),
    ),
    NnunetCommand("predict_from_modelfolder", "predict", (), (*PREDICT, same("-m", "--model"))),
    NnunetCommand(
        "find_best_configuration",
        "find_best_configuration",
        (),
        (
            *given("dataset"),
            own(
                "-p",
                "names of plans, of which runs are compared (default: nnUNetPlans, which is `plans`)",
                dest="plans_names",
                nargs="+",
                metavar="NAME",
            ),
            same("-c", "--configurations"),
            own(
                "-tr",
                "names of nnU-Net's trainers, of which runs are compared (default: nnUNetTrainer)",
                dest="trainers",
                nargs="+",
                metavar="TRAINER",
            ),
            PROCESSES,
            same("-f", "--folds"),
            same("--disable_ensembling", "--no-ensembles"),
            idle("--no_overwrite", "what is up to date is kept, with or without it"),
        ),
    ),
    NnunetCommand(
        "accumulate_crossval_results",
        "accumulate_crossval_results",
        (),
        (
            *given("dataset"),
            own("-c", "configuration or name of a run", dest="configuration", required=True, metavar="CONFIG"),
            own(
                "-o",
                "folder (default: crossval_results_folds_0_1_2_3_4 and the like, in that of the run)",
                dest="output",
                metavar="DIR",
            ),
            own("-f", "folds (default: all)", dest="folds", nargs="+", metavar="FOLD"),
            own("-p", "name of the plans", dest="plans_name", metavar="NAME"),
            TRAINER,
        ),
    ),
    NnunetCommand(
        "determine_postprocessing",
        "determine_postprocessing",
        (),
        (
            own(
                "-i",
                "folder of predictions; gets postprocessing.json, and the results in postprocessed/",
                dest="input",
                required=True,
                metavar="DIR",
            ),
            own("-ref", "folder of true segmentations", dest="reference", required=True, metavar="DIR"),
            idle("-plans_json", PLANS_JSON, metavar="FILE"),
            own("-dataset_json", DATASET_JSON, dest="dataset_json", metavar="FILE"),
            PROCESSES,
            flag("--remove_postprocessed", "do not write postprocessed/", dest="remove_postprocessed"),
        ),
    ),
    NnunetCommand(
        "apply_postprocessing",
        "apply_postprocessing",
        (),
        (
            own("-i", "folder of predictions", dest="input", required=True, metavar="DIR"),
            own("-o", "folder for the results", dest="output", required=True, metavar="OUT"),
            own(
                "-pp_pkl_file --pp_pkl_file",
                "postprocessing.json of determine_postprocessing, or best.json of find_best_configuration; a pickle is "
                "an error, as it could run code",
                dest="rule",
                required=True,
                metavar="FILE",
            ),
            PROCESSES,
            idle("-plans_json", PLANS_JSON, metavar="FILE"),
            own("-dataset_json", DATASET_JSON, dest="dataset_json", metavar="FILE"),
        ),
    ),
    NnunetCommand(
        "ensemble",
        "ensemble",
        (),
        (
            same("-i", "--input"),
            same("-o", "--output"),
            PROCESSES,
            same("--save_npz", "--save-probabilities"),
        ),
    ),
    NnunetCommand(
        "evaluate_folder",
        "evaluate",
        ("--format", "nnunet"),
        (
            *given("reference", "prediction"),
            own(
                "-djfile",
                f"{DATASET_JSON} (default: that in PREDICTION_DIR, REFERENCE_DIR or its parent)",
                dest="dataset_json",
                metavar="FILE",
            ),
            idle("-pfile", PLANS_JSON, metavar="FILE"),
            same("-o", "--output"),
            PROCESSES,
            same("--chill", "--common"),
        ),
    ),
    NnunetCommand(
        "evaluate_simple",
        "evaluate",
        ("--format", "nnunet"),
        (
            *given("reference", "prediction"),
            own("-l", "score these values alone, whatever dataset.json says", dest="label_values", nargs="+", **NUMBER),
            own("-il", "with -l: value in the truth that does not count", dest="ignored_value", **NUMBER),
            same("-o", "--output"),
            PROCESSES,
            same("--chill", "--common"),
        ),
    ),
    NnunetCommand(
        "plot_overlay_pngs",
        "plot_overlay_pngs",
        (),
        (
            own("-d", "data set", dest="dataset", required=True, metavar="ID"),
            own("-o", "folder for CASE.png", dest="output", required=True, metavar="DIR"),
            PROCESSES,
            own("-channel_idx", "channel of the image (default: 0)", dest="channel", default=0, **NUMBER),
            flag("--use_raw", "raw images instead of preprocessed arrays", dest="use_raw"),
            own("-p", "name of the plans of the arrays", dest="plans_name", metavar="NAME"),
            own(
                "-c",
                "configuration whose arrays are shown (default: 3d if it is planned, else 2d)",
                dest="configuration",
                metavar="CONFIG",
            ),
            own(
                "-overlay_intensity",
                "opacity of the labels, 0 to 1 (default: 0.6)",
                dest="opacity",
                type=float,
                default=0.6,
                metavar="X",
            ),
        ),
    ),
    NnunetCommand(
        "export_model_to_zip",
        "export_model",
        (),
        (
            own("-d", "data set, instead of ID", dest="dataset_option", metavar="ID"),
            same("-o", "--output"),
            same("-c", "--configurations"),
            TRAINER,
            PLANS,
            same("-f", "--folds"),
            own(
                "-chk",
                "models of each fold to export: checkpoint_final.pth; others are an error",
                dest="checkpoints",
                nargs="+",
                metavar="NAME",
            ),
            idle("--not_strict", "configurations and folds that are trained are exported; those named must be"),
            own(
                "--exp_cv_preds",
                "refused: archives hold models; copy the folders of accumulate_crossval_results",
                dest="crossval_predictions",
                action="store_true",
            ),
        ),
    ),
    NnunetCommand("install_pretrained_model_from_zip", "install_model", (), given("archive")),
    NnunetCommand("download_pretrained_model_by_url", "install_model", (), given("archive")),
    NnunetCommand(
        "convert_MSD_dataset",
        "convert",
        ("--from", "msd"),
        (same("-i", "--input"), same("-overwrite_id", "--dataset"), PROCESSES),
    ),
    NnunetCommand(
        "convert_old_nnUNet_dataset",
        "convert_old_nnUNet_dataset",
        (),
        given("input", "dataset_name"),
    ),
    NnunetCommand(
        "move_plans_between_datasets",
        "move_plans_between_datasets",
        (),
        (
            own("-s", "data set whose plans are taken", dest="source", required=True, metavar="ID"),
            own("-t", "data set that gets them", dest="target", required=True, metavar="ID"),
            own("-sp", "name of the plans", dest="source_plans", required=True, metavar="NAME"),
            own("-tp -st", "their new name (default: the same)", dest="target_plans", metavar="NAME"),
        ),
    ),
)
