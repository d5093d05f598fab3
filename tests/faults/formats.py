"""Every format that a command reads: the file that is damaged, and the commands that read it.

{world} is the folder of small.make_world, {folder} is the trial's own. A fixture is made once for
each format, with sound files; each trial copies it.
"""

import os
import shutil
import signal
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.faults import children, compare, operations, small
from tests.faults.judge import Shape
from tests.faults.stages import COMMANDS, PRETRAIN, SFT

PROBLEM_FLAGS = "--max_prompt 80 --max_response 8"
SHORT_SFT = f"--steps 2 --batch 4 {PROBLEM_FLAGS}"
SHORT_RL = f"--steps 1 --prompts 2 --n 2 --mini_batches 1 {PROBLEM_FLAGS}"
ASKED = "--n 2 --k 1,2 --max_response 4 --out {folder}/results.jsonl"

ROW = frozenset({"id", "solutions", "source", "kind", "level", "type", "problem_source"})
PROBLEM = Shape(optional=ROW, loose=True)
ITEM = Shape(optional=frozenset({"id"}), loose=True)
NULLABLE = frozenset({"parent", "parent_id", "base_id", "corpus", "tokens", "commit"})
FACTS = Shape(nullable=NULLABLE, free=frozenset({("facts", "config")}))
STATE = Shape(nullable=NULLABLE, free=frozenset({("config",)}))


@dataclass(frozen=True)
class Format:
    """A file of one format."""

    file: str  # that is damaged, below the trial's folder
    commands: tuple[str, ...]  # one of them is drawn
    setup: tuple[str, ...]  # of the fixture: `copy NAME` of the world, `run` or `stop` a command
    kind: str  # torch, json, jsonl, safetensors, tokenizer, python or bytes
    shape: Shape = field(default_factory=Shape)
    sealed: bool = False  # it is of our making and has checksums: no damage is another valid file
    appended: bool = False  # rows are appended to it; a kill may tear the last
    beside: tuple[str, ...] = ()  # what is made beside the result and may differ
    names: tuple[str, ...] = ()  # besides the file's own: one of them stands in a refusing line

    def target(self, folder: Path) -> Path:
        found = sorted(folder.glob(self.file))
        if not found:
            raise children.Broken(f"tests.faults: {self.file} is not in {folder}")
        return found[0]


def on_problems(file: str) -> tuple[str, ...]:
    """Commands that read problems, {folder}/<file>, and learn or are judged by them."""
    data = f"--data {{folder}}/{file}"
    ckpt = "--ckpt {world}/base.pt"
    return (
        f"sft.py {ckpt} --out {{folder}}/a.pt {data} {SHORT_SFT}",
        f"sft.py {ckpt} --out {{folder}}/a.pt {data} --solutions all {SHORT_SFT}",
        f"grpo.py {ckpt} --out {{folder}}/a.pt {data} {SHORT_RL}",
        f"evaluate.py {ckpt} --task {{folder}}/{file} {ASKED}",
    )


def problems(name: str) -> Format:
    file = f"{name}.jsonl"
    return Format(file, on_problems(file), (f"copy {file}",), "jsonl", PROBLEM)


def benchmark(name: str) -> Format:
    file = f"benchmarks/{name}.jsonl"
    command = (
        "evaluate.py --ckpt {world}/base.pt --out {folder}/results.jsonl "
        f"--task {name} --benchmarks {{folder}}/benchmarks"
    )
    return Format(file, (command,), ("copy benchmarks",), "jsonl", ITEM)


STATE_OF_SFT = f"sft.py --ckpt {{world}}/base.pt --out {{folder}}/a.pt {SFT}"
STATE_OF_RL = COMMANDS["rl-options"]
CORPUS_RUN = PRETRAIN + " --out {folder}/run --keep 2K --data {world}/texts/*.jsonl --tokenizer toy"
TOY_RUN = PRETRAIN + " --out {folder}/run --keep 2K"
EVALUATE = f"evaluate.py --ckpt {{world}}/base.pt --task {{world}}/problems.jsonl {ASKED}"
SORT = COMMANDS["difficulty"]
STUDY = COMMANDS["excursions"]
REPORT = "-m study.figures {folder}/study"
FROM_HF = "convert.py from-hf {folder}/hf --out {folder}/from.pt"
FROM_SHARDS = "convert.py from-hf {folder}/shards --out {folder}/from.pt"
PIECES = "corpus/files-*/pieces"

FORMATS = {
    "checkpoint": Format(
        "base.pt",
        (
            f"sft.py --ckpt {{folder}}/base.pt --data {{world}}/problems.jsonl {SHORT_SFT}",
            f"grpo.py --ckpt {{folder}}/base.pt --data {{world}}/problems.jsonl {SHORT_RL}",
            f"evaluate.py --ckpt {{folder}}/base.pt --task {{world}}/problems.jsonl {ASKED}",
            "convert.py to-hf {folder}/base.pt {folder}/hf",
            "model.py {folder}/base.pt",
        ),
        ("copy base.pt",),
        "torch",
        FACTS,
        sealed=True,
    ),
    "finished": Format(
        "a.pt", (STATE_OF_SFT,), ("run " + STATE_OF_SFT,), "torch", FACTS, sealed=True
    ),
    "state": Format(
        "a.resume/state.pt",
        (STATE_OF_SFT,),
        ("stop " + STATE_OF_SFT,),
        "torch",
        STATE,
        sealed=True,
        names=(".resume",),
    ),
    "state-rl": Format(
        "a.rl.resume/state.pt",
        (STATE_OF_RL,),
        ("stop " + STATE_OF_RL,),
        "torch",
        STATE,
        sealed=True,
        names=(".resume",),
    ),
    "log": Format(
        "a.log.jsonl", (STATE_OF_SFT,), ("stop " + STATE_OF_SFT,), "jsonl", appended=True
    ),
    "rollouts": Format(
        "a.rl.rollouts.jsonl", (STATE_OF_RL,), ("stop " + STATE_OF_RL,), "jsonl", appended=True
    ),
    "hf-config": Format(
        "hf/config.json",
        (FROM_HF,),
        ("copy hf",),
        "json",
        Shape(optional=frozenset({"num_key_value_heads", "rope_theta", "rope_parameters"})),
    ),
    "hf-weights": Format("hf/model.safetensors", (FROM_HF,), ("copy hf",), "safetensors"),
    "hf-shard": Format(
        "shards/model-00001-of-00002.safetensors", (FROM_SHARDS,), ("copy shards",), "safetensors"
    ),
    "hf-index": Format(
        "shards/model.safetensors.index.json",
        (FROM_SHARDS,),
        ("copy shards",),
        "json",
        Shape(tables=True),
        names=("shards",),
    ),
    "tokenizer": Format(
        "hf/tokenizer.json",
        (
            FROM_HF,
            TOY_RUN.replace("--preset toy", "--preset toy --tokenizer {folder}/hf/tokenizer.json")
            + " --data {world}/texts/*.jsonl",
        ),
        ("copy hf",),
        "tokenizer",
        Shape(tables=True),
        beside=("corpus",),  # its folder is named by the tokenizer's bytes
    ),
    "manifest": Format(
        "corpus/files-*/manifest.json",
        (CORPUS_RUN, "data/corpus.py {world}/texts/*.jsonl --tokenizer toy --out {folder}/corpus"),
        ("run " + COMMANDS["corpus"],),
        "json",
        sealed=True,
        names=("corpus/files-",),
    ),
    "piece": Format(
        f"{PIECES}/00-00001-0000.bin",
        (CORPUS_RUN,),
        ("run " + COMMANDS["corpus"],),
        "bytes",
        sealed=True,
        names=("corpus/files-",),
    ),
    "piece-facts": Format(
        f"{PIECES}/00-00000-0000.json",
        (COMMANDS["corpus"],),
        ("stop " + COMMANDS["corpus"],),
        "json",
        sealed=True,
        names=("corpus/files-",),
    ),
    "toy-rows": Format("run/corpus/*.npy", (TOY_RUN,), ("stop " + TOY_RUN,), "bytes", sealed=True),
    "texts": Format(
        "texts/1.jsonl",
        (
            "data/corpus.py {folder}/texts/1.jsonl --tokenizer toy --out {folder}/corpus --workers 1",
        ),
        ("copy texts",),
        "jsonl",
    ),
    "problems": problems("problems"),
    "gsm8k": problems("gsm8k"),
    "math": problems("math"),
    "openmath": problems("openmath"),
    **{
        name: benchmark(name) for name in ("piqa", "arc_easy", "openbookqa", "hellaswag", "lambada")
    },
    "rows": Format(
        "results.jsonl", (EVALUATE,), ("run " + EVALUATE,), "jsonl", FACTS, appended=True
    ),
    "results": Format(
        "study/results.jsonl", (REPORT,), ("run " + STUDY,), "jsonl", FACTS, appended=True
    ),
    "rl-log": Format("study/1K.rl.log.jsonl", (REPORT,), ("run " + STUDY,), "jsonl", appended=True),
    "commands": Format(
        "study/commands.json", (STUDY,), ("run " + STUDY,), "json", Shape(tables=True)
    ),
    "difficulty": Format("base.difficulty.json", (SORT,), ("copy base.pt", "run " + SORT), "json"),
    "difficulty-part": Format(
        "base.difficulty.part.jsonl",
        (SORT,),
        ("copy base.pt", "stop " + SORT),
        "jsonl",
        appended=True,
    ),
    "reward": Format(
        "reward.py",
        (
            "grpo.py --ckpt {world}/base.pt --out {folder}/a.pt --data {world}/problems.jsonl "
            f"--reward {{folder}}/reward.py:score {SHORT_RL}",
        ),
        ("copy reward.py",),
        "python",
        names=("--reward",),
    ),
}


# What tells files with other bytes apart: of a damaged file it is another, and that is no result.
IDENTITY = ("content", "id", "base_id", "parent_id")
COPIES = ("tokenizer.json",)  # of what is damaged, which a command makes beside its result


@cache
def fixture(name: str, world: Path, scratch: Path) -> Path:
    """The folder of a format's sound files, made where trials have their folder, and moved away."""
    shared = [other for other in FORMATS if FORMATS[other].setup == FORMATS[name].setup]
    if shared[0] != name:
        return fixture(shared[0], world, scratch)
    folder = children.own_folder(scratch)
    folder.mkdir()
    for step in FORMATS[name].setup:
        act, _, rest = step.partition(" ")
        if act == "copy":
            copy(world / rest, folder / rest)
        elif act == "run":
            small.must(" ".join(argv_of(rest, folder, world)))
        else:
            stop_in_the_middle(argv_of(rest, folder, world), folder)
    kept = scratch / f"fixture-{name}-{os.getpid()}"
    folder.rename(kept)
    return kept


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def stop_in_the_middle(argv: list[str], folder: Path) -> None:
    """Run a command, and kill it when two thirds of what it does to files are done."""
    before = folder.with_suffix(".before")
    note = folder.with_suffix(".operations")
    shutil.copytree(folder, before)
    children.run(argv, before=lambda: operations.watch(str(folder), note=str(note)))
    place = len(note.read_text().splitlines()) * 2 // 3
    note.unlink()
    shutil.rmtree(folder)
    before.rename(folder)
    fault = operations.Fault("signal", place, signal.SIGKILL)
    children.run(argv, before=lambda: operations.watch(str(folder), fault))
    for path in folder.rglob("*.tmp"):
        path.unlink()


def argv_of(command: str, folder: Path, world: Path) -> list[str]:
    return [word.format(folder=folder, world=world) for word in command.split()]


@cache
def sound_result(name: str, command: str, world: Path, scratch: Path) -> tuple[dict, str]:
    """What the command makes of the sound file: (snapshot, standard output)."""
    sound = fixture(name, world, scratch)
    folder = children.own_folder(scratch)
    shutil.copytree(sound, folder)
    target = str(FORMATS[name].target(folder).relative_to(folder))
    outcome = children.run(argv_of(command, folder, world))
    if outcome.status != 0:
        raise children.Broken(f"tests.faults: {command} fails on sound files: {outcome.stderr}")
    without = (target, *COPIES, *FORMATS[name].beside)
    files = compare.snapshot(folder, without, but=IDENTITY)
    return files, outcome.stdout.replace(str(folder), ".")
