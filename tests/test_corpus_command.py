"""data/corpus.py as a command, a mix from the hub, and pre-training on local files."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard
from conftest import ROOT, command, fake_hub, run
from corpus_files import GOOD, TEXT, jsonl, needs_files, tree, write_files

from data import corpus, mixes
from plumbing.files import read_rows

# --- the command --------------------------------------------------------------------------------------------------


def one_line(said, *parts):
    assert (
        "\n" not in said.strip()
        and said.startswith("corpus.py: ")
        and all(part in said for part in parts)
    ), said


def test_the_command_prepares_once_and_prints_a_table(tmp_path):
    source = write_files(tmp_path, 3)
    flags = [f"{source},{tmp_path / '0.jsonl'}", "--tokenizer", "toy", "--out", tmp_path / "out"]
    said = run("data/corpus.py", *flags, "--workers", "2")
    folder = Path(said.splitlines()[-1])
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert (
        re.search(r"\nall +4 +120 +[\d,]+ +100.00%\n", said) and folder.parent == tmp_path / "out"
    )
    assert (
        run("data/corpus.py", *flags) == said
        and (folder / "manifest.json").stat().st_mtime_ns == before
    )
    assert corpus.open_corpus(flags[0], str(tmp_path / "out" / ".." / "run"), "toy", 8, 0, 0)[
        [0]
    ].shape == (1, 8)  # pretrain.py looks there
    one_line(
        run("data/corpus.py", "dolmino-5B", ok=False),
        "dolmino-5B is missing",
        "toy, dolmino-50B, dolmino-60B",
    )
    one_line(run("data/corpus.py", ok=False), "source")
    one_line(
        run("data/corpus.py", source, "--tokenizer", "none", ok=False), "unknown tokenizer 'none'"
    )
    (tmp_path / "bad.jsonl").write_bytes(GOOD[:-2])
    one_line(
        run(
            "data/corpus.py",
            f"{source},{tmp_path / 'bad.jsonl'}",
            *flags[1:],
            "--workers",
            "2",
            ok=False,
        ),
        "bad.jsonl, line 45 is not JSON",
    )


def test_of_two_equal_commands_the_second_waits(tmp_path):
    source = write_files(tmp_path, 3)
    flags = [source, "--tokenizer", "toy", "--out", tmp_path / "out", "--workers", "1"]
    started = []
    for _ in range(2):
        asked = command("data/corpus.py", *flags)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(asked, cwd=ROOT, **pipes))
    said = [process.communicate(timeout=100)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    tables = ["\n".join(text.splitlines()[-3:]) for text in said]
    assert tables[0] == tables[1] and len(list((tmp_path / "out").iterdir())) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_control_c_is_one_line(tmp_path, workers):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "long.jsonl.zst").write_bytes(
        zstandard.compress(jsonl(["so many words"] * 10_000)) * 1000
    )
    flags = [
        f"{tmp_path}/a.txt,{tmp_path}/long.jsonl.zst",
        "--tokenizer",
        "toy",
        "--out",
        tmp_path / "out",
        "--workers",
        workers,
    ]
    heard = lambda: signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # commands that a shell starts in the background ignore it
    process = subprocess.Popen(
        command("data/corpus.py", *flags),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heard,
    )
    while process.poll() is None and not list(tmp_path.glob("out/*/pieces/*.json")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    one_line(process.communicate(timeout=60)[1], "interrupted; the same command goes on")
    assert process.returncode == 1


# --- the hub ------------------------------------------------------------------------------------------------------

HUB = """
import sys
from data import UserError, corpus, mixes
mixes.HUB_WAITS = (0.01,) * 4
mixes.MIXES["mix"] = [mixes.Source("web", "some/text", "data/web/*", 3000), mixes.Source("math", "some/text", "data/MATH/*/train/*")]
if "wrong" in sys.argv[1:]:
    mixes.MIXES["mix"].append(mixes.Source("code", "some/text", "data/code/*"))
try:
    corpus.main(["mix", "--tokenizer", "toy", "--workers", "1", "--out", sys.argv[1]])
except UserError as error:
    sys.exit(f"corpus.py: {error}")
"""


@pytest.fixture
def hub(tmp_path):
    """What the real hub answers to listing and downloading, for one data set; `failures` requests of a kind fail first."""
    sha, repo, seen, failures = "0" * 39 + "1", "some/text", [], {}
    (tmp_path / "files").mkdir()
    write_files(tmp_path / "files", 6)
    paths = [path for path in sorted((tmp_path / "files").iterdir())]
    files = {
        f"data/{'web' if i < 4 else f'math/b{i}/train'}/{path.name}": path.read_bytes()
        for i, path in enumerate(paths)
    }
    files |= {"data/math/b4/test/4.jsonl": GOOD, "README.md": b"text"}

    def answer(method, path):
        kind = next((kind for kind in ("tree", "resolve") if f"/{kind}/" in path), "info")
        name = path.split(f"{sha}/")[-1]
        seen.append((method, name))
        if failures.get(kind, 0) > 0:
            failures[kind] -= 1
            return (
                400,
                b"busy",
                {},
            )  # the client itself tries again after 5xx, for longer than a test may take
        if path == f"/api/datasets/{repo}":
            return 200, {"_id": "1", "id": repo, "sha": sha, "private": False, "siblings": []}, {}
        if path == f"/api/datasets/{repo}/tree/{sha}":
            folders = [{"type": "directory", "path": "data", "oid": "2", "size": 0}]
            return (
                200,
                folders
                + [
                    {"type": "file", "path": f, "oid": "2", "size": len(data)}
                    for f, data in files.items()
                ],
                {},
            )
        if path == f"/datasets/{repo}/resolve/{sha}/{name}":
            return (
                200,
                files[name],
                {
                    "ETag": f'"{hashlib.sha256(files[name]).hexdigest()}"',
                    "X-Repo-Commit": sha,
                    "Accept-Ranges": "bytes",
                },
            )
        return 404, b"{}", {"X-Error-Code": "RepoNotFound"}

    with fake_hub(answer, tmp_path / "cache") as env:

        def ask(*args, **more):
            options = {
                "cwd": ROOT,
                "env": {**os.environ, **env, **more},
                "capture_output": True,
                "text": True,
                "timeout": 300,
            }
            return subprocess.run([sys.executable, "-c", HUB, *map(str, args)], **options)

        yield ask, files, failures, seen


def test_a_mix_comes_from_the_hub_even_where_it_fails_twice(hub, tmp_path):
    ask, files, failures, seen = hub
    failures |= {"info": 2, "tree": 2, "resolve": 2}  # of each kind, the first two
    done = ask(tmp_path / "out")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    web, math = json.loads((folder / "manifest.json").read_text())["sources"]
    assert (
        failures == {"info": 0, "tree": 0, "resolve": 0}
        and web["revision"] == "0" * 39 + "1"
        and not (folder / "downloads").exists()
    )
    assert (
        web["tokens"] == 3000
        and math["documents"] == 60
        and sorted(math["files"]) == [f for f in sorted(files) if "train" in f]
    )
    order = sorted(
        (f for f in files if "web" in f),
        key=lambda f: hashlib.blake2b(f.encode(), key=b"corpus").digest(),
    )
    assert web["files"] == order[: len(web["files"])] and {
        f for command, f in seen if command == "GET" and "web" in f
    } == set(web["files"])
    n = len(seen)
    assert (
        ask(tmp_path / "out").stdout == done.stdout and len(seen) == n
    )  # a finished corpus asks nobody

    tree_before = tree(folder)
    (folder / "manifest.json").unlink()
    for path in folder.glob("pieces/01-*"):
        path.unlink()
    assert ask(tmp_path / "out").returncode == 0 and tree(folder) == tree_before
    assert not [
        f for command, f in seen[n:] if command == "GET" and "web" in f
    ]  # what is whole is not fetched again


def test_a_wrong_table_and_a_silent_hub_are_one_line(hub, tmp_path):
    ask, _, failures, _ = hub
    one_line(
        ask(tmp_path / "out", "wrong").stderr,
        "some/text has no data/code/*, but data/math, data/web; correct the table",
    )
    failures["resolve"] = 99
    one_line(ask(tmp_path / "out").stderr, "cannot be fetched", "run the same command again")
    one_line(
        ask(tmp_path / "out", HF_ENDPOINT="http://127.0.0.1:9").stderr,
        "some/text cannot be fetched",
        "check the network",
    )
    assert not list((tmp_path / "out").rglob("manifest.json"))


def test_the_mixes_are_the_papers():
    total = lambda mix: sum(source.tokens for source in mix) / 1e9
    assert total(mixes.MIX_A) == pytest.approx(51.47 - 10.69) and total(
        mixes.MIX_B
    ) == pytest.approx(10.74)
    assert all(len({source.name for source in mix}) == len(mix) for mix in mixes.MIXES.values())


# --- pre-training -------------------------------------------------------------------------------------------------


@needs_files
def test_pretraining_on_real_text_on_one_rank_and_on_two(tmp_path):
    flags = [
        "--data",
        ",".join(TEXT),
        "--tokenizer",
        "toy",
        "--seq_len",
        "64",
        "--batch",
        "8",
        "--tokens",
        "25600",
        "--keep",
        "25600",
        "--warmup",
        "2560",
    ]
    run("pretrain.py", "--out", tmp_path / "one", *flags)
    rows = read_rows(str(tmp_path / "one" / "pretrain.log.jsonl"))
    assert len(rows) == 50 and rows[-1]["loss"] < rows[0]["loss"] - 1
    run(
        "pretrain.py",
        "--out",
        tmp_path / "two",
        *flags,
        "--tokens",
        "512",
        "--keep",
        "512",
        ranks=2,
    )
    (row,) = read_rows(str(tmp_path / "two" / "pretrain.log.jsonl"))
    assert row["loss"] == pytest.approx(rows[0]["loss"], abs=1e-5)
    assert len(list((tmp_path / "corpus").iterdir())) == 1  # shared


def test_what_pretraining_cannot_read_is_one_line(tmp_path):
    (tmp_path / "bad.jsonl").write_bytes(GOOD + b'{"body": "x"}\n')
    flags = ["--out", tmp_path / "run", "--tokenizer", "toy", "--data"]
    said = run("pretrain.py", *flags, tmp_path / "bad.jsonl", ranks=2, ok=False)
    ours = said.partition("Traceback")[0]  # before torchrun's report, which says it again
    assert ours.count("pretrain.py: ") == 1 and 'bad.jsonl, line 46 has no field "text"' in ours
    assert (
        said.count("Traceback") == 1 and "Traceback" in said.partition("line 46")[2]
    )  # torchrun's own, in the end
    said = run("pretrain.py", *flags, "dolmino-60B", ok=False)
    assert (
        f"run: python data/corpus.py dolmino-60B --tokenizer toy --out {tmp_path / 'corpus'}"
        in said
        and not (tmp_path / "run").exists()
    )
