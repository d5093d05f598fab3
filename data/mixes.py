"""What a corpus is made of: the paper's two mixes as a table, or local files; their listing, and fetching them.

data/corpus.py turns these files into tokens. Sources and budgets are all there is to change for another mix.
"""

import functools
import glob
import hashlib
import os
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from data import UserError


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


# Sources and tokens are those of the authors' configurations; folders are the hub's, as public scripts read them.
# Inferred: which files of a source they took (here the first in an order of our own), and where their last 10B lie as
# text. They took token shards from OLMo 3 7B's list; its text is -1025. In -1125 each source stands twice, QwQ nowhere.
DOLMINO, DOLMA3 = "allenai/dolmino-mix-1124", "allenai/dolma3_dolmino_mix-100B-1025"
MIX_A = [  # 51.5B; each source's share of it
    Source("dclm", DOLMINO, "data/dclm/*", 24.31e9),  # 47.2 %; 752B are there
    Source("flan", DOLMINO, "data/flan/*", 8.54e9),  # 16.6 %; 17B are there
    Source("wiki", DOLMINO, "data/wiki/*", 3.66e9),  # 7.1 %
    Source("pes2o", DOLMINO, "data/pes2o/*", 3.01e9),  # 5.8 %; 58.6B are there
    Source("stackexchange", DOLMINO, "data/stackexchange/*", 1.26e9),  # 2.4 %
    # mathematics, 20.8 %: all of data/math but codesearchnet-owmfilter, which they left out, and GSM8K's test set
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
HUB_WAITS = (1, 4, 16, 64)  # seconds between attempts to reach the hub


def file_kind(path: str) -> str:
    kind = Path(path.removesuffix(".gz").removesuffix(".zst")).suffix
    if kind not in (".txt", ".jsonl", ".json"):
        raise UserError(f"{path} is not a .txt, .jsonl or .json file, nor one with .gz or .zst after that")
    return kind


def local_files(source: str) -> list[tuple[Source, list[File]]]:
    """'a.jsonl,b/*.txt.gz' -> a source for each part, with its files."""
    found = []
    for part in source.split(","):
        paths = [part] if os.path.isfile(part) else [path for path in sorted(glob.glob(part, recursive=True)) if os.path.isfile(path)]
        if not paths:
            raise FileNotFoundError(f"{part} is missing: neither a file nor one of toy, {', '.join(MIXES)}")
        found.append((Source(part, "", part), [File(path, os.path.getsize(path)) for path in paths if file_kind(path)]))
    return found


def hub_files(mix: list[Source]) -> list[tuple[Source, list[File]]]:
    """Each source with its files, in an order that depends on their names alone; a budget takes the first of them."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # before the import; workers inherit it
    from huggingface_hub import HfApi, RepoFile

    listed, found = {}, []
    for repo in dict.fromkeys(source.repo for source in mix):
        revision = from_hub(repo, lambda: HfApi().dataset_info(repo).sha)
        tree = from_hub(repo, lambda: list(HfApi().list_repo_tree(repo, recursive=True, revision=revision, repo_type="dataset")))
        listed[repo] = [File(entry.path, entry.size, repo, revision) for entry in tree if isinstance(entry, RepoFile)]
    for source in mix:
        files = [file for file in listed[source.repo] if fnmatchcase(file.path.lower(), source.pattern.lower())]
        if not files:
            parent = os.path.dirname(source.pattern.split("/*")[0])
            there = {"/".join(file.path.split("/")[: parent.count("/") + 2]) for file in listed[source.repo] if file.path.startswith(parent)}
            raise UserError(f"{source.repo} has no {source.pattern}, but {', '.join(sorted(there))}; correct the table in data/mixes.py")
        found.append((source, sorted(files, key=lambda file: hashlib.blake2b(file.path.encode(), key=b"corpus").digest())))
    return found


def download(file: File, folder: Path) -> str:
    from huggingface_hub import hf_hub_download

    fetch = functools.partial(hf_hub_download, file.repo, file.path, repo_type="dataset", revision=file.revision, local_dir=folder / file.repo)
    return from_hub(f"{file.repo}/{file.path}", fetch)


def from_hub(what: str, ask):
    """ask(), again after growing waits where the network fails."""
    from huggingface_hub.errors import RepositoryNotFoundError

    for seconds in (*HUB_WAITS, 0):
        try:
            return ask()
        except RepositoryNotFoundError:
            raise UserError(f"{what} is not on the hub, or not public; correct the table in data/mixes.py") from None
        except Exception as error:  # no network, a gateway's answer, half a file: the client has no common class for them
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        time.sleep(seconds)
    raise UserError(f"{what} cannot be fetched ({reason}); check the network and run the same command again")
