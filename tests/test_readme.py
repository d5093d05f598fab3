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


def test_every_picture_is_there():
    assert not missing(re.findall(r"!\[[^]]*\]\(([^)]+)\)", README))
