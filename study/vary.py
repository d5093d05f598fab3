"""An ablation in one line: `--vary grpo.normalize=std,none --on 3.6M.rl`, and `--recipe`.

Every combination of the values becomes a cell of an experiment, named by what it changes
(3.6M.rl-normalize-none). A value that the command has anyway is the cell itself, so it is neither
named nor run again. A flag with one value beside flags with several is set in every cell, also in
the one that the others are compared with.
"""

import contextlib
import difflib
import importlib
import io
import itertools
import os
import re
import shlex
from dataclasses import replace

from data import UserError
from plumbing.flags import check, field_type, fields_of
from plumbing.presets import CHECKPOINTS
from study.experiment import Experiment, Recipes, stems_of

STAGES = ("pretrain", "sft", "grpo", "parallel", "evaluate")
Change = tuple[str, str, str]  # stage, flag, value


def experiment_of(base: Experiment, preset: str, vary: list[str], on: str) -> Experiment:
    """The cells named by `on` (joined by commas), and each with every combination of the values.

    Raises UserError where a stage, a flag, a value or a cell is not there, with those that are.
    """
    choices = []
    for text in vary:
        choices.append(changes_of(text))
    flags = [changes[0][:2] for changes in choices]
    for stage, flag in flags:
        check(
            flags.count((stage, flag)) == 1,
            f"--vary {stage}.{flag} is given twice; give all its values in one, joined by commas",
        )
    in_all = set_in_all(choices)
    several = [changes for changes in choices if changes[0] not in in_all]
    names = on.split(",") if on else [default_cell(base, preset, choices)]
    stems = []
    recipes = {}
    pretrain = {}
    made = {}  # the name of a cell -> its changes
    for name in names:
        stem, recipe = cell_of(base, preset, name)
        for combination in [(), *itertools.product(*several)]:
            changes = in_all + combination
            variant = Variant(base, preset, stem, recipe, changes)
            other = made.setdefault(variant.name, changes)
            check(
                other in (in_all, changes) or variant.name == name,
                f"--vary: {spelled(other)} and {spelled(changes)} would both be the cell "
                f"{variant.name}; give one of them",
            )
            if variant.stem not in stems:
                stems.append(variant.stem)
            recipes |= variant.recipes
            pretrain |= variant.pretrain
    recipes_asked = {cell_of(base, preset, name)[1] or "base" for name in names}
    check(
        len(recipes_asked) == 1,
        f"--on {on}: cells of several recipes ({', '.join(sorted(recipes_asked))}) cannot be "
        "compared with each other; give those of one",
    )
    compared_with = Variant(base, preset, *cell_of(base, preset, names[0]), in_all)
    asked = " ".join(vary)
    return replace(
        base,
        question=f"What does {asked} change at {', '.join(names)}?",
        recipes=recipes,
        stems=",".join(stems),
        pretrain=pretrain,
        preset=preset,
        against=compared_with.recipe,
        figure="dots",
    )


def set_in_all(choices: list[list[Change]]) -> tuple[Change, ...]:
    """The changes of flags with one value, if others have several; else none."""
    if all(len(changes) == 1 for changes in choices):
        return ()
    return tuple(changes[0] for changes in choices if len(changes) == 1)


def spelled(changes: tuple[Change, ...]) -> str:
    """ "grpo.lr=1e-4 grpo.n=8"."""
    return " ".join(f"{stage}.{flag}={value}" for stage, flag, value in changes)


def with_recipes(base: Experiment, preset: str, rows: list[str]) -> Experiment:
    """The experiment with further recipes, each "NAME: COMMAND", and what they start from alone.

    A name "sft.mine" starts from sft, a name without a dot from the base.
    """
    known = dict(base.recipes)
    chosen = {}
    chosen_names = []
    for row in rows:
        name, colon, line = row.partition(":")
        name = name.strip()
        line = line.strip()
        script = line.split(" ")[0]
        check(
            bool(colon) and script.removesuffix(".py") in STAGES[1:],
            f'--recipe "{row}": write "NAME: grpo.py --flag value", as in "rl-none: grpo.py '
            '--normalize none"',
        )
        check(
            bool(re.fullmatch(r"[\w+-]+(\.[\w+-]+)*", name)),
            f"--recipe: a name is made of letters, digits, - and +, not {name!r}",
        )
        check(
            not re.fullmatch(r"base|(.*\.)?step\d+|-.*", name) and name not in chosen_names,
            f"--recipe {name}: give it another name; base, step1 and the like, names that begin "
            "with - and those of other rows mean something else",
        )
        chosen_names.append(name)
        check_recipe(name, line, preset)
        start = name.rpartition(".")[0] or "base"
        check(
            start == "base" or start in known,
            f"--recipe {name}: no recipe {start} to start from; there are {', '.join(known)}",
        )
        known[name] = (start, line)
        for ancestor in [*ancestors(known, name), name]:
            chosen[ancestor] = known[ancestor]
    question = f"What do {', '.join(row.partition(':')[0] for row in rows)} do?"
    return replace(base, question=question, recipes=chosen, figure="dots")


def check_recipe(name: str, line: str, preset: str) -> None:
    """Refuse, before work starts, what the command of a recipe would refuse in the middle of it."""
    try:
        script, *words = shlex.split(line)
    except ValueError as error:
        raise UserError(f"--recipe {name}: {error} in {line!r}; close the quotation") from None
    for word in words:
        flag = word.lstrip("-").partition("=")[0].replace("-", "_")
        taken = SET_BY_STUDY.get(flag) if word.startswith("--") else None
        check(not taken, f"--recipe {name}: {word} is set by the study; {taken}")
    config = config_of(f"--recipe {name}", script.removesuffix(".py"), words, preset)
    if hasattr(config, "check"):
        config.check()


def ancestors(recipes: Recipes, name: str) -> list[str]:
    """What a recipe is made from, the first one first; the base itself is left out."""
    found = []
    start = recipes[name][0]
    while start != "base":
        found.insert(0, start)
        start = recipes[start][0]
    return found


# ---------------------------------------------------------------------------------- reading


# What no cell can vary, since the study gives it to each command.
SET_BY_STUDY = {
    "ckpt": "the cell decides the checkpoint: name it by --on, as in --on 2.4M.rl",
    "out": "the study names what a command writes; its own folder is --out",
    "seed": "say how many seeds by --seeds; each is a study of its own",
    "preset": "the preset is that of the whole study: --preset",
    "keep": "the study names the checkpoints that are kept",
    "again": "delete the study's folder to make it again, or give another --out",
}


def changes_of(text: str) -> list[Change]:
    """ "grpo.lr=1e-4,2e-4" -> [("grpo", "lr", "1e-4"), ("grpo", "lr", "2e-4")]."""
    name, equals, values = text.partition("=")
    stage, dot, flag = name.partition(".")
    check(
        bool(equals and dot and values),
        f"--vary {text}: write STAGE.FLAG=VALUE,VALUE, as in grpo.normalize=std,none",
    )
    check(stage in STAGES, f"--vary {text}: no stage {stage!r}; there are {', '.join(STAGES)}")
    flag = flag.lstrip("-").replace("-", "_")
    check(flag not in SET_BY_STUDY, f"--vary {text}: {SET_BY_STUDY.get(flag)}")
    config = importlib.import_module(stage).Config
    flags = [name for name in fields_of(config) if name not in SET_BY_STUDY]
    if flag not in flags:
        near = difflib.get_close_matches(flag, flags, 1)
        meant = f", did you mean {near[0]}?" if near else ";"
        raise UserError(f"--vary {text}: {stage}.py has no flag {flag}{meant} {', '.join(flags)}")
    return [(stage, flag, value) for value in values.split(",")]


def default_cell(base: Experiment, preset: str, choices: list[list[Change]]) -> str:
    """The last checkpoint's shortest recipe that has all stages which change."""
    stem = CHECKPOINTS[preset].split(",")[-1]
    wanted = {changes[0][0] for changes in choices} - {"pretrain", "evaluate"}
    for name in sorted(base.recipes, key=lambda name: len(ancestors(base.recipes, name))):
        if wanted <= stages_of(base.recipes, name):
            return f"{stem}.{name}"
    raise UserError(f"no recipe has all of {', '.join(sorted(wanted))}; say --on which cell")


def stages_of(recipes: Recipes, name: str) -> set[str]:
    stages = set()
    for recipe in [*ancestors(recipes, name), name]:
        stages.add(stage_of(recipes[recipe][1]))
    return stages


def stage_of(line: str) -> str:
    return line.split(" ")[0].removesuffix(".py")


def cell_of(base: Experiment, preset: str, name: str) -> tuple[str, str]:
    """ "3.6M.sft.rl" -> ("3.6M", "sft.rl"); a checkpoint alone has the recipe ""."""
    stems = dict.fromkeys([*CHECKPOINTS[preset].split(","), *stems_of(base, preset)])
    for stem in stems:
        recipe = name.removeprefix(stem + ".")
        if name == stem:
            return stem, ""
        if recipe != name and recipe in base.recipes:
            return stem, recipe
    there = f"checkpoints {', '.join(stems)}, recipes {', '.join(base.recipes)}"
    raise UserError(f"--on {name}: no such cell; write CHECKPOINT.RECIPE, of {there}")


# ---------------------------------------------------------------------------------- one variant


class Variant:
    """A cell with some flags changed: the recipes that make it, and its checkpoint.

    .stem, .recipes and .pretrain are what an Experiment holds; .name is the cell's, .recipe the
    last part of it ("base" for a checkpoint alone).
    """

    def __init__(
        self, base: Experiment, preset: str, stem: str, recipe: str, changes: tuple[Change, ...]
    ):
        self.preset = preset
        self.changes = changes
        self.stem = stem
        self.recipes: Recipes = {}
        self.pretrain: dict[str, str] = {}
        line = base.pretrain.get(stem, f"pretrain.py --preset {preset} --keep {stem}")
        changed, suffix = self.changed(line)
        if suffix:
            self.stem = stem + suffix
            self.pretrain[self.stem] = changed
        elif stem in base.pretrain:
            self.pretrain[stem] = line
        start = "base"
        used = {"pretrain", "evaluate"}  # the stages that make and judge the cell
        if recipe:
            used |= stages_of(base.recipes, recipe)
            for name in [*ancestors(base.recipes, recipe), recipe]:
                start = self.add(base.recipes, name, start)
        for stage, flag, value in changes:
            check(
                stage in used,
                f"--vary {stage}.{flag}={value}: {stage}.py is no part of {stem}.{recipe}, which "
                f"is made by {', '.join(sorted(used))}",
            )
        self.recipe = start
        changed, suffix = self.changed("evaluate.py")
        if suffix:
            self.recipe = f"{start}{suffix}" if start != "base" else suffix.lstrip("-")
            self.recipes[self.recipe] = (start, changed)
        self.name = self.stem if self.recipe == "base" else f"{self.stem}.{self.recipe}"

    def add(self, recipes: Recipes, name: str, start: str) -> str:
        """Take over a recipe with its changes, made from `start` -> its name here."""
        before, line = recipes[name]
        own = name.removeprefix(f"{before}.")
        changed, suffix = self.changed(line)
        here = own + suffix
        if start != "base":
            here = f"{start}.{here}"
        self.recipes[here] = (start, changed)
        return here

    def changed(self, line: str) -> tuple[str, str]:
        """A command with those changes that are its stage's and change anything -> (it, suffix)."""
        suffix = ""
        for stage, flag, value in self.changes:
            if stage != stage_of(line):
                continue
            longer = f"{line} {as_flag(stage, flag, value)}"
            if self.value(line, stage, flag) != self.value(longer, stage, flag):
                line = longer
                suffix += f"-{flag}-{re.sub(r'[^A-Za-z0-9_+.-]', '_', value)}"
        return line, suffix

    def value(self, line: str, stage: str, flag: str):
        """What a flag is in a command: its own value, or the preset's."""
        words = shlex.split(line)[1:]
        return getattr(config_of(f"--vary {stage}.{flag}", stage, words, self.preset), flag)


def config_of(where: str, stage: str, words: list[str], preset: str):
    """The resolved Config of a command. Raises UserError that begins with `where`."""
    from study.plan import read_config  # needs torch

    try:
        with contextlib.redirect_stdout(io.StringIO()), quiet_exit():
            return read_config(stage, words, preset)[0]
    except SystemExit as error:
        message = str(error).removeprefix("excursions.py: ")
        raise UserError(f"{where}: {message}") from None


@contextlib.contextmanager
def quiet_exit():
    """What a parser prints on stderr as it ends is in its exception, too."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def as_flag(stage: str, flag: str, value: str) -> str:
    """ "--lr 1e-4", or for what is on or off "--recompute_old" and "--no-recompute_old"."""
    kind = field_type(fields_of(importlib.import_module(stage).Config)[flag])
    if kind is not bool:
        return f"--{flag} {value}"
    words = {"true": f"--{flag}", "false": f"--no-{flag}"}
    check(
        value.lower() in words, f"--vary {stage}.{flag}={value}: it is on or off; give true, false"
    )
    return words[value.lower()]
