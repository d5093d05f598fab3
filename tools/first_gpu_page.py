"""The page of tools/first_gpu.py: what was found on a GPU, and which expectations held."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data.files import write_text

LAST_LINES = 25  # of a part that failed
SUMMARY = '{"what": '  # how the last line of a benchmark begins


@dataclass
class Expectation:
    """What is expected at 1B on one GPU. find(summary) -> the value, or None."""

    text: str
    part: str
    least: float
    unit: str  # a format of the value
    find: Callable[[dict], float | None]


def share_at_256(summary: dict) -> float | None:
    for row in summary["measured"]:
        if row["work"] == "same" and row["program"] == "ours, 256 slots":
            return row["roofline"]
    return None


def times_batching(summary: dict) -> float | None:
    times = summary["ratios"].get("mix", {}).get("generate_batch", {})
    return times.get("ours")


def pretraining_mfu(summary: dict) -> float | None:
    found = [row["mfu"] for row in summary["measured"] if is_our_pretraining(row)]
    return max(found, default=None)


def is_our_pretraining(row: dict) -> bool:
    return row["step"] == "pretrain" and row["program"] in ("ours", "ours, compiled")


EXPECTATIONS = [
    Expectation(
        "the sampler reaches 60 % of the bandwidth limit at 256 slots (work `same`)",
        "sample",
        0.6,
        "{:.0%}",
        share_at_256,
    ),
    Expectation(
        "it is 5 x as fast as transformers' continuous batching (work `mix`)",
        "peers",
        5.0,
        "{:.1f} x",
        times_batching,
    ),
    Expectation("pre-training reaches 50 % MFU", "train", 0.5, "{:.0%}", pretraining_mfu),
]


def write_page(path: Path, parts: list, about: dict) -> None:
    """parts: tools/first_gpu.py's, those that have not run yet as well."""
    lines = ["# First GPU", "", f"{about['where']}; code {about['code']}", ""]
    lines += ["```", about["command"], "```", ""]
    lines += versions_of(parts)
    lines += ["| part | outcome | seconds | limit |", "|---|---|---|---|"]
    for part in parts:
        lines.append(f"| {part.name} | {part.outcome} | {part.seconds:.0f} | {part.limit:.0f} |")
    lines += ["", "## What held", "", "| expected at 1B | measured | |", "|---|---|---|"]
    for part in parts:
        if part.name == "tests":
            lines.append(
                f"| all tests marked gpu pass | {result_of_tests(part)} | {held(part.ok)} |"
            )
    for expectation in EXPECTATIONS:
        lines.append(line_of(expectation, parts, about["preset"]))
    for part in parts:
        lines += section_of(part)
    write_text(path, "\n".join(lines) + "\n")


def held(is_so: bool) -> str:
    return "held" if is_so else "**did not hold**"


def versions_of(parts: list) -> list[str]:
    for part in parts:
        if part.summary is not None:
            known = part.summary["versions"]
            names = [f"{name} {known[name]}" for name in known if known[name]]
            return [f"Versions: {', '.join(names)}. Date: {part.summary['date']}.", ""]
    return []


def result_of_tests(part) -> str:
    """pytest's last line, without its signs."""
    lines = part.said.strip().splitlines()
    return lines[-1].strip("= ") if lines else "nothing"


def line_of(expectation: Expectation, parts: list, preset: str) -> str:
    value = None
    for part in parts:
        if part.name == expectation.part and part.summary is not None:
            value = expectation.find(part.summary)
    if value is None:
        return f"| {expectation.text} | not measured | |"
    verdict = held(value >= expectation.least)
    if preset != "1B":
        verdict = f"not judged: this is {preset}"
    return f"| {expectation.text} | {expectation.unit.format(value)} | {verdict} |"


def section_of(part) -> list[str]:
    """The command of a part and what it printed: all of it, or the last lines where it failed."""
    if part.outcome == "not run":
        return []
    lines = []
    for line in part.said.strip().splitlines():
        if not line.startswith(SUMMARY):  # its table says the same, for people
            lines.append(line)
    if part.ok and part.name != "tests":
        kept = lines
    else:
        kept = lines[-LAST_LINES:]
    command = shlex.join(["python", *part.command[1:]])
    return ["", f"## {part.name}: {part.outcome}", "", "```", f"$ {command}", *kept, "```"]
