import io
import logging
import os
import re
import subprocess
import sys

import pytest

from seg25d.cli import common
from seg25d.cli.argument_types import duration, setting
from seg25d.cli.common import Command, run_guarded
from seg25d.cli.main import COMMANDS, main
from seg25d.core.errors import CaseFailures, InputError, WorkerError


def run_command(action, *words, ignored=()):
    command = Command("try", "Tries.", lambda parser: parser.add_argument("-d"), action, ignored)
    return command(words)


def test_overview_names_every_command(capsys):
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in COMMANDS)
    assert main([]) == 0


def test_version(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"seg25d \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("words", [["--help"], ["trian"], ["evaluate", "absent_1", "absent_2"]])
def test_the_package_can_be_run_as_a_module(words, capsys):
    command = [sys.executable, "-m", "seg25d", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == main(words)
    assert (done.stdout, done.stderr) == tuple(capsys.readouterr())


def test_unknown_command_lists_the_known_ones(capsys):
    assert main(["trian"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: unknown command 'trian'")
    assert "train" in message
    assert "plan_and_preprocess" in message


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_command_has_the_shared_options(verb, capsys):
    with pytest.raises(SystemExit) as leaving:
        main([verb, "--help"])
    assert leaving.value.code == 0
    output = capsys.readouterr().out
    assert all(option in output for option in ("--workspace", "--quiet", "--debug", "--device", "--num-processes"))


@pytest.mark.parametrize(
    "words",
    [
        ["train", "4"],
        ["train", "4", "si", "0", "--time-budget", "soon"],
        ["train", "4", "si", "0", "--time-budget", "0s"],
        ["train", "4", "si", "0", "--epochs", "0"],
        ["train", "4", "si", "0", "--set", "epochs"],
        ["predict", "-i", "a"],
        ["predict", "-i", "a", "-o", "b", "--step-size", "nan"],
        ["predict", "-i", "a", "-o", "b", "--step-size", "2"],
        ["plan_and_preprocess"],
        ["plan_and_preprocess", "-d", "1", "--gpu-memory-gb", "-3"],
        ["plan_and_preprocess", "-d", "1", "--gpu-memory-gb", "all"],
        ["plan_and_preprocess", "-d", "1", "--cpu-gflops", "-1"],
        ["plan_and_preprocess", "-d", "1", "--time-budget", "soon"],
        ["plan_and_preprocess", "-d", "1", "--plans-name", "../x"],
        ["train", "4", "si", "0", "-p", "splits"],
        ["predict", "-i", "a", "-o", "b", "-p", "a b"],
        ["ensemble", "-i", "a", "b"],
        ["ensemble", "-i", "a", "b", "-o", "c", "--method", "median"],
        ["ensemble", "-i", "a", "b", "-o", "c", "--weights", "1", "-1"],
        ["ensemble", "-i", "a", "b", "-o", "c", "--weights", "1", "inf"],
        ["ensemble", "-i", "a", "b", "-o", "c", "--channel", "x"],
        ["convert", "-i", "a"],
        ["convert", "--from", "nifti", "-i", "a"],
        ["info", "1", "2"],
        ["export_model", "4"],
        ["export_model", "4", "-o", "a.zip", "-p", "a b"],
        ["install_model"],
        ["evaluate", "a", "b", "--device", "tpu"],
        ["evaluate", "a", "b", "--num-processes", "-1"],
    ],
)
def test_wrong_arguments_are_status_2_and_one_error(words, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(words)
    assert leaving.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("case_1: no image; add it"), 2),
        (WorkerError("case_1: lost"), 1),
        (CaseFailures({"case_1": "lost"}), 1),
        (PermissionError(13, "Permission denied", "/out"), 2),
    ],
)
def test_our_errors_are_one_message(error, status, capsys):
    def fail(_):
        raise error

    assert run_command(fail) == status
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Traceback" not in message


def test_debug_shows_the_traceback(capsys):
    def fail(_):
        raise InputError("bad")

    assert run_command(fail, "--debug") == 2
    message = capsys.readouterr().err
    assert "Traceback" in message
    assert "error: bad" in message


def test_a_fault_of_ours_shows_the_traceback(capsys):
    assert run_command(lambda _: 1 / 0) == 1
    message = capsys.readouterr().err
    assert "ZeroDivisionError" in message
    assert "bug of seg25d" in message


def test_interruption_says_how_to_go_on(capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    assert run_command(interrupt) == 130
    assert "same command continues" in capsys.readouterr().err


def test_interruption_of_a_restart_says_to_leave_it_out(capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    command = Command("try", "Tries.", lambda parser: parser.add_argument("--restart", action="store_true"), interrupt)
    assert command(["--restart"]) == 130
    assert "the same command without --restart continues" in capsys.readouterr().err


def test_options_without_effect_warn(capsys):
    assert run_command(lambda _: None, "--device", "cpu", "--num-processes", "0", ignored=("device",)) == 0
    message = capsys.readouterr().err
    assert "--device has no effect on try" in message
    assert "num-processes" not in message


def test_torch_will_find_that_waiting_threads_soon_sleep(monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        # Set before it is removed, so that what the command sets is undone.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    run_command(lambda _: None)
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["GOMP_SPINCOUNT"]) == ("PASSIVE", "1000")


@pytest.mark.parametrize("policy", ["ACTIVE", "PASSIVE"])
def test_users_say_how_threads_wait(policy, monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    run_command(lambda _: None)
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["GOMP_SPINCOUNT"]) == (policy, "7")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    run_command(lambda _: None)
    assert os.environ["GOMP_SPINCOUNT"] == "7"


@pytest.mark.parametrize("option", ["--explain", "--plan-only"])
def test_verifying_alone_plans_nothing(option, capsys):
    assert main(["plan_and_preprocess", "-d", "1", "--verify-only", option]) == 2
    assert capsys.readouterr().err.startswith("error: --verify-only")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_reader_that_leaves_early_is_no_error(words):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "seg25d", *words], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_messages_go_to_standard_error_with_time_stamps(capsys):
    def talk(_):
        logging.getLogger("seg25d.some.part").info("hello")
        logging.getLogger("seg25d.some.part").warning("careful")

    run_command(talk)
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d hello", lines[0])
    assert lines[1].startswith("warning: ")
    assert not captured.out


def test_quiet_keeps_warnings_only(capsys):
    def talk(_):
        logging.getLogger("seg25d.some.part").info("hello")
        logging.getLogger("seg25d.some.part").warning("careful")

    run_command(talk, "--quiet")
    message = capsys.readouterr().err
    assert "hello" not in message
    assert "careful" in message


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15min", 900), ("2h", 7200), ("1h30min", 5400), ("1.5 h", 5400), ("2m10s", 130)]
)
def test_durations(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "15", "min", "-3s", "1d"])
def test_wrong_durations_name_the_right_ones(text):
    with pytest.raises(common.argparse.ArgumentTypeError, match=r"above 0|15min"):
        duration(text)


def test_settings_split_at_the_first_equals_sign():
    assert setting("a=b=c") == ("a", "b=c")


def test_nnunet_spellings_mean_the_same(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        COMMANDS["predict"].__class__,
        "__call__",
        lambda self, words: seen.update(vars(self.parser().parse_args(words))),
    )
    spelled = "-i a -o b -d 4 -c si -f 0 1 -device cpu --disable_tta --save_probabilities -step_size 0.4"
    main(["predict", *spelled.split()])
    assert seen["device"] == "cpu"
    assert seen["disable_tta"]
    assert seen["save_probabilities"]
    assert seen["step_size"] == 0.4
    assert seen["folds"] == ["0", "1"]
    main(["train", "4", "si", "0", "-device", "cpu", "-p", "mine", "--c", "-np", "0"])
    assert seen["plans_name"] == "mine"
    assert seen["num_processes"] == 0
    main(["ensemble", "-i", "a", "b", "-o", "c", "--save_npz", "-np", "3", "--weights", "0", "2.5"])
    assert seen["save_probabilities"]
    assert seen["num_processes"] == 3
    assert seen["method"] == "mean"
    assert seen["weights"] == [0, 2.5]


def test_output_is_flushed_before_success(monkeypatch):
    flushed = io.StringIO()
    flushed.flush = lambda: flushed.write("flushed")
    monkeypatch.setattr(sys, "stdout", flushed)
    assert run_guarded(lambda: None, debug=False) == 0
    assert flushed.getvalue() == "flushed"
