"""What evaluate.py checks before it starts, and what its rows hold."""

import os
from dataclasses import dataclass

from data.benchmarks import BENCHMARKS
from data.grader import extract, grade
from data.problems import NAMES, with_kind
from data.sources import counted
from plumbing.files import append_row, read_rows
from plumbing.flags import check
from plumbing.likelihood import is_likelihood
from plumbing.prepare import ComputeFlags
from plumbing.ranks import barrier, print0, rank


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(ComputeFlags):
    benchmarks: str = ""  # folder of <benchmark>.jsonl files with the hub's rows; default the hub
    show: int = 0  # print so many samples with their verdicts
    again: bool = False  # evaluate even if the row is there
    # cost only
    slots: int = 512  # samples decoded at a time, per rank
    kv_memory: float = 0.8  # share of a GPU's free memory for keys and values while sampling
    progress: bool = True  # a progress bar


def tasks_of(config) -> list[str]:
    """The names in --task; one has another name in the harness."""
    names = {"lambada_openai": "lambada"}
    return [names.get(task, task) for task in config.task.split(",")]


def ks(config) -> list[int]:
    """The k of pass@k."""
    return [int(k) for k in config.k.split(",")]


def check_config(config, tasks: list[str]) -> None:
    names = f"{', '.join(NAMES)}, a .jsonl file, general, or of its benchmarks"
    for task in tasks:
        named = is_likelihood(task) or task in NAMES
        known = named or task.endswith(".jsonl") or os.path.exists(task)
        check(known, f"unknown task {task!r}; choose {names} {', '.join(BENCHMARKS)}")
    with_kind([], config.kind)  # refuses a kind that is none
    check(config.rule in ("ours", "authors"), f"--rule {config.rule}: choose ours or authors")
    check(config.style in ("ours", "authors"), f"--style {config.style}: choose ours or authors")
    check(
        config.temperature >= 0 and 0 < config.top_p <= 1,
        f"--temperature {config.temperature} --top_p {config.top_p}: at least 0, "
        "and above 0 up to 1",
    )
    possible = [part.isdigit() and 1 <= int(part) <= config.n for part in config.k.split(",")]
    if not all(map(is_likelihood, tasks)):
        check(all(possible), f"--k {config.k}: numbers from 1 to --n {config.n}, joined by commas")


def row_key(config, task: str, facts: dict) -> dict:
    """What makes two evaluations the same one."""
    fields = ["problems"]
    if not is_likelihood(task):
        fields += ["split", "shots", "style", "examples", "n", "k", "temperature", "top_p"]
        fields += ["max_response", "kind", "rule", "seed"]
    return {"id": facts["id"], "task": task} | {name: getattr(config, name) for name in fields}


def first_problems(problems: list, task: str, config) -> list:
    """The problems that are evaluated, after a line that says how many the set has."""
    first = f"; the first {config.problems:,} are evaluated" if config.problems else ""
    print0(counted(task, config.split, problems) + first)
    return problems[: config.problems or len(problems)]


def show_sample(asked: str, text: str, problem, config) -> None:
    """Print a prompt and a response with the verdict on it."""
    found = extract(text, problem.kind)
    right = grade(text, problem.answer, problem.kind, config.rule)
    verdict = "right" if right else "wrong"
    print(f"\n{asked}{text}\n[extracted {found}, answer {problem.answer}: {verdict}]")


def complete(task: str, result: dict, rows: list[dict], config) -> dict:
    """The result of a problem set, from each problem's row of counts; it is printed in a line."""

    def total(name: str) -> int:
        return sum(row[name] for row in rows)

    samples = len(rows) * config.n
    fields = ("id", "level", "n", "c", "verified")
    result = result | {
        "distinct": total("distinct") / len(rows),  # different right responses per problem
        "format": total("boxed") / samples,  # share of samples with an answer in a box
        "truncated": total("truncated") / samples,
        "length": total("tokens") / samples,  # tokens
        "problems": [[row[field] for field in fields] for row in rows],
    }
    parts = []
    for k in ks(config):
        value = 100 * result[f"pass@{k}"]
        low, high = result[f"ci@{k}"]
        parts.append(f"pass@{k} {value:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
    shares = f"boxed {result['format']:.2f}, cut {result['truncated']:.2f}"
    print0(f"{task}: {'  '.join(parts)}  ({len(rows)} problems x {config.n}; {shares})")
    return result


def is_done(config, task: str, facts: dict) -> bool:
    """Whether the file of results has this row already, which is said; --again evaluates anyway."""
    key = row_key(config, task, facts)
    done = any(key.items() <= row["key"].items() for row in read_rows(results_file(config)))
    if done and not config.again:
        there = f"{name_of(config)} is in {results_file(config)} already"
        print0(f"{task}: {there}; nothing to do (--again repeats it)")
        return True
    return False


def write(config, task: str, facts: dict, result: dict, seconds: float) -> None:
    """Add the row of one task, with all facts of the checkpoint."""
    if rank() == 0:
        fields = ("id", "base_id", "recipe", "tokens", "preset", "seed", "code")
        row = {"name": name_of(config), "task": task}
        row |= {field: facts[field] for field in fields}
        row |= {"setting": facts["config"].get("setting"), "key": row_key(config, task, facts)}
        row |= result | {"facts": facts, "seconds": round(seconds, 1)}
        append_row(results_file(config), row)
    barrier()


def results_file(config) -> str:
    return config.out or os.path.join(os.path.dirname(config.ckpt), "results.jsonl")


def name_of(config) -> str:
    return os.path.basename(config.ckpt).removesuffix(".pt")
