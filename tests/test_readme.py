"""The README's words about files and commands are true."""

import os
import re

from conftest import ROOT

README = open(os.path.join(ROOT, "README.md")).read()


def missing(names):
    return [name for name in names if not os.path.exists(os.path.join(ROOT, name))]


def test_every_file_it_names_is_there():
    named = set(re.findall(r"`((?:\w+/)?\w+\.py)`", README))
    named |= set(re.findall(r"(?:python3?|torchrun[^`\n]*) (\w+\.py)", README))
    assert named and not missing(named)


def test_every_script_and_module_is_in_the_file_map():
    files = [f for f in os.listdir(ROOT) if f.endswith((".py", ".sh"))]
    for f in os.listdir(os.path.join(ROOT, "data")):
        if f.endswith(".py") and f[0] != "_":
            files.append(f"data/{f}")
    assert not [f for f in files if f"`{f}`" not in README]


def test_every_picture_is_there():
    assert not missing(re.findall(r"!\[[^]]*\]\(([^)]+)\)", README))
