"""Model repositories on the Hugging Face hub: what they hold, and their files on this disk."""

import glob
import math
import re
from contextlib import contextmanager
from pathlib import Path

from data import UserError
from data.files import ADVICE, file_error
from plumbing.hf_weights import INDEX, SINGLE, read_index
from plumbing.units import count


@contextmanager
def hub_errors(repo: str, revision: str = ""):
    """The hub's many exceptions as one line each."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except RevisionNotFoundError:
        raise UserError(
            f"{repo} has no revision {revision}; `python convert.py list {repo}` prints them"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{repo} is neither a directory here nor a public repository on the hub; "
            "check the spelling"
        ) from None
    except OSError as error:
        if error.errno not in ADVICE:  # those of the network
            raise no_answer(repo, error) from None
        raise file_error("write", error.filename or "the hub's files", error) from error
    except Exception as error:  # no network, offline mode, a gateway's answer: no common class
        raise no_answer(repo, error) from None


def no_answer(repo: str, error: Exception) -> UserError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(
        f"{repo} is not a directory here, and the hub does not answer ({reason}); "
        "check the network or give a directory"
    )


def revision_facts(name: str) -> dict:
    """'stage1-step10000-tokens21B' -> {stage: 1, step: 10000, tokens: 21000000000}.

    What a name does not tell is absent. Stage 2 counts its own tokens from 0. Whoever named the
    revisions rounded their tokens up to a whole billion.
    """
    facts = {}
    for key in ("stage", "ingredient", "step"):
        found = re.search(rf"{key}(\d+)", name, re.IGNORECASE)
        if found:
            facts[key] = int(found[1])
    found = re.search(r"tokens?(\d+(?:\.\d+)?[KMBT])", name, re.IGNORECASE)
    if found:
        facts["tokens"] = count(found[1])
    return facts


def training_order(name: str) -> list[float]:
    """A key that sorts the names of revisions; those that tell nothing come last."""
    facts = revision_facts(name)
    return [facts.get(key, math.inf) for key in ("stage", "ingredient", "step", "tokens")]


def list_revisions(repo: str) -> None:
    """Print every branch and tag of a repository, with the step and the tokens in its name."""
    from huggingface_hub import HfApi

    with hub_errors(repo):
        refs = HfApi().list_repo_refs(repo)
    names = sorted(ref.name for ref in [*refs.branches, *refs.tags])
    names.sort(key=training_order)
    width = max(map(len, [*names, "revision"]))
    print(f"{'revision':<{width}}  {'step':>9}  {'tokens':>9}")
    for name in names:
        facts = revision_facts(name)
        tokens = f"{facts['tokens'] / 1e9:,.0f}B" if "tokens" in facts else "-"
        print(f"{name:<{width}}  {facts.get('step', '-'):>9}  {tokens:>9}")


def fetch(repo: str, revision: str, patterns: list[str]) -> Path:
    """Download the files of these patterns -> their folder. The hub's client keeps them there."""
    from huggingface_hub import snapshot_download

    with hub_errors(repo, revision):
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=patterns))


def fetch_weights(repo: str, commit: str) -> Path:
    """Download the files that hold the model, as hf_weights picks them, and no others."""
    folder = fetch(repo, commit, [SINGLE])
    if (folder / SINGLE).exists():
        return folder
    folder = fetch(repo, commit, [INDEX])
    if not (folder / INDEX).exists():
        return fetch(repo, commit, ["model-*-of-*.safetensors"])
    names = sorted(set(read_index(folder / INDEX).values()))
    return fetch(repo, commit, [glob.escape(name) for name in names])
