"""What evaluate.py checks before it starts, and what its rows hold."""

import os
import re
from dataclasses import dataclass

from data import UserError, lock
from data.benchmarks import BENCHMARKS
from data.grader import extract, grade
from data.problem import with_kind
from data.problems import NAMES
from data.sources import counted, is_named
from plumbing.files import append_row, read_rows
from plumbing.flags import check
from plumbing.identity import begin, claim_together, content_of, release_together
from plumbing.likelihood import is_likelihood
from plumbing.prepare import ComputeFlags
from plumbing.ranks import barrier, print0, rank
from plumbing.row_check import CHECK, checksum, what_is_wrong
from plumbing.units import is_whole
from plumbing.version import code_version, other_code


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(ComputeFlags):
    benchmarks: str = ""  # folder of <benchmark>.jsonl files with the hub's rows; default the hub
    show: int = 0  # print so many samples with their verdicts
    # cost
    slots: int = 512  # samples decoded at a time, per rank
    kv_memory: float = 0.8  # share of a GPU's free memory for keys and values while sampling
    progress: bool = True  # a progress bar

    def check(self) -> None:
        """Raise UserError for what cannot work."""
        check_config(self, tasks_of(self))


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
        named = is_likelihood(task) or is_named(task)
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
    possible = [is_whole(part) and 1 <= int(part) <= config.n for part in config.k.split(",")]
    if not all(map(is_likelihood, tasks)):
        check(all(possible), f"--k {config.k}: numbers from 1 to --n {config.n}, joined by commas")


KEY_OF_ALL = ("problems",)
KEY_OF_PROBLEMS = ("split", "shots", "style", "examples", "n", "k", "temperature", "top_p")
KEY_OF_PROBLEMS += ("max_response", "kind", "rule", "seed")


def row_key(config, task: str, facts: dict) -> dict:
    """What makes two evaluations the same one: the weights, and what is asked in which way."""
    return {"id": facts["id"], "weights": facts.get("weights")} | question_key(config, task)


def question_key(config, task: str) -> dict:
    """The part of the key that is the same for every checkpoint."""
    key = {"task": task} | {name: getattr(config, name) for name in KEY_OF_ALL}
    files = []
    if config.benchmarks:
        files = [os.path.join(config.benchmarks, f"{name}.jsonl") for name in BENCHMARKS]
    if not is_likelihood(task):
        key |= {name: getattr(config, name) for name in KEY_OF_PROBLEMS}
        files = [task, config.examples]
    contents = {}
    for path in files:
        content = content_of(path)
        if content:
            contents[path] = content
    if contents:
        key["content"] = contents  # of the files that are asked from
    return key


def first_problems(problems: list, task: str, config) -> list:
    """The problems that are evaluated, after a line that says how many the set has."""
    chosen = problems[: config.problems or len(problems)]
    fewer = len(chosen) < len(problems)
    first = f"; the first {len(chosen):,} are evaluated" if fewer else ""
    print0(counted(task, config.split, problems) + first)
    if config.temperature == 0 and config.n > 1:
        print0("note: at --temperature 0 all samples of a problem are the same; --n 1 is enough")
    return chosen


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
        "format": total("answered") / samples,  # share with an answer that the grader can find
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


def missing(config, tasks: list[str], facts: dict) -> list[str]:
    """The tasks whose rows are not there; of the others that is said. --again wants all."""
    begin()
    lock.check_file(results_file(config))
    if config.again:
        return tasks
    return [task for task in tasks if not is_done(config, task, facts)]


def to_do(config, tasks: list[str], facts: dict):
    """Yield each of the tasks while no other process works on it, unless one has done so before."""
    out = results_file(config)
    for task in tasks:
        claim_together(f"{out}.{name_of(config)}.{short_name(task)}", out)
        if config.again or not is_done(config, task, facts):
            yield task
        release_together(f"{out}.{name_of(config)}.{short_name(task)}")


def is_done(config, task: str, facts: dict) -> bool:
    """Whether the file of results has this very row, which is said.

    The row of the same weights under another name is copied: their counts would be the same.
    """
    key = row_key(config, task, facts)
    same = [row for row in read_results(results_file(config)) if row.get("key") == key]
    barrier()  # every rank has read it
    if not same:
        return False
    name = name_of(config)
    if name not in [row["name"] for row in same]:
        append(config, facts, same[-1], same[-1].get("facts", {}).get("evaluator"))
        print0(f"{task}: {name} has the weights of {same[-1]['name']}, whose row it gets")
        return True
    evaluator = {"code": same[0].get("facts", {}).get("evaluator")}
    again = other_code(evaluator) or " (--again repeats it)"
    print0(f"{task}: {name} is in {results_file(config)} already; nothing to do{again}")
    return True


def read_results(path: str) -> list[dict]:
    """The rows of a file of results. UserError where it is a file of something else."""
    rows = read_rows(path)
    for number, row in enumerate(rows, 1):
        wrong = what_is_wrong(row)
        if wrong and number == 1 and not {"name", "task"} <= row.keys():
            raise UserError(f"{path} holds no result rows ({wrong}); give another --out")
        advice = "delete that line and evaluate again"
        check(not wrong, f"{path}, row {number} is damaged ({wrong}); {advice}")
    return rows


def short_name(task: str) -> str:
    """A task's name as a part of a file's name."""
    return re.sub(r"[^\w.-]", "_", task)[-60:]


def write(config, task: str, facts: dict, result: dict, seconds: float) -> None:
    """Add the row of one task, with all facts of the checkpoint."""
    row = {"task": task, "key": row_key(config, task, facts)}
    append(config, facts, row | result | {"seconds": round(seconds, 1)}, code_version())


def append(config, facts: dict, row: dict, evaluator: str | None) -> None:
    """Add a row, which gets this checkpoint's name and facts."""
    if rank() == 0:
        fields = ("id", "base_id", "recipe", "tokens", "preset", "seed", "code")
        about = {"name": name_of(config)} | {field: facts[field] for field in fields}
        about["setting"] = facts["config"].get("setting")
        row = about | {name: value for name, value in row.items() if name not in about}
        row["facts"] = {**facts, "evaluator": evaluator}  # `code` is that of the training
        row["facts"][CHECK] = checksum(row)
        append_row(results_file(config), row)
    barrier()


def results_file(config) -> str:
    return config.out or os.path.join(os.path.dirname(config.ckpt), "results.jsonl")


def name_of(config) -> str:
    return os.path.basename(config.ckpt).removesuffix(".pt")
