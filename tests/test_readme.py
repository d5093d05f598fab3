"""The README's words about files and commands are true."""

import ast
import contextlib
import io
import os
import re

import pytest
from conftest import ROOT

from study.experiments import EXPERIMENTS
from study.listing import print_list

README = open(os.path.join(ROOT, "README.md")).read()
FINDINGS = open(os.path.join(ROOT, "docs", "findings.md")).read()


def missing(names):
    return [name for name in names if not os.path.exists(os.path.join(ROOT, name))]


def test_every_file_it_names_is_there():
    named = set(re.findall(r"`((?:\w+/)?\w+\.py)`", README))
    named |= set(re.findall(r"(?:python3?|torchrun[^`\n]*) (\w+\.py)", README))
    assert named and not missing(named)


def test_every_file_is_in_a_map():
    """The scripts in the README, the files of the rooms in docs/files.md."""
    scripts = [f for f in os.listdir(ROOT) if f.endswith((".py", ".sh"))]
    assert scripts and not [f for f in scripts if f"`{f}`" not in README]
    with open(os.path.join(ROOT, "docs", "files.md")) as f:
        files = f.read()
    there = []
    for room in ("data", "plumbing", "fast", "study", "tools"):
        for f in os.listdir(os.path.join(ROOT, room)):
            if f.endswith(".py") and f[0] != "_":
                there.append(f"{room}/{f}")
    named = set(re.findall(r"`(\w+/\w+\.py)`", files))
    assert len(there) > 80 and not [f for f in there if f"| `{f}` |" not in files]
    assert not missing(named)


def test_a_file_is_described_in_its_own_first_words():
    with open(os.path.join(ROOT, "docs", "files.md")) as f:
        rows = re.findall(r"^\| `(\w+/\w+\.py)` \| (.*?)\.? \|$", f.read(), flags=re.M)
    other = []
    for path, words in rows:
        with open(os.path.join(ROOT, path)) as f:
            first = ast.get_docstring(ast.parse(f.read())).split("\n\n")[0].replace("\n", " ")
        if not first.startswith(words):
            other.append(path)
    assert len(rows) > 80 and not other


def test_the_lines_of_the_lesson_are_counted():
    lesson = "model pretrain sft data/problems data/grader sampler grpo parallel evaluate".split()
    lines = sum(len(open(os.path.join(ROOT, f"{name}.py")).readlines()) for name in lesson)
    assert f"nine files, {lines:,} lines" in README


def test_every_picture_is_there():
    assert not missing(re.findall(r"!\[[^]]*\]\(([^)]+)\)", README))


def rows_of_experiments(text):
    """[(name, what, minutes, found)] of the table of experiments."""
    table = text.split("| NAME |")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.split("|")[1:5]] for line in table.split("\n")[2:]]


def listed_minutes():
    """What `--list` says: experiment -> minutes."""
    listed = io.StringIO()
    with contextlib.redirect_stdout(listed):
        print_list(2)
    minutes = {}
    for name in EXPERIMENTS:
        of_name = listed.getvalue().split(f"\n{name} ")[1].split("\n" + " " * 13)
        cells = " ".join(of_name[1:]).split("\n")[0]
        found = re.search(r"(\d+)\s+min\b", cells)
        minutes[name] = found[1] if found else ""
    return minutes


@pytest.mark.parametrize("text", [README, FINDINGS], ids=["README", "findings"])
def test_the_minutes_of_an_experiment_are_those_of_the_list(text):
    listed = listed_minutes()
    rows = rows_of_experiments(text)
    assert len(rows) > 10
    for name, _, minutes, _ in rows:
        assert listed[name.strip("`")] == minutes, name


def test_every_experiment_of_the_report_is_told():
    """All of them among the findings; in the README what is the paper's."""
    report = open(os.path.join(ROOT, "results", "toy", "report.md")).read()
    of_report = set(re.findall(r"^## (\w+)(?=: )", report, flags=re.M)) & EXPERIMENTS.keys()
    told = {name.strip("`") for name, *_ in rows_of_experiments(FINDINGS)}
    first = {name.strip("`") for name, *_ in rows_of_experiments(README)}
    of_the_paper = {name for name in of_report if name.startswith("figure")}
    of_the_paper |= {"core", "settings", "weight", "losses"}  # its future work, too
    assert of_report and not of_report - told
    assert of_the_paper and not of_the_paper - first


def test_how_long_all_experiments_take_together(capsys):
    print_list(2)
    hours = re.search(r"what they share run once: (\d+) hours", capsys.readouterr().out)[1]
    assert f"all together take {hours} hours" in README


@pytest.mark.parametrize("text", [README, FINDINGS], ids=["README", "findings"])
def test_numbers_without_a_rule_stand_in_the_section_of_the_report(text):
    report = open(os.path.join(ROOT, "results", "toy", "report.md")).read()
    for name, _, _, found in rows_of_experiments(text):
        name = name.strip("`")
        section = report.split(f"\n## {name}: ")[1].split("\n## ")[0]
        told = re.sub(r"[^ ]+ ?(\[[^]]*\])?<!--.*?-->", "", found)
        for number in re.findall(r"\d+\.\d+(?: \[.*?\])?|\b\d{2,}\b", told):
            assert number in section, (name, number)
