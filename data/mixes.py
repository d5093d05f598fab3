"""What a corpus is made of: the paper's two mixes as a table, or local files; how to fetch them.

data/prepare.py turns these files into tokens. Sources and budgets are all there is to change for
another mix.
"""

import functools
import glob
import hashlib
import os
import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from data import UserError
from data.files import OF_THE_DISK, file_error


class Source(NamedTuple):
    name: str
    repo: str  # data set on the hub; "" for local files
    pattern: str  # of its files, in any case; a * also crosses folders
    tokens: float = 0  # budget in dolma2 tokens; 0 takes all


class File(NamedTuple):
    path: str
    size: int  # bytes
    repo: str = ""
    revision: str = ""


# Sources and tokens are those of the authors' configurations; folders are the hub's, as public
# scripts read them. Two things are inferred: which files of a source the authors took (here the
# first in an order of our own), and where their last 10B are to be found as text. They took token
# shards from OLMo 3 7B's list; its text is -1025. In -1125 each source stands twice, QwQ nowhere.
DOLMINO = "allenai/dolmino-mix-1124"
DOLMA3 = "allenai/dolma3_dolmino_mix-100B-1025"
MIX_A = [  # 51.5B; each source's share of it
    Source("dclm", DOLMINO, "data/dclm/*", 24.31e9),  # 47.2 %; the hub has 752B
    Source("flan", DOLMINO, "data/flan/*", 8.54e9),  # 16.6 %; the hub has 17B
    Source("wiki", DOLMINO, "data/wiki/*", 3.66e9),  # 7.1 %
    Source("pes2o", DOLMINO, "data/pes2o/*", 3.01e9),  # 5.8 %; the hub has 58.6B
    Source("stackexchange", DOLMINO, "data/stackexchange/*", 1.26e9),  # 2.4 %
    # Mathematics, 20.8 %: all of data/math but codesearchnet-owmfilter, which the authors left out,
    # and GSM8K's test set.
    Source("tinygsm-mind", DOLMINO, "data/math/tinyGSM-MIND/*"),  # 6.47B
    Source("mathcoder2", DOLMINO, "data/math/mathcoder2-synthmath/*"),  # 3.87B
    Source("tulu-math", DOLMINO, "data/math/tulu_math/*"),  # 0.23B
    Source("metamath", DOLMINO, "data/math/metamath-owmfilter/*"),  # 0.08B
    Source("dolmino-synth", DOLMINO, "data/math/dolmino_math_synth/*"),  # 0.03B
    Source("gsm8k", DOLMINO, "data/math/gsm8k/*/train/*"),  # 0.003B
]
MIX_B = [  # 10.7B of mathematics; each source's share of it
    Source("cranemath", DOLMA3, "data/cranemath/*", 5.62e9),  # 52 %
    Source("qwq", DOLMA3, "data/qwq-reasoning-traces/*", 1.87e9),  # 17 %
    Source("megamatt", DOLMA3, "data/megamatt/*", 1.73e9),  # 16 %
    Source("tinymath-mind", DOLMA3, "data/tinymath-mind/*", 0.898e9),  # 8 %
    Source("math-meta-reasoning", DOLMA3, "data/math-meta-reasoning/*", 0.381e9),  # 4 %
    Source("tinymath-pot", DOLMA3, "data/tinymath-pot/*", 0.241e9),  # 2 %
]
MIXES = {"dolmino-50B": MIX_A, "dolmino-60B": MIX_A + MIX_B}


# --- local files ----------------------------------------------------------------------------------


def file_kind(path: str) -> str:
    """The kind of a text file, ".txt", ".jsonl" or ".json"; a UserError for any other."""
    kind = Path(path.removesuffix(".gz").removesuffix(".zst")).suffix
    if kind not in (".txt", ".jsonl", ".json"):
        raise UserError(
            f"{path} is not a .txt, .jsonl or .json file, nor one with .gz or .zst after that"
        )
    return kind


def local_files(source: str) -> list[tuple[Source, list[File]]]:
    """'a.jsonl,b/*.txt.gz' -> a source for each part, with its files."""
    found = []
    for part in source.split(","):
        paths = [part] if os.path.isfile(part) else sorted(glob.glob(part, recursive=True))
        paths = list(filter(os.path.isfile, paths))  # a glob finds folders, too
        if not paths:
            raise FileNotFoundError(
                f"{part} is missing: neither a file nor one of toy, {', '.join(MIXES)}"
            )
        files = []
        for path in paths:
            file_kind(path)  # raises for what is no text
            files.append(File(path, os.path.getsize(path)))
        found.append((Source(part, "", part), files))
    return found


# --- the hub --------------------------------------------------------------------------------------

HUB_WAITS = (1, 4, 16, 64)  # seconds between attempts to reach the hub


def hub_files(mix: list[Source]) -> list[tuple[Source, list[File]]]:
    """Each source with its files, in an order that depends on their names alone.

    A budget takes the first of them.
    """
    listed = {}  # repo -> its files
    for source in mix:
        if source.repo not in listed:
            listed[source.repo] = list_repo(source.repo)
    found = []
    for source in mix:
        files = []
        for file in listed[source.repo]:
            if fnmatchcase(file.path.lower(), source.pattern.lower()):
                files.append(file)
        if not files:
            there = ", ".join(neighbours(source, listed[source.repo]))
            raise UserError(
                f"{source.repo} has no {source.pattern}, but {there}; "
                "correct the table in data/mixes.py"
            )
        found.append((source, sorted(files, key=place_of_file)))
    return found


def list_repo(repo: str) -> list[File]:
    """All files of a data set on the hub, at its present revision."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # before the import; workers inherit
    from huggingface_hub import HfApi, RepoFile

    def ask_revision() -> str:
        return HfApi().dataset_info(repo).sha

    def ask_tree() -> list:
        entries = HfApi().list_repo_tree(
            repo, recursive=True, revision=revision, repo_type="dataset"
        )
        return list(entries)

    revision = from_hub(repo, ask_revision)
    files = []
    for entry in from_hub(repo, ask_tree):
        if isinstance(entry, RepoFile):
            files.append(File(entry.path, entry.size, repo, revision))
    return files


def place_of_file(file: File) -> bytes:
    return hashlib.blake2b(file.path.encode(), key=b"corpus").digest()


def neighbours(source: Source, files: list[File]) -> list[str]:
    """The folders and files that stand where the source's pattern looks, for a message."""
    parent = os.path.dirname(source.pattern.split("/*")[0])
    n_parts = parent.count("/") + 2  # of a path that ends just below the parent
    there = set()
    for file in files:
        if file.path.startswith(parent):
            there.add("/".join(file.path.split("/")[:n_parts]))
    return sorted(there)


def download(file: File, folder: Path) -> str:
    """Fetch one file of the hub -> its path on this machine."""
    from huggingface_hub import hf_hub_download

    fetch = functools.partial(
        hf_hub_download,
        file.repo,
        file.path,
        repo_type="dataset",
        revision=file.revision,
        local_dir=folder / file.repo,
    )
    return from_hub(f"{file.repo}/{file.path}", fetch)


def from_hub(what: str, ask: Callable):
    """ask(), and again after growing waits where the network fails."""
    from huggingface_hub.errors import RepositoryNotFoundError

    for seconds in (*HUB_WAITS, 0):
        try:
            return ask()
        except RepositoryNotFoundError:
            raise UserError(
                f"{what} is not on the hub, or not public; correct the table in data/mixes.py"
            ) from None
        except Exception as error:
            if isinstance(error, OSError) and error.errno in OF_THE_DISK:  # a wait frees no room
                raise file_error("write", error.filename or what, error) from None
            # no network, a gateway's answer, half a file: the client has no common class for them
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        time.sleep(seconds)
    raise UserError(
        f"{what} cannot be fetched ({reason}); check the network and run the same command again"
    )
