"""Options by their whole names, for every command and its program of its own."""

import pytest

from seg25d.cli.main import COMMANDS, main


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The message of a command line that argparse or we refuse with status 2."""
    with pytest.raises(SystemExit) as leaving:
        COMMANDS[words[0]](words[1:])
    assert leaving.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("verb", COMMANDS)
@pytest.mark.parametrize("option", ["-ckh", "--workspac", "--quie", "-dev", "-n", "--divice", "--debug2", "--no-such"])
def test_every_command_names_an_unknown_option_whatever_follows_it(
    verb: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, verb, option, "x").startswith(f"error: unknown option {option};")
    assert refused(capsys, verb, f"{option}=x").startswith(f"error: unknown option {option};")


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (("train", "4", "si", "0", "--epoch", "3"), "--epochs"),
        (("train", "4", "si", "0", "--time", "3s"), "--time-budget"),
        (("train", "4", "si", "0", "--time_budget", "3s"), "--time-budget"),
        (("train", "4", "si", "0", "--net", "vnet"), "--network"),
        (("train", "4", "si", "0", "--restrat"), "--restart"),
        (("info", "--jsn"), "--json"),
        (("evaluate", "a", "b", "-dev", "cpu"), "-device"),
        (("train", "4", "si", "0", "-workspace", "a"), "--workspace"),
        (("train", "4", "si", "0", "--quie"), "--quiet"),
        (("train", "4", "si", "0", "--epochs5"), "--epochs"),
    ],
)
def test_the_nearest_option_is_named(words: tuple[str, ...], nearest: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"; the nearest one is {nearest}\n" in refused(capsys, *words)


@pytest.mark.parametrize(
    "words",
    [
        ("train", "4", "si", "0", "-chk", "x"),
        ("train", "4", "si", "0", "-f", "0"),
        ("predict", "-i", "a", "-o", "b", "-ckh", "x"),
        ("export_model", "-y", "4"),
        ("convert", "-x", "a"),
        ("train", "4", "si", "0", "--qxzzz"),
    ],
)
def test_where_none_is_near_the_help_is_named(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert f"; seg25d {words[0]} --help lists them\n" in refused(capsys, *words)


def test_all_unknown_options_are_named_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "train", "4", "si", "0", "--epoch", "3", "--sead", "4")
    assert "unknown option --epoch;" in message
    assert "unknown option --sead; the nearest one is --seed" in message


@pytest.mark.parametrize("word", ["-ckh", "-csi"])
def test_a_value_does_not_stick_to_an_option_of_one_dash(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"unknown option {word};" in refused(capsys, "predict", "-i", "a", "-o", "b", word)
    message = refused(capsys, "predict", "-i", "a", "-o", "b", "-c=si")
    assert message.startswith("error: -c takes its value as a word of its own: -c si, got -c=si")


def test_numbers_and_what_follows_two_dashes_are_no_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected a whole number of at least 0, got '-1'" in refused(capsys, "train", "4", "si", "0", "--seed", "-1")
    assert main(["evaluate", "--quiet", "--", "-absent", "-absent"]) == 2
    assert "unknown option" not in capsys.readouterr().err


def test_an_option_before_the_command_says_where_it_belongs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--workspace", "x", "train"]) == 2
    assert "options follow the command, as in seg25d COMMAND --workspace" in capsys.readouterr().err
    assert main(["trian"]) == 2
    assert "the nearest one is train;" in capsys.readouterr().err


@pytest.mark.parametrize(("verb", "length"), [("train", "500, 50,000 updates"), ("pretrain", "300, 30,000 updates")])
def test_the_help_names_the_default_length_and_what_a_time_budget_includes(
    verb: str, length: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert f"epochs of 100 updates (default: {length};" in words
    assert "includes the look at the validation windows after each epoch" in words
