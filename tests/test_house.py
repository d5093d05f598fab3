"""The house: what is read in an hour is short, lines are short and say one thing, imports go one way."""

import ast
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

from tests import density
from tests.density import ROOT

# A file imports only what stands on its own step or on an earlier one.
STEPS = [
    {"data", "model"},
    {"sampler"},
    {"plumbing"},
    {"pretrain", "sft", "grpo", "parallel", "evaluate"},
    {"study", "tools", "excursions", "convert"},
]
FAST_MAY_IMPORT = {"fast", "data", "model", "sampler", "plumbing"}
THE_CALL_OF_FAST = "plumbing.prepare"  # the one file that knows of fast/

# `--plan` of any script prints what the command would take, which study/plan.py knows. This is the
# one import against the direction: by name, when the flag is given, and in place of the run.
AGAINST_THE_DIRECTION = {("plumbing.flags", "study.plan")}


def module_name(path: Path) -> str:
    """data/toy.py -> "data.toy", data/__init__.py -> "data"."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@lru_cache
def modules() -> dict[str, Path]:
    return {module_name(path): path for path in density.code_files()}


def is_main_guard(node: ast.AST) -> bool:
    """`if __name__ == "__main__":` runs when the file is the program, never when it is imported."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def walk(node: ast.AST):
    """All nodes below, functions included, the main guard excluded."""
    for child in ast.iter_child_nodes(node):
        if not is_main_guard(child):
            yield child
            yield from walk(child)


def absolute(node: ast.ImportFrom, name: str, is_package: bool) -> str:
    """The module after `from`, also where it begins with dots; `name` is the importing module."""
    if not node.level:
        return node.module
    package = name.split(".") if is_package else name.split(".")[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


def names_imported(text: str, name: str = "", is_package: bool = False) -> list[str]:
    """Every module that a file's text may import, at the top, in a function, or by a string.

    Of `from data import UserError, toy` these are data.UserError and data.toy; what is no module is
    sorted out by `resolve`.
    """
    found = []
    for node in walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = absolute(node, name, is_package)
            found += [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
            "import_module",
            "__import__",
            "run_module",
        ):
            if node.args and isinstance(node.args[0], ast.Constant):
                found.append(node.args[0].value)
    return found


def resolve(name: str) -> str | None:
    """data.toy.verify -> data.toy, data.UserError -> data, numpy.random -> None."""
    while name and name not in modules():
        name = name.rpartition(".")[0]
    return name or None


@lru_cache
def imports() -> dict[str, set[str]]:
    """Module -> the modules of this project that it imports."""
    graph = {}
    for name, path in modules().items():
        text = path.read_text(encoding="utf-8")
        found = names_imported(text, name, path.name == "__init__.py")
        graph[name] = {resolve(other) for other in found} - {None, name}
    return graph


def room(name: str) -> str:
    return name.split(".")[0]


def step_of(name: str) -> int:
    for i, rooms in enumerate(STEPS):
        if room(name) in rooms:
            return i
    raise AssertionError(f"{name} has no place in the house; see STEPS")


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, the first one again at the end; or nothing."""
    finished = set()

    def search(name, way):
        if name in way:
            return [*way[way.index(name) :], name]
        if name in finished:
            return []
        for other in sorted(graph[name]):
            found = search(other, [*way, name])
            if found:
                return found
        finished.add(name)
        return []

    for name in sorted(graph):
        found = search(name, [])
        if found:
            return found
    return []


# --- how much there is to read --------------------------------------------------------------------


def test_the_hour_is_an_hour():
    lines = {name: density.measure([ROOT / name]).lines for name in density.HOUR}
    assert sum(lines.values()) <= density.HOUR_LINES, lines


def test_no_line_is_too_wide():
    wide = []
    for path in density.code_files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if len(line) > density.WIDTH:
                wide.append(f"{path.relative_to(ROOT)}:{number}")
    assert not wide


def test_lines_say_one_thing():
    total = density.measure(density.code_files())
    assert total.per_1000("comprehensions") <= density.COMPREHENSIONS, total
    assert total.per_1000("tuples") <= density.TUPLE_ASSIGNMENTS, total


def test_the_measures_count_what_they_say(tmp_path):
    file = tmp_path / "a.py"
    file.write_text(
        "a, b = 1, 2\n"
        "(a, b), c = [a, b], 3\n"
        "a, b = f()\n"  # the result of a call
        "c = 1, 2\n"
        "\n"
        "d = [x for x in a if (x for x in b)]\n"
        "e = {x: 1 for x in a} if a else {x for x in b}\n"
        "g = lambda x: x  " + "#" * 90 + "\n"
    )
    found = density.measure([file])
    assert (found.lines, found.non_blank, found.over_100, found.over_120) == (8, 7, 1, 0)
    assert found.counts == {"comprehensions": 4, "ternaries": 1, "tuples": 2, "lambdas": 1}
    assert found.per_1000("tuples") == pytest.approx(2000 / 7)


def test_the_measures_know_all_code_and_no_tests():
    names = set(modules())
    assert {"model", "data", "data.toy", "plumbing.flags", "fast", "study.plan"} <= names
    assert not [name for name in names if room(name) in ("tests", "results", "out")]


# --- who imports whom -----------------------------------------------------------------------------


def test_all_ways_to_import_are_seen():
    text = (
        "import a.b, c\n"
        "from d import e as f\n"
        "def g():\n    from h.i import j\n    importlib.import_module('fast.k')\n"
        "class L:\n    m = __import__('n')\n"
        "if __name__ == '__main__':\n    import o\n"
        "else:\n    pass\n"
    )
    assert names_imported(text) == ["a.b", "c", "d.e", "h.i.j", "fast.k", "n"]
    assert names_imported("from . import p\nfrom .q import r", "s.t") == ["s.p", "s.q.r"]
    assert names_imported("from . import p", "s", is_package=True) == ["s.p"]
    assert resolve("data.toy.verify") == "data.toy" and resolve("data.UserError") == "data"
    assert resolve("numpy.random") is None
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_only_one_place_knows_of_fast():
    users = {name for name, found in imports().items() if "fast" in map(room, found)}
    assert {name for name in users if room(name) != "fast"} == {THE_CALL_OF_FAST}
    text = modules()[THE_CALL_OF_FAST].read_text(encoding="utf-8")
    calls = [name for name in names_imported(text) if room(name) == "fast"]
    assert calls == ["fast"]  # once


def test_imports_go_one_way():
    wrong = []
    for name, found in imports().items():
        for other in sorted(found):
            if room(name) == "fast":
                fine = room(other) in FAST_MAY_IMPORT
            elif room(other) == "fast":
                continue  # the test above
            else:
                fine = step_of(other) <= step_of(name) or (name, other) in AGAINST_THE_DIRECTION
            if not fine:
                wrong.append(f"{name} imports {other}")
    assert not wrong


def test_no_file_imports_itself_by_way_of_others():
    graph = {}
    for name, found in imports().items():
        graph[name] = {other for other in found if (name, other) not in AGAINST_THE_DIRECTION}
    assert not circle(graph)


IMPORT_ALL = """
import argparse, importlib, multiprocessing, subprocess, sys, threading
import numpy, torch

def refuse(*args, **more):
    raise AssertionError("an import parses flags, or starts a process")

argparse.ArgumentParser.parse_known_args = refuse
subprocess.Popen.__init__ = refuse
multiprocessing.Process.start = refuse
threads = threading.active_count()
names = sys.argv[1].split(",")
sys.argv = ["a-script", "--no_such_flag"]
for name in names:
    importlib.import_module(name)
    assert not torch.distributed.is_initialized(), name
    assert not torch.cuda.is_initialized(), name
    assert threading.active_count() == threads, name
"""


def test_importing_any_file_does_nothing_else(tmp_path):
    """In one process for all: no flag is parsed, no process started, no GPU touched, no file made."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, ",".join(sorted(modules()))],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not done.stdout and not list(tmp_path.iterdir())
