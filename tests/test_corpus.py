"""Text in, rows of tokens out: formats, pieces, budgets, kills, workers, a hub, and every way in which a file can be wrong."""

import gzip
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zstandard
from conftest import ROOT, command, fake_hub, run

import common
from data import UserError, corpus, mixes
from data.corpus import Corpus, File, Source, prepare
from data.tokenizer import get_tokenizer

SHARED = os.path.join(ROOT, "..", "shared", "data")
DOLMA2 = os.path.join(SHARED, "tokenizer", "allenai_dolma2.json")
TEXT = [os.path.join(SHARED, f"general_text_{name}") for name in ("18f_guides.jsonl.gz", "c4_demo.jsonl", "tinyshakespeare.txt")]
needs_files = pytest.mark.skipif(not all(map(os.path.exists, [*TEXT, DOLMA2])), reason="the text files are not at ../shared/data")
TOY = get_tokenizer("toy")
TEXTS = ["say hana has 11 cards .", "naïve 東京 🙂\r\n", "a <|endoftext|> in <|pad|> text", "", "x" * 300, *(f"{i} and {i * i}\n" * 5 for i in range(40))]


def tokens_of(texts, encoding=TOY):
    return [token for text in texts for token in [*encoding.encode_ordinary(text), encoding.eot_token]]


def jsonl(texts) -> bytes:
    return "".join(json.dumps({"id": i, "text": text, "meta": {"text": 1}}, ensure_ascii=i % 2) + "\n" for i, text in enumerate(texts)).encode()


def zipped(kind: str, data: bytes) -> bytes:
    """In two frames, as files grow that are written to twice."""
    squeeze = {".gz": gzip.compress, ".zst": zstandard.compress}.get(kind, bytes)
    return squeeze(data[: len(data) // 2]) + squeeze(data[len(data) // 2 :])


def write_files(folder: Path, n: int) -> str:
    """n files of all kinds -> the source that names them."""
    for i in range(n):
        kind = (".jsonl", ".jsonl.gz", ".json.zst")[i % 3]
        texts = [f"{i} {j} " + "word " * random.Random(f"{i} {j}").randrange(90) for j in range(30)]
        (folder / f"{i}{kind}").write_bytes(zipped(kind[-len(Path(kind).suffix) :], jsonl(texts)))
    return str(folder / "*.json*")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def stream(folder: Path) -> list[int]:
    return Corpus(folder, 1)[range(len(Corpus(folder, 1)))].ravel().tolist()


@pytest.mark.parametrize("kind", ["", ".gz", ".zst"])
def test_every_format_gives_the_tokens_of_direct_encoding(tmp_path, kind):
    files = {"a.txt": "\n".join(TEXTS).encode(), "b.jsonl": jsonl(TEXTS), "c.json": b"\n \n" + jsonl(TEXTS[:3]).rstrip(b"\n")}
    for name, data in files.items():
        (tmp_path / f"{name}{kind}").write_bytes(zipped(kind, data))
    prepare(",".join(str(tmp_path / f"{name}{kind}") for name in files), tmp_path / "out", "toy", piece_tokens=100)
    expected = tokens_of(["\n".join(TEXTS)]) + tokens_of(TEXTS) + tokens_of(TEXTS[:3])
    for seq_len in (1, 7, 64, 1000):
        rows = Corpus(tmp_path / "out", seq_len)
        n = len(expected) // seq_len
        assert len(rows) == n and rows[range(n)].dtype == np.uint32
        assert np.array_equal(rows[range(n)], np.reshape(expected[: n * seq_len], (n, seq_len)))
    assert np.array_equal(rows[[1, 0]], rows[[0, 1]][::-1])


@needs_files
def test_text_stays_text_in_dolma2_too(tmp_path):
    encoding = get_tokenizer(DOLMA2)
    for text in [*TEXTS, "half a \ud83d pair", "|||EMAIL_ADDRESS||| <|im_end|>"]:
        assert corpus.encode(text, encoding).tolist() == encoding.encode_ordinary(text)
    blanks = "x" + " " * 1_100_000 + "y"
    assert encoding.decode(corpus.encode(blanks, encoding).tolist()) == blanks


def test_the_manifest_tells_what_is_there(tmp_path):
    source = write_files(tmp_path, 4)
    manifest = prepare(f"{source},{tmp_path / '1.jsonl.gz'}", tmp_path / "out", "toy", piece_tokens=500)
    assert (manifest["tokenizer"], manifest["n_vocab"], manifest["documents"]) == ("toy", TOY.n_vocab, 150)
    assert [len(row["files"]) for row in manifest["sources"]] == [4, 1] and not (tmp_path / "out" / "downloads").exists()
    assert manifest["tokens"] == len(stream(tmp_path / "out")) == sum(row["tokens"] for row in manifest["sources"])
    for row in manifest["sources"]:
        first = {}
        for piece in row["pieces"]:
            data = (tmp_path / "out" / "pieces" / piece["name"]).read_bytes()
            facts = json.loads((tmp_path / "out" / "pieces" / piece["name"]).with_suffix(".json").read_text())
            tokens = np.frombuffer(data, "<u4")
            assert piece["sha256"] == facts["sha256"] == hashlib.sha256(data).hexdigest() and piece["file"] == facts["file"]
            assert len(tokens) == piece["tokens"] == piece["used"] and tokens[-1] == TOY.eot_token
            assert (tokens == TOY.eot_token).sum() == facts["documents"] and facts["first_document"] == first.get(piece["file"], 0)
            assert facts["last"] or 500 <= len(tokens) < 500 + 470  # the longest document
            first[piece["file"]] = facts["first_document"] + facts["documents"]
        assert set(first.values()) == {30}


@pytest.fixture
def mix(tmp_path, monkeypatch):
    """A mix of three sources of local files: a budget within the first file, one within the third, and all."""
    write_files(tmp_path, 12)
    files = [File(str(path), path.stat().st_size) for path in sorted(tmp_path.glob("*.json*"))]
    found = [(Source("a", "", "", 700), files[:4]), (Source("b", "", "", 16_000), files[4:9]), (Source("c", "", ""), files[9:])]
    monkeypatch.setitem(corpus.MIXES, "mix", [source for source, _ in found])
    monkeypatch.setattr(corpus, "hub_files", lambda _: found)
    return found


def test_budgets_cut_and_the_number_of_workers_changes_no_byte(mix, tmp_path):
    manifest = prepare("mix", tmp_path / "one", "toy", workers=1, piece_tokens=300)
    rows = {row["name"]: row for row in manifest["sources"]}
    texts = {file.path: list(corpus.documents(file.path, "")) for _, files in mix for file in files}
    of_source = [tokens_of(text for file in files for text in texts[file.path])[: int(source.tokens) or None] for source, files in mix]
    assert stream(tmp_path / "one") == sum(of_source, []) and [row["tokens"] for row in rows.values()] == [700, 16_000, len(of_source[2])]
    for row, tokens in zip(rows.values(), of_source):
        assert row["documents"] == tokens.count(TOY.eot_token) + (tokens[-1] != TOY.eot_token)
    assert len(rows["a"]["files"]) == 1 and len(rows["b"]["files"]) == 3 and rows["a"]["pieces"][-1]["used"] < rows["a"]["pieces"][-1]["tokens"]
    for workers in (2, 4):
        prepare("mix", tmp_path / "more", "toy", workers, piece_tokens=300)
        assert tree(tmp_path / "more") == tree(tmp_path / "one")


PREPARE = """
import sys
from pathlib import Path
from data.corpus import prepare
if __name__ == "__main__":
    prepare(sys.argv[1], Path(sys.argv[2]), "toy", int(sys.argv[3]), piece_tokens=40)
"""


def start(source, folder, workers):
    arguments = [sys.executable, "-c", PREPARE, source, folder, str(workers)]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_three_times_it_ends_in_the_same_bytes(tmp_path, workers):
    source, rng = write_files(tmp_path, 9), random.Random(workers)
    prepare(source, tmp_path / "straight", "toy", 1, piece_tokens=40)
    pieces, n = tmp_path / "killed" / "pieces", 0
    for _ in range(3):
        process, n = start(source, tmp_path / "killed", workers), n + rng.randrange(1, 60)
        while process.poll() is None and len(list(pieces.glob("*.json"))) < n:
            time.sleep(0.001)
        process.kill()
        process.communicate(timeout=60)  # ends when the last worker does
        n = max(n, len(list(pieces.glob("*.json"))))
    assert not (tmp_path / "killed" / "manifest.json").exists() and n < len(list((tmp_path / "straight" / "pieces").glob("*.json")))
    (pieces / "08-00000-0000.bin.tmp").write_bytes(b"torn")
    process = start(source, tmp_path / "killed", workers)
    assert process.communicate(timeout=300)[0] == "" and process.returncode == 0
    assert tree(tmp_path / "killed") == tree(tmp_path / "straight")


def test_another_file_of_the_same_place_is_not_taken_for_it(tmp_path):
    """As when a data set on the hub has changed since the preparation was stopped."""
    (tmp_path / "a.jsonl").write_bytes(jsonl(TEXTS))
    prepare(str(tmp_path / "a.jsonl"), tmp_path / "out", "toy", piece_tokens=100)
    (tmp_path / "a.jsonl").write_bytes(jsonl(TEXTS[2:]))
    prepare(str(tmp_path / "a.jsonl"), tmp_path / "out", "toy", piece_tokens=100)
    assert stream(tmp_path / "out") == tokens_of(TEXTS[2:])


GOOD = jsonl(TEXTS)
WRONG = {
    "no text": ("a.jsonl", GOOD + b'{"id": 1, "body": "x"}\n', 'a.jsonl, line 46 has no field "text", but id, body'),
    "a list": ("a.jsonl", b"[1]\n", 'a.jsonl, line 1 has no field "text"'),
    "not a string": ("a.json", b'{"text": null}\n', 'a.json, line 1: "text" is not a string, but null'),
    "not JSON": ("a.jsonl", GOOD + b"\n{text}\n", "a.jsonl, line 47 is not JSON"),
    "not UTF-8": ("a.jsonl", GOOD + '{"text": "é"}\n'.encode("latin-1"), "a.jsonl, line 46 is not UTF-8"),
    "not UTF-8 text": ("a.txt", "é".encode("latin-1"), "a.txt is not UTF-8"),
    "empty": ("a.jsonl", b"", "a.jsonl is empty"),
    "empty text": ("a.txt.gz", gzip.compress(b""), "a.txt.gz is empty"),
    "only blank lines": ("a.jsonl.zst", zstandard.compress(b"\n \n"), "a.jsonl.zst is empty"),
    "half a gz": ("a.jsonl.gz", gzip.compress(GOOD)[:-9], "a.jsonl.gz is truncated or damaged; download it again"),
    "half a zst": ("a.jsonl.zst", zstandard.compress(GOOD)[:-9], "a.jsonl.zst is truncated or damaged; download it again"),
    "half a second zst": ("a.jsonl.zst", zstandard.compress(GOOD) + zstandard.compress(GOOD)[:30], "a.jsonl.zst is truncated or damaged"),
    "a changed byte": ("a.jsonl.gz", gzip.compress(GOOD)[:-8] + b"12345678", "a.jsonl.gz is truncated or damaged"),
    "not a gz": ("a.jsonl.gz", GOOD, "a.jsonl.gz is truncated or damaged"),
    "not a zst": ("a.jsonl.zst", GOOD, "a.jsonl.zst is truncated or damaged"),
    "another kind": ("a.parquet", b"PAR1", "a.parquet is not a .txt, .jsonl or .json file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_named_in_one_line_and_no_manifest_is_written(tmp_path, case):
    name, data, message = WRONG[case]
    (tmp_path / name).write_bytes(data)
    (tmp_path / "good.jsonl").write_bytes(GOOD)
    with pytest.raises((UserError, OSError)) as caught:
        prepare(f"{tmp_path / 'good.jsonl'},{tmp_path / name}", tmp_path / "out", "toy", piece_tokens=100)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_damaged_corpus_is_not_read(tmp_path):
    source = write_files(tmp_path, 1)
    prepare(source, tmp_path / "out", "toy", piece_tokens=500)
    with pytest.raises(UserError, match="less than one row of 9000; give more text"):
        Corpus(tmp_path / "out", 9000)
    piece = tmp_path / "out" / "pieces" / "00-00000-0001.bin"
    piece.write_bytes(piece.read_bytes()[:-4])
    with pytest.raises(UserError, match="0001.bin is missing or has another size than in manifest.json; delete .* and prepare it again"):
        Corpus(tmp_path / "out", 8)


def test_a_corpus_of_another_tokenizer_is_not_read(tmp_path):
    opened = lambda: corpus.open_corpus(write_files(tmp_path, 1), str(tmp_path / "run"), "toy", 8, 0, 0)
    opened()
    (manifest,) = tmp_path.glob("corpus/*/manifest.json")
    manifest.write_text(manifest.read_text().replace(f'"n_vocab": {TOY.n_vocab}', '"n_vocab": 7'))
    with pytest.raises(UserError, match=f"made with a tokenizer of 7 ids, not with toy of {TOY.n_vocab}"):
        opened()


# --- the command --------------------------------------------------------------------------------------------------


def one_line(said, *parts):
    assert "\n" not in said.strip() and said.startswith("corpus.py: ") and all(part in said for part in parts), said


def test_the_command_prepares_once_and_prints_a_table(tmp_path):
    source = write_files(tmp_path, 3)
    flags = [f"{source},{tmp_path / '0.jsonl'}", "--tokenizer", "toy", "--out", tmp_path / "out"]
    said = run("data/corpus.py", *flags, "--workers", "2")
    folder = Path(said.splitlines()[-1])
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert re.search(r"\nall +4 +120 +[\d,]+ +100.00%\n", said) and folder.parent == tmp_path / "out"
    assert run("data/corpus.py", *flags) == said and (folder / "manifest.json").stat().st_mtime_ns == before
    assert corpus.open_corpus(flags[0], str(tmp_path / "out" / ".." / "run"), "toy", 8, 0, 0)[[0]].shape == (1, 8)  # pretrain.py looks there
    one_line(run("data/corpus.py", "dolmino-5B", ok=False), "dolmino-5B is missing", "toy, dolmino-50B, dolmino-60B")
    one_line(run("data/corpus.py", ok=False), "source")
    one_line(run("data/corpus.py", source, "--tokenizer", "none", ok=False), "unknown tokenizer 'none'")
    (tmp_path / "bad.jsonl").write_bytes(GOOD[:-2])
    one_line(run("data/corpus.py", f"{source},{tmp_path / 'bad.jsonl'}", *flags[1:], "--workers", "2", ok=False), "bad.jsonl, line 45 is not JSON")


@pytest.mark.parametrize("workers", [1, 2])
def test_control_c_is_one_line(tmp_path, workers):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "long.jsonl.zst").write_bytes(zstandard.compress(jsonl(["so many words"] * 10_000)) * 1000)
    flags = [f"{tmp_path}/a.txt,{tmp_path}/long.jsonl.zst", "--tokenizer", "toy", "--out", tmp_path / "out", "--workers", workers]
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # commands that a shell starts in the background ignore it
    process = subprocess.Popen(command("data/corpus.py", *flags), cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heard)
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
corpus.MIXES["mix"] = [corpus.Source("web", "some/text", "data/web/*", 3000), corpus.Source("math", "some/text", "data/MATH/*/train/*")]
if "wrong" in sys.argv[1:]:
    corpus.MIXES["mix"].append(corpus.Source("code", "some/text", "data/code/*"))
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
    files = {f"data/{'web' if i < 4 else f'math/b{i}/train'}/{path.name}": path.read_bytes() for i, path in enumerate(paths)}
    files |= {"data/math/b4/test/4.jsonl": GOOD, "README.md": b"text"}

    def answer(method, path):
        kind = next((kind for kind in ("tree", "resolve") if f"/{kind}/" in path), "info")
        name = path.split(f"{sha}/")[-1]
        seen.append((method, name))
        if failures.get(kind, 0) > 0:
            failures[kind] -= 1
            return 400, b"busy", {}  # the client itself tries again after 5xx, for longer than a test may take
        if path == f"/api/datasets/{repo}":
            return 200, {"_id": "1", "id": repo, "sha": sha, "private": False, "siblings": []}, {}
        if path == f"/api/datasets/{repo}/tree/{sha}":
            folders = [{"type": "directory", "path": "data", "oid": "2", "size": 0}]
            return 200, folders + [{"type": "file", "path": f, "oid": "2", "size": len(data)} for f, data in files.items()], {}
        if path == f"/datasets/{repo}/resolve/{sha}/{name}":
            return 200, files[name], {"ETag": f'"{hashlib.sha256(files[name]).hexdigest()}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        return 404, b"{}", {"X-Error-Code": "RepoNotFound"}

    with fake_hub(answer, tmp_path / "cache") as env:

        def ask(*args, **more):
            options = {"cwd": ROOT, "env": {**os.environ, **env, **more}, "capture_output": True, "text": True, "timeout": 300}
            return subprocess.run([sys.executable, "-c", HUB, *map(str, args)], **options)

        yield ask, files, failures, seen


def test_a_mix_comes_from_the_hub_even_where_it_fails_twice(hub, tmp_path):
    ask, files, failures, seen = hub
    failures |= {"info": 2, "tree": 2, "resolve": 2}  # of each kind, the first two
    done = ask(tmp_path / "out")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    web, math = json.loads((folder / "manifest.json").read_text())["sources"]
    assert failures == {"info": 0, "tree": 0, "resolve": 0} and web["revision"] == "0" * 39 + "1" and not (folder / "downloads").exists()
    assert web["tokens"] == 3000 and math["documents"] == 60 and sorted(math["files"]) == [f for f in sorted(files) if "train" in f]
    order = sorted((f for f in files if "web" in f), key=lambda f: hashlib.blake2b(f.encode(), key=b"corpus").digest())
    assert web["files"] == order[: len(web["files"])] and {f for command, f in seen if command == "GET" and "web" in f} == set(web["files"])
    n = len(seen)
    assert ask(tmp_path / "out").stdout == done.stdout and len(seen) == n  # a finished corpus asks nobody

    tree_before = tree(folder)
    (folder / "manifest.json").unlink()
    for path in folder.glob("pieces/01-*"):
        path.unlink()
    assert ask(tmp_path / "out").returncode == 0 and tree(folder) == tree_before
    assert not [f for command, f in seen[n:] if command == "GET" and "web" in f]  # what is whole is not fetched again


def test_a_wrong_table_and_a_silent_hub_are_one_line(hub, tmp_path):
    ask, _, failures, _ = hub
    one_line(ask(tmp_path / "out", "wrong").stderr, "some/text has no data/code/*, but data/math, data/web; correct the table")
    failures["resolve"] = 99
    one_line(ask(tmp_path / "out").stderr, "cannot be fetched", "run the same command again")
    one_line(ask(tmp_path / "out", HF_ENDPOINT="http://127.0.0.1:9").stderr, "some/text cannot be fetched", "check the network")
    assert not list((tmp_path / "out").rglob("manifest.json"))


def test_the_mixes_are_the_papers():
    total = lambda mix: sum(source.tokens for source in mix) / 1e9
    assert total(mixes.MIX_A) == pytest.approx(51.47 - 10.69) and total(mixes.MIX_B) == pytest.approx(10.74)
    assert all(len({source.name for source in mix}) == len(mix) for mix in mixes.MIXES.values())


# --- pre-training -------------------------------------------------------------------------------------------------


@needs_files
def test_pretraining_on_real_text_on_one_rank_and_on_two(tmp_path):
    flags = ["--data", ",".join(TEXT), "--tokenizer", "toy", "--seq_len", "64", "--batch", "8", "--tokens", "25600", "--keep", "25600", "--warmup", "2560"]
    run("pretrain.py", "--out", tmp_path / "one", *flags)
    rows = common.read_rows(str(tmp_path / "one" / "pretrain.log.jsonl"))
    assert len(rows) == 50 and rows[-1]["loss"] < rows[0]["loss"] - 1
    run("pretrain.py", "--out", tmp_path / "two", *flags, "--tokens", "512", "--keep", "512", ranks=2)
    (row,) = common.read_rows(str(tmp_path / "two" / "pretrain.log.jsonl"))
    assert row["loss"] == pytest.approx(rows[0]["loss"], abs=1e-5)
    assert len(list((tmp_path / "corpus").iterdir())) == 1  # shared


def test_what_pretraining_cannot_read_is_one_line(tmp_path):
    (tmp_path / "bad.jsonl").write_bytes(GOOD + b'{"body": "x"}\n')
    flags = ["--out", tmp_path / "run", "--tokenizer", "toy", "--data"]
    said = run("pretrain.py", *flags, tmp_path / "bad.jsonl", ranks=2, ok=False)
    assert said.count("pretrain.py: ") == 1 and 'bad.jsonl, line 46 has no field "text"' in said
    assert said.count("Traceback") == 1 and "Traceback" in said.partition("line 46")[2]  # torchrun's own, in the end
    said = run("pretrain.py", *flags, "dolmino-60B", ok=False)
    assert f"run: python data/corpus.py dolmino-60B --tokenizer toy --out {tmp_path / 'corpus'}" in said and not (tmp_path / "run").exists()
