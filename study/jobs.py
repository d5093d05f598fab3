"""An experiment as commands: its recipes at every checkpoint, for every seed. Needs no torch."""

import os
import shlex
import sys
from dataclasses import dataclass

from plumbing.presets import CHECKPOINTS
from study.experiment import Experiment, at_scale, filled, stems_of
from study.experiments import CORE
from study.recipes import WRITTEN
from study.runner import Job

# Base checkpoints are evaluated with worked examples, except in the toy world, whose rows are too
# short for any. The authors asked their 4B base without examples, too.
EVALUATE_BASE = {"1B": "evaluate.py --shots 8", "1B-60B": "evaluate.py --shots 8"}


@dataclass(frozen=True)
class Study:
    """What all commands of a study have in common."""

    preset: str
    setting: str
    seeds: int
    out: str  # the folder of seed 0
    nproc: int = 1  # processes per command
    pretrain: bool = True  # False: the checkpoints are there
    plain: bool = False
    quick: bool = False  # a few steps of everything
    data: str = ""  # problems to train on; default the preset's
    task: str = ""  # what is evaluated; default the preset's
    checkpoints: str = ""  # a folder of checkpoints that are the M_t; default pre-trained here

    def folder(self, seed: int) -> str:
        return self.out if seed == 0 else f"{self.out}-seed{seed}"


# With --quick: as few tokens, steps and samples as show that a command works.
QUICK = {
    "pretrain.py": "--tokens 60K --keep 30K,60K --warmup 10K",
    "sft.py": "--steps 2",
    "grpo.py": "--steps 1 --prompts 2 --n 4",
    "parallel.py": "--steps 1 --prompts 2 --n 4",
    "evaluate.py": "--problems 10 --n 8 --k 1,8",
}
QUICK_STEMS = ["30K", "60K"]


def all_jobs(study: Study, experiment: Experiment, stems: list[str]) -> list[Job]:
    """The commands of all seeds, every pre-training first."""
    experiment = at_scale(experiment, study.preset)
    first = []
    others = []
    for seed in range(study.seeds):
        of_seed = JobsOfSeed(study, experiment, seed)
        first += of_seed.pretrainings(stems)
        for stem in stems:
            others += of_seed.at_checkpoint(stem, stems)
    return first + others


def stems_for(study: Study, experiment: Experiment) -> list[str]:
    """The names of the checkpoints that the recipes start from."""
    if study.quick and study.pretrain:
        return QUICK_STEMS
    return stems_of(experiment, study.preset)


class JobsOfSeed:
    """An experiment's commands with the values of one seed."""

    def __init__(self, study: Study, experiment: Experiment, seed: int):
        self.study = study
        self.experiment = experiment
        self.seed = seed
        self.folder = study.folder(seed)

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name + ".pt")

    def command(self, line: str, before: list[str], after: list[str] = ()) -> list[str]:
        """The script, flags `before` and `after` those of the line, and what all commands have."""
        start = [sys.executable]
        if self.study.nproc > 1:
            start = ["torchrun", "--standalone", f"--nproc_per_node={self.study.nproc}"]
        script, *words = shlex.split(line)
        words = [script, *before, *words, *after]
        if self.study.quick:
            words += shlex.split(QUICK[script])
        if "--seed" not in words:
            words += ["--seed", str(self.seed)]
        if self.study.plain:
            words.append("--plain")
        return start + words

    # ------------------------------------------------------------------------------ pre-training

    def pretrainings(self, stems: list[str]) -> list[Job]:
        if not self.study.pretrain:
            return []
        own = {}
        if self.experiment.preset == self.study.preset:
            own = self.experiment.pretrain
        jobs = []
        if set(stems) - set(own):
            jobs.append(self.shared_pretraining())
        made = set()  # a run may make several checkpoints
        for stem in stems:
            if stem in own:
                for job in self.own_pretraining(stem, own[stem]):
                    if job.makes not in made:
                        jobs.append(job)
                    made.add(job.makes)
        return jobs

    def shared_pretraining(self) -> Job:
        """One run that keeps all checkpoints of the preset."""
        stems = CHECKPOINTS[self.study.preset]
        flags = ["--preset", self.study.preset, "--out", self.folder]
        if self.study.quick:
            stems = ",".join(QUICK_STEMS)
        else:
            flags += ["--keep", stems]
        last = self.path(stems.split(",")[-1])
        command = self.command("pretrain.py", flags)
        return Job("pretrain", command, self.folder, "pretrain", makes=last)

    def own_pretraining(self, stem: str, line: str) -> list[Job]:
        """A run in a folder of its own, and its checkpoint under the name of the stem.

        Of several stems with one line, "wide-1.5M" is the checkpoint 1.5M of the run "wide". A stem
        without the name of a checkpoint is the last. A public checkpoint is converted instead.
        """
        words = shlex.split(line)
        if words[0] == "convert.py":
            command = [sys.executable, *words, "--out", self.path(stem)]
            return [Job(f"{stem} convert", command, self.folder, makes=self.path(stem))]
        names = words[words.index("--keep") + 1].split(",")
        run, _, kept = stem.rpartition("-")
        if kept not in names or len(names) == 1:
            run = stem
            kept = names[-1]
        folder = f"{self.folder}-{run}"
        command = self.command(line, [], ["--out", folder])
        last = os.path.join(folder, f"{names[-1]}.pt")
        train = Job(f"{run} pretrain", command, folder, "pretrain", makes=last)
        return [train, self.link(os.path.join(folder, f"{kept}.pt"), stem)]

    def link(self, path: str, name: str) -> Job:
        """The same checkpoint under another name."""
        target = os.path.relpath(path, self.folder)
        command = ["ln", "-sf", target, self.path(name)]
        return Job(f"{name} link", command, self.folder, makes=self.path(name), needs=[path])

    # ------------------------------------------------------------------------------ recipes

    def at_checkpoint(self, stem: str, stems: list[str]) -> list[Job]:
        """Every recipe from this checkpoint, then the evaluations.

        Evaluations are short: at the end they fill the gaps that the long commands leave.
        """
        trained = []
        evaluations = [self.evaluation(stem, self.base(stem), self.evaluate_base())]
        if self.experiment.split:
            trained.append(self.difficulty(stem))
        for recipe, (start, line) in self.experiment.recipes.items():
            line = filled(line, self.study.preset, folder=self.folder, stem=stem)
            if recipe == WRITTEN and stem != stems[0]:
                continue
            name = f"{stem}.{recipe}"
            parent = self.base(stem) if start == "base" else self.path(f"{stem}.{start}")
            if line.startswith("evaluate.py"):
                trained.append(self.link(parent, name))
                evaluations.append(self.evaluation(name, self.path(name), line))
            else:
                trained.append(self.training(name, recipe, parent, line))
                evaluations.append(self.evaluation(name, self.path(name), "evaluate.py"))
                evaluations += self.copies(recipe, self.path(name))
                if self.experiment.distance:
                    evaluations.append(self.distance(name, stem))
        return trained + evaluations

    def base(self, stem: str) -> str:
        """The path of the checkpoint itself."""
        if self.study.checkpoints:
            return os.path.join(self.study.checkpoints, stem + ".pt")
        return self.path(stem)

    def training(self, name: str, recipe: str, parent: str, line: str) -> Job:
        out = self.path(name)
        flags = ["--ckpt", parent]
        if "--setting" not in line:
            flags += ["--setting", self.study.setting]
        if self.study.data and "--data" not in line:
            flags += ["--data", self.study.data]
        needs = [parent]
        if self.experiment.split:
            needs += [
                os.path.join(self.folder, f"{name.removesuffix('.' + recipe)}.difficulty.json")
            ]
        after = []
        if recipe in self.experiment.copies:
            after += ["--keep", self.kept(recipe)]
        if recipe not in CORE or recipe == WRITTEN or self.study.checkpoints:
            after += ["--out", out]  # the others are called so by themselves
        command = self.command(line, flags, after)
        return Job(name, command, self.folder, recipe, makes=out, needs=needs)

    def kept(self, recipe: str) -> str:
        """The steps after which a recipe keeps copies, "50,100"."""
        if self.study.quick:
            return "1"
        return self.experiment.copies[recipe]

    def copies(self, recipe: str, made: str) -> list[Job]:
        """The evaluations of a recipe's copies."""
        if recipe not in self.experiment.copies:
            return []
        jobs = []
        for step in self.kept(recipe).split(","):
            copy = made.removesuffix(".pt") + f".step{step}"
            name = os.path.basename(copy)
            jobs.append(self.evaluation(name, copy + ".pt", "evaluate.py"))
        return jobs

    def difficulty(self, stem: str) -> Job:
        """The training problems by how often the base solves them."""
        base = self.base(stem)
        made = os.path.join(self.folder, f"{stem}.difficulty.json")
        command = [sys.executable, "-m", "tools.difficulty", "--ckpt", base]
        return Job(f"{stem} difficulty", command, self.folder, makes=made, needs=[base])

    def distance(self, name: str, stem: str) -> Job:
        """How far a cell has moved from its base."""
        ckpt = self.path(name)
        base = self.base(stem)
        command = [sys.executable, "-m", "tools.distance", "--ckpt", ckpt, "--base", base]
        return Job(f"{name} distance", command, self.folder, "distance", needs=[ckpt, base])

    def evaluate_base(self) -> str:
        return EVALUATE_BASE.get(self.study.preset, "evaluate.py")

    def evaluation(self, name: str, ckpt: str, line: str) -> Job:
        flags = ["--ckpt", ckpt, "--setting", self.study.setting]
        if self.study.task and "--task" not in line:
            flags += ["--task", self.study.task]
        if self.study.checkpoints:
            flags += ["--out", os.path.join(self.folder, "results.jsonl")]
        more = self.experiment.evaluate
        flags += shlex.split(more)
        what = f"{name} evaluation"
        if more:  # a cell that two experiments ask in their own ways
            what += f" of {task_in(more)}"
        return Job(
            what,
            self.command(line, flags),
            self.folder,
            "evaluation",
            needs=[ckpt],
            checkpoint=name,
            preset=self.study.preset,
        )


def task_in(flags: str) -> str:
    """ "--task toy-hard,general --n 8" -> "toy-hard,general"."""
    words = flags.split()
    return words[words.index("--task") + 1] if "--task" in words else "itself"
