"""Which code made a result. Needs no torch."""

import functools
import hashlib
import subprocess
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]  # the project's folder


@functools.cache
def code_version() -> str:
    """The commit that runs; where files differ from it, a + and a hash of how they do.

    Without git, a hash of the project's Python files.
    """
    try:
        commit = git("rev-parse", "--short", "HEAD")
        changes = git("diff", "HEAD")
    except OSError:  # git is not installed
        commit = ""
        changes = ""
    if not commit:
        return f"source-{hash_of_sources()}"
    if changes:
        return f"{commit}+{hashlib.blake2b(changes.encode(), digest_size=3).hexdigest()}"
    return commit


def git(*args: str) -> str:
    done = subprocess.run(
        ["git", *args], cwd=HOME, capture_output=True, text=True, errors="replace"
    )
    return done.stdout.strip()


def hash_of_sources() -> str:
    digest = hashlib.blake2b(digest_size=4)
    for path in sorted([*HOME.glob("*.py"), *HOME.glob("[a-z]*/*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def other_code(facts: dict) -> str:
    """A remark where other code than this has made a result; "" where the code is the same."""
    before = facts.get("code")
    now = code_version()
    if before in (None, "", "unknown", now):
        return ""
    return f" (code {before} made it, this is {now}; --again makes it again)"
