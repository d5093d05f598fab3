"""Which training problems are easy for a checkpoint, and which are hard, as files of problems.

    python -m tools.difficulty --ckpt out/toy/3.6M.pt
    python grpo.py --ckpt out/toy/3.6M.pt --data out/toy/3.6M.hard.jsonl --n 64 --out out/hard.pt

The first command writes out/toy/3.6M.easy.jsonl, 3.6M.medium.jsonl and 3.6M.hard.jsonl.

Every training problem is sampled 64 times at temperature 1, without top_p, and graded, as in the
paper's appendix D. Of 64 samples a hard problem has at most 8 right ones, an easy one 16 or more.
(The authors' files were 0 to 2, 2 to 8, and 16 or more; the paper merges the first two.) Each row
carries its count, so any other cut can be made of it.

The counts are kept in <name>.difficulty.part.jsonl until all problems have one, so that the same
command continues after a kill. Only then are the three files written, each of them whole or not at
all, and last <name>.difficulty.json, which says what they were made from.
"""

import functools
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from data.files import read_json, write_aside, write_text
from data.grader import grade
from data.lock import exclusive
from data.problem import Problem, with_kind
from data.problems import load_problems, prompt_text
from data.sources import counted
from plumbing import checkpoint
from plumbing.batches import problem_keys
from plumbing.files import append_row, read_rows
from plumbing.flags import check, launch, leave
from plumbing.identity import begin, claim_together, content_of, listed
from plumbing.prepare import install_fast, make_sampler
from plumbing.ranks import autocast, barrier, merge_dicts, print0, rank, world
from plumbing.rollouts import text_of

BANDS = ("easy", "medium", "hard")
CHUNK = 8_192  # samples between two saves, over all ranks


@dataclass(frozen=True)
class Config:
    ckpt: str  # the checkpoint that tries the problems
    preset: str = "1B"  # scale; read from the checkpoint where not given
    data: str = "gsm8k"  # one problem set, or a jsonl: its training problems are sorted
    samples: int = 64  # of each problem, at temperature 1 and without top_p
    problems: int = 0  # take the first so many; 0 is all
    max_response: int = 1024  # new tokens
    kind: str = ""  # how answers are graded: gsm8k, math or ordered; default as the problems say
    rule: str = "ours"  # of the grader: ours (exact values), or the authors' (strings)
    seed: int = 0  # of the samples
    again: bool = False  # sort them even if the files are there
    # cost
    slots: int = 512  # samples decoded at a time, per rank
    kv_memory: float = 0.8  # share of a GPU's free memory for keys and values
    compile: bool = False  # fuse what surrounds attention: faster; takes a minute at the start
    plain: bool = False  # the plain program alone, without fast/: slower, same results


PRESETS = {
    "toy": dict(data="toy", max_response=52),
    "toy-large": dict(data="toy", max_response=52),
    "small": dict(data="toy", max_response=128, slots=2048),
    "1B": dict(compile=True),
    "1B-60B": dict(data="math", compile=True),
    "4B": dict(data="math", compile=True),
}


def band(right: int, n: int) -> str:
    """The band by the share of right samples: band(8, 64) == "hard", band(16, 64) == "easy"."""
    if 64 * right <= 8 * n:
        return "hard"
    if 64 * right >= 16 * n:
        return "easy"
    return "medium"


def count_right(
    sampler, encoding, problems: list[Problem], keys: list[int], config: Config
) -> list[int]:
    """How many samples of each problem are right. Every rank takes its share; all get all counts.

    keys: they key the samples of each problem (problem_keys), whatever chunk it is in.
    """
    mine = range(rank(), len(problems), world())
    groups = []
    if len(mine) > 0:
        prompts = [encoding.encode_ordinary(prompt_text(problems[i])) for i in mine]
        with autocast():
            groups = sampler.sample(
                prompts,
                config.samples,
                config.max_response,
                temperature=1.0,
                eos=encoding.eot_token,
                seed=config.seed,
                problem_ids=[keys[i] for i in mine],
            )
    counts = {}
    for i, rollouts in zip(mine, groups):
        counts[i] = 0
        for rollout in rollouts:
            text = text_of(rollout, encoding)
            counts[i] += grade(text, problems[i].answer, problems[i].kind, config.rule)
    everywhere = merge_dicts(counts)
    return [everywhere[i] for i in range(len(problems))]


# ---------------------------------------------------------------------------------- files


def band_files(config: Config) -> dict[str, str]:
    """Band -> the path of its problems."""
    return {name: f"{checkpoint.stem(config.ckpt)}.{name}.jsonl" for name in BANDS}


def about_file(config: Config) -> str:
    """It is written last, and says what the others were made from."""
    return f"{checkpoint.stem(config.ckpt)}.difficulty.json"


def part_file(config: Config) -> str:
    """The counts so far."""
    return f"{checkpoint.stem(config.ckpt)}.difficulty.part.jsonl"


def key_of(config: Config, facts: dict) -> dict:
    """What decides the counts: the weights, the problems, and how they are asked."""
    names = ("data", "samples", "problems", "max_response", "kind", "rule", "seed")
    key = {"id": facts["id"], "weights": facts.get("weights")}
    key |= {name: getattr(config, name) for name in names}
    content = content_of(config.data)
    return key | {"content of data": content} if content else key


def files_are_there(config: Config, key: dict) -> bool:
    """Whether the files are there, which is said. UserError where other flags made them."""
    paths = band_files(config)
    about = about_file(config)
    if config.again or not all(map(os.path.exists, [about, *paths.values()])):
        return False
    made_from = read_about(about)
    changes = []
    for name, value in key.items():
        if made_from.get(name) != value:
            changes.append(f"{name} was {made_from.get(name)} and is now {value}")
    check(
        not changes,
        f"{paths['easy']} and its like exist and differ ({listed(changes)}); "
        f"delete {about} to make them again, or give --again",
    )
    if rank() == 0 and os.path.exists(part_file(config)):
        os.remove(part_file(config))  # a kill after the files were written has left it
    print0(f"{', '.join(paths.values())} are there already; nothing to do (--again repeats it)")
    return True


def read_about(path: str) -> dict:
    """What the files were made from. Raises UserError where that is damaged."""
    advice = "delete it, or give --again"
    made_from = read_json(Path(path), advice, advice).get("key")
    check(isinstance(made_from, dict), f"{path} is damaged; {advice}")
    return made_from


def counts_so_far(config: Config, key: dict) -> list[int]:
    """The counts that an earlier start of this command has saved; where none are, begin a file."""
    path = part_file(config)
    begin_again = "delete the file, and the same command begins again"
    rows = read_rows(path, mend=begin_again)
    barrier()  # every rank has read it
    counts = []
    if rows and rows[0] == key:
        for number, row in enumerate(rows[1:], 2):
            right = row.get("right")
            whole = isinstance(right, list) and all(isinstance(count, int) for count in right)
            check(whole, f"{path}, line {number} is damaged; {begin_again}")
            counts += right
    if counts:
        print0(f"going on after {len(counts):,} problems of {path}")
    elif rank() == 0:
        write_line(path, key)
    return counts


def write_line(path: str, value: dict) -> None:
    """One line of JSON, in a file that is whole or not there."""
    write_text(path, json.dumps(value) + "\n")


def write_band(file, name: str, problems: list[Problem], counts: list[int], n: int) -> None:
    """The rows of one band. Solutions are read one problem at a time: all of them may be 15 GB."""
    for problem, right in zip(problems, counts):
        if band(right, n) != name:
            continue
        row = {
            "id": problem.id,
            "question": problem.question,
            "answer": problem.answer,
            "solutions": list(problem.solutions),
            "source": problem.source,
            "kind": problem.kind,
            "level": problem.level,
            "right": right,
            "n": n,
        }
        file.write(json.dumps(row).encode() + b"\n")


def write_files(config: Config, key: dict, problems: list[Problem], counts: list[int]) -> None:
    """The three files, then what they were made from. The saved counts are removed."""
    sizes = dict.fromkeys(BANDS, 0)
    for right in counts:
        sizes[band(right, config.samples)] += 1
    messages = []
    for name, path in band_files(config).items():
        of_band = dict(name=name, problems=problems, counts=counts, n=config.samples)
        write_aside(path, functools.partial(write_band, **of_band))
        messages.append(f"wrote {path}: {sizes[name]:,} problems")
    write_line(about_file(config), {"key": key, "problems": sizes, "right": counts})
    os.remove(part_file(config))
    print(", ".join(messages))


# ---------------------------------------------------------------------------------- the run


@exclusive
def main(config: Config) -> None:
    one_set = "," not in config.data
    check(
        one_set,
        f"--data {config.data}: this takes the training problems of one set; "
        "give --data openmath-gsm8k, toy or a .jsonl file",
    )
    check(config.rule in ("ours", "authors"), f"--rule {config.rule}: choose ours or authors")
    with_kind([], config.kind)  # refuses a kind that is none
    model, facts = checkpoint.open_model(config)
    encoding = checkpoint.open_tokenizer(facts, model)
    claim_together(about_file(config))
    begin()
    key = key_of(config, facts)
    if files_are_there(config, key):
        return
    problems = with_kind(load_problems(config.data, "train"), config.kind)
    sampling = f"{config.samples} samples each, at temperature 1"
    print0(f"{counted(config.data, 'train', problems)}; {sampling}")
    if config.problems:
        problems = problems[: config.problems]
    longest = max(len(encoding.encode_ordinary(prompt_text(problem))) for problem in problems)
    what = "the longest prompt + --max_response"
    checkpoint.check_length(model, longest + config.max_response, what)
    install_fast(model, config)  # whole on every rank
    sampler = make_sampler(model, config.slots, config.kv_memory)
    keys = problem_keys(problems)
    counts = counts_so_far(config, key)
    chunk = max(1, CHUNK // config.samples)  # problems
    while len(counts) < len(problems):
        start = len(counts)
        end = start + chunk
        new = count_right(sampler, encoding, problems[start:end], keys[start:end], config)
        counts += new
        if rank() == 0:
            append_row(part_file(config), {"right": new})
        print0(f"{len(counts):,} of {len(problems):,} problems")
    if rank() == 0:
        write_files(config, key, problems, counts)
    barrier()


if __name__ == "__main__":
    if "--plan" in sys.argv:
        leave(
            "difficulty.py: --plan is for the stages; plan the same samples with "
            "python evaluate.py --ckpt ... --task DATA --split train --n 64 --k 1 --plan"
        )
    launch(main, Config, PRESETS)
