"""What an experiment is: a question, recipes, checkpoints, seeds. Needs no torch.

A recipe is a row: its name, the recipe that it starts from ("base" is the checkpoint itself), and
the command that makes it, without the flags that all commands have (study/jobs.py adds them). A
line of evaluate.py asks the same weights in another way. In a line, at the scale of a preset,

    [--steps 300]             is of the toy scale, and left out at others
    [1e-3|4e-5]               is the one at toy scale, the other elsewhere
    {4 passes}                are the steps of SFT that see every problem four times
    {lr of sft} {lr of rl}    are the preset's learning rates
    {hard sft} {hard rl}      are the flags of training on the hard family: toy-hard, or MATH
    {hard task} {task}        are what is evaluated: of the hard family, of the preset's own
    {folder} {stem}           are the seed's folder and the checkpoint's name
"""

import math
import re
from dataclasses import dataclass, field, replace

from plumbing.presets import CHECKPOINTS, RL, SFT, TASKS

Recipes = dict[str, tuple[str, str]]  # name -> (what it starts from, its command)


@dataclass(frozen=True)
class Experiment:
    question: str
    recipes: Recipes
    stems: str = "last"  # checkpoints: all, first or last of the preset's, or names with commas
    seeds: int = 1
    with_core: bool = False  # at toy scale it shares the folder of core, out/toy-study
    anywhere: bool = False  # it has a meaning at other scales, too
    evaluate: str = ""  # more flags for every evaluation
    pretrain: dict[str, str] = field(default_factory=dict)  # stem -> a pre-training of its own
    preset: str = "toy"  # the scale that `pretrain` belongs to
    copies: dict[str, str] = field(default_factory=dict)  # recipe -> steps whose copies are tested
    task: str = ""  # what its findings are about; default the study's
    split: bool = False  # also sort the training problems by difficulty (tools/difficulty.py)
    distance: bool = False  # also measure how far each recipe moved the model (tools/distance.py)
    against: str = ""  # what the others are compared with; default what each started from
    beside: dict[str, str] = field(default_factory=dict)  # the same for single recipes
    shape: str = ""  # the shape of problem that its dots are about, as "3,2"; default all
    figure: str = "dots"  # of study/figures.py


# Of the hard family: flags of SFT, flags of RL, tasks to evaluate (the paper's section 3.3, and
# for its 1B-50B runs 64 rollouts a problem).
TOY_HARD = ("--data toy-hard", "--data toy-hard", "toy-hard,general")
MATH = ("--data openmath --max_prompt 2560 --max_response 1024", "--data openmath", "math,general")
MATH_1B = (MATH[0], "--data openmath --samples 64", MATH[2])
HARD = {"toy": TOY_HARD, "toy-large": TOY_HARD, "small": TOY_HARD, "1B": MATH_1B}
# What sft.py and grpo.py take where a preset says nothing; about how many problems there are.
OF_SFT = dict(data="openmath-gsm8k", steps=9_500, batch=512, lr=4e-5)
OF_RL = dict(lr=1e-6)
N_PROBLEMS = {"toy": 600, "openmath-gsm8k": 80_000, "openmath": 600_000}
# Words that choose among checkpoints.
PLACES = {"all": slice(None), "first": slice(1), "second": slice(1, 2), "last": slice(-1, None)}


def is_toy(preset: str) -> bool:
    """Does it learn from the toy world?"""
    return preset in ("toy", "toy-large", "small")


def filled(line: str, preset: str, **names: str) -> str:
    """The line of a recipe as a command of this preset: see the top of this file."""

    def chosen(match: re.Match) -> str:
        of_toy, _, elsewhere = match[1].partition("|")
        return of_toy if is_toy(preset) else elsewhere

    line = re.sub(r"\[([^\]]*)\]", chosen, line)
    hard_sft, hard_rl, hard_task = HARD.get(preset, MATH)
    names |= {"hard sft": hard_sft, "hard rl": hard_rl, "hard task": hard_task}
    names["task"] = TASKS[preset].split(",")[0]
    names["lr of sft"] = in_powers((OF_SFT | SFT[preset])["lr"])
    names["lr of rl"] = in_powers((OF_RL | RL[preset])["lr"])
    line = PASSES.sub(lambda match: f"--steps {steps_of(int(match[1]), preset)}", line)
    for name, value in names.items():
        line = line.replace("{" + name + "}", value)
    return " ".join(line.split())


PASSES = re.compile(r"\{(\d+) passes\}")


def steps_of(passes: int, preset: str) -> int:
    """Steps of SFT on one solution that see every problem so many times."""
    flags = OF_SFT | SFT[preset]
    return math.ceil(passes * N_PROBLEMS[flags["data"]] / flags["batch"])


def passes_of(preset: str) -> int:
    """How many passes the recipe sft makes: 16 of toy, 61 of 1B."""
    flags = OF_SFT | SFT[preset]
    return round(flags["steps"] * flags["batch"] / N_PROBLEMS[flags["data"]])


def in_powers(rate: float) -> str:
    """in_powers(0.00025) == "2.5e-4"."""
    digits, _, power = f"{rate:e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def at_scale(experiment: Experiment, preset: str) -> Experiment:
    """Its commands as they are at this preset; {folder} and {stem} stay, jobs.py fills them.

    A recipe with as many passes as sft makes anyway is left out, and so are one whose command is
    that of an earlier one at this scale, and what starts from them.
    """
    recipes = {}
    for name, (start, line) in experiment.recipes.items():
        passes = PASSES.search(line)
        doubled = passes and int(passes[1]) == passes_of(preset)
        recipe = (start, filled(line, preset))
        if not doubled and recipe not in recipes.values() and (start == "base" or start in recipes):
            recipes[name] = recipe
    copies = {name: filled(steps, preset) for name, steps in experiment.copies.items()}
    evaluate = filled(experiment.evaluate, preset)
    return replace(experiment, recipes=recipes, copies=copies, evaluate=evaluate)


def stems_of(experiment: Experiment, preset: str) -> list[str]:
    """The checkpoints that it starts from.

    Words such as "last" choose among the preset's own. Names are of the experiment's preset; at
    another scale all checkpoints stand for them.
    """
    of_preset = CHECKPOINTS[preset].split(",")
    if experiment.pretrain and preset != experiment.preset:
        return of_preset
    return chosen_from(of_preset, experiment.stems)


def chosen_from(checkpoints: list[str], words: str) -> list[str]:
    """chosen_from(["2B", "4B", "44B"], "first,last") -> ["2B", "44B"]; other words are names."""
    chosen = []
    for word in words.split(","):
        chosen += checkpoints[PLACES[word]] if word in PLACES else [word]
    return list(dict.fromkeys(chosen))
