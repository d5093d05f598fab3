"""Flags: presets and settings in layers, one line for what is wrong, and their help."""

import importlib
from dataclasses import dataclass, fields

import pytest

from data import UserError
from plumbing import flags


@dataclass(frozen=True)
class Config:
    preset: str = "toy"  # scale
    setting: str = "plain"  # fidelity
    lr: float = 1.0  # peak learning rate, 100 % of it
    steps: int = 1  # optimizer steps
    save_every: int = 3  # steps
    top_p: float = 1.0  # nucleus
    progress: bool = True  # a bar
    out: str = ""  # output
    limit: int = 0  # rows; 0 is all


PRESETS, SETTINGS = (
    {"toy": {"lr": 2.0, "steps": 2}, "big": {"steps": 3}},
    {"plain": {}, "odd": {"lr": 4.0}},
)


def parse(*argv):
    return flags.parse_flags(Config, PRESETS, SETTINGS, list(argv))


def test_flags_override_settings_override_presets_override_defaults(capsys):
    assert parse() == Config(lr=2.0, steps=2)
    assert parse("--preset", "big") == Config(preset="big", steps=3)
    assert parse("--setting", "odd").lr == 4.0 and parse("--setting", "odd", "--lr", "8").lr == 8.0
    assert parse("--top-p", "0.5").top_p == parse("--top_p=0.5").top_p == 0.5
    assert parse("--no-progress").progress is parse("--no_progress").progress is False
    assert parse("--out", "a-b_c").out == "a-b_c" and parse("--out=--x-y").out == "--x-y"
    assert parse("--limit", "0").limit == 0
    assert "steps            2                        preset toy" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--stps", "3"], "unknown flag --stps, did you mean --steps?"),
        (["--lr", "fast"], "invalid float value: 'fast'"),
        (["--preset", "huge"], "unknown preset huge; there are toy, big"),
        (["--setting", "x"], "unknown setting x; there are plain, odd"),
        (["3"], "unknown flag 3"),
        (["--steps", "0"], "--steps 0 must be 1 or more"),
        (["--limit", "-1"], "--limit -1 must be 0 or more"),
    ],
)
def test_a_wrong_flag_is_one_line(argv, message):
    with pytest.raises(SystemExit) as error:
        parse(*argv)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_help_is_the_comment_on_the_line(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    assert "[1.0] peak learning rate, 100 % of it" in capsys.readouterr().out


@dataclass(frozen=True)
class Derived(Config):
    lr: float = 2.0  # another rate
    more: int = 5  # of its own


def test_help_is_inherited_and_a_subclass_has_the_last_word(capsys):
    with pytest.raises(SystemExit):
        flags.parse_flags(Derived, PRESETS, SETTINGS, ["--help"])
    said = capsys.readouterr().out
    for text in ("[2.0] another rate", "[5] of its own", "[1.0] nucleus"):
        assert text in said
    assert "peak learning rate" not in said


@dataclass(frozen=True)
class Grouped(Config):
    lr: float = 2.0  # another rate
    # rollouts
    n: int = 5  # of them
    steps: int = 1  # rounds
    # cost
    slots: int = 4  # of a sampler


def test_flags_stand_in_groups(capsys):
    """A comment on a line of its own begins a group; a field of a subclass stands in the
    subclass's group.
    """
    groups = flags.field_groups(Grouped)
    assert groups["lr"] == groups["out"] == "what" and groups["n"] == groups["steps"] == "rollouts"
    assert groups["slots"] == "cost"
    with pytest.raises(SystemExit):
        flags.parse_flags(Grouped, PRESETS, SETTINGS, ["--help"])
    said = capsys.readouterr().out
    assert (
        said.index("\nwhat:")
        < said.index("--lr")
        < said.index("\nrollouts:")
        < said.index("--steps")
    )


def test_the_help_of_grpo_has_the_groups_of_a_run():
    import grpo

    names = set(flags.field_groups(grpo.Config).values())
    assert names == {"what", "rollouts", "reward", "loss", "optimizer", "cost", "log"}


@pytest.mark.parametrize("stage", ["pretrain", "sft", "grpo", "parallel", "evaluate"])
def test_every_flag_of_every_stage_has_its_help(stage):
    """Also where the formatter would have moved a comment to another line."""
    config = importlib.import_module(stage).Config
    assert flags.field_comments(config).keys() >= {field.name for field in fields(config)}


def test_a_config_for_a_shell_is_what_the_command_line_makes(capsys):
    import grpo
    import parallel
    import pretrain

    assert flags.make_config(grpo, n=8, prompts=2).n == 8 and flags.make_config(grpo).lr == 2.5e-4
    stage = (parallel.Config, parallel.PRESETS, parallel.SETTINGS)
    asked = flags.parse_flags(
        *stage, ["--ckpt", "x", "--setting", "run"], parent={"preset": "toy", "recipe": "base"}
    )
    assert flags.make_config(parallel, "toy", "run", ckpt="x") == asked
    assert flags.make_config(pretrain, "small").batch == 512
    with pytest.raises(UserError, match="--n 1"):
        flags.make_config(grpo, n=1)
    with pytest.raises(UserError, match="--mini_batches 0 must be 1 or more"):
        flags.make_config(grpo, mini_batches=0)
