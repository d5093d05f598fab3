"""Toy words are whole tokens, nothing is lost, and a tokenizer.json gives the ids its vocabulary says."""

import base64
import gzip
import hashlib
import itertools
import json
from pathlib import Path

import pytest

from data import UserError, benchmarks, toy, toy_text
from data.problems import prompt_text
from data.tokenizer import (
    DOLMA2_ADDED,
    byte_of_char,
    get_tokenizer,
    merge_ranks,
    pad_token,
    special_ids,
    to_json,
)
from plumbing.few_shot import few_shot_text

DOLMA2 = Path(__file__).parents[2] / "shared/data/tokenizer/allenai_dolma2.json"
needs_dolma2 = pytest.mark.skipif(not DOLMA2.exists(), reason=f"{DOLMA2} is not here")

TRICKY = ["", " ", "\n\n \t x", "It's 1234567 apples, isn't it?", "naïve café — 東京 🙂 \u200d", "\\boxed{ 13, 5}", "a<|endoftext|>b <|pad|>",
          "x" * 300, "\r\n\r\n", "  indented\n    code()  ", "3.14e-10 1,000,000", "\ufeff\x00\x7f", "ÀÉ ﬁ Ⅷ ½ ٣"]  # fmt: skip


def toy_texts():
    for family in toy.LIMITS:
        for problem in [p for split in toy.SPLITS for p in toy.problems(split, family)]:
            yield from (prompt_text(problem), *problem.solutions)
    yield from (text for _, text in itertools.islice(toy_text.documents(0), 5_000))
    yield from benchmarks.heldout(100)
    yield from (item.context + choice for item in benchmarks.skills(50) for choice in item.choices)


def test_toy_text_needs_no_bytes():
    """Of the 256 bytes only these three stand in toy text, each as a word of its own."""
    enc = get_tokenizer("toy")
    marks = set(enc.encode_ordinary("\n,}"))
    for text in toy_texts():
        ids = enc.encode_ordinary(text)
        assert all(i >= 256 or i in marks for i in ids), [enc.decode([i]) for i in ids]
        assert enc.decode(ids) == text


def test_toy_vocabulary_is_small_and_used():
    enc = get_tokenizer("toy")
    assert enc.n_vocab < 256 + 400
    used = {
        i
        for _, text in itertools.islice(toy_text.documents(0), 20_000)
        for i in enc.encode_ordinary(text)
    }
    unused = [enc.decode([i]) for i in range(256, enc.eot_token) if i not in used]
    assert not unused


def test_toy_pieces():
    enc = get_tokenizer("toy")
    assert [enc.decode([i]) for i in enc.encode_ordinary("so \\boxed{ 13, 5}")] == [
        "so",
        " \\boxed{",
        " 13",
        ",",
        " 5",
        "}",
    ]
    p = toy.problems("train", "toy", 1)[0]
    prompt, solution = enc.encode_ordinary(prompt_text(p)), enc.encode_ordinary(p.solutions[0])
    assert enc.decode([prompt[-2]]).startswith(" Let's think") and enc.decode([prompt[-1]]) == "\n"
    assert (
        enc.encode_ordinary(prompt_text(p) + p.solutions[0]) == prompt + solution
    )  # the boundary is a token boundary
    assert len(prompt) <= 36
    few = few_shot_text(p, toy.problems("train", "toy", 3)[1:])
    assert enc.encode_ordinary(few)[-len(prompt) :] == prompt


def test_toy_ids_are_pinned():
    """Checkpoints depend on them; a change of the words needs new checkpoints."""
    enc = get_tokenizer("toy")
    assert (enc.n_vocab, enc.eot_token, pad_token(enc)) == (600, 598, 599)
    assert enc.encode_ordinary("say hana has 11 cards . buys 2 .") == [
        583,
        327,
        545,
        277,
        372,
        258,
        380,
        268,
        258,
    ]


@pytest.mark.parametrize("name", ["toy", pytest.param(str(DOLMA2), marks=needs_dolma2)])
@pytest.mark.parametrize("text", TRICKY)
def test_round_trip(name, text):
    enc = get_tokenizer(name)
    ids = enc.encode_ordinary(text)
    assert enc.decode(ids) == text
    assert enc.eot_token not in ids and pad_token(enc) not in ids  # text cannot end a sequence


@needs_dolma2
def test_dolma2_json():
    enc = get_tokenizer(str(DOLMA2))
    vocab = json.loads(DOLMA2.read_text())["model"]["vocab"]
    assert (enc.n_vocab, enc.eot_token, pad_token(enc)) == (100_278, 100_257, 100_277)
    char = {b: c for c, b in byte_of_char().items()}
    for text in TRICKY:
        for i in enc.encode_ordinary(text):
            assert vocab["".join(char[b] for b in enc.decode_single_token_bytes(i))] == i
    assert enc.encode_ordinary("Hello world") == [9906, 1917]  # as cl100k_base
    assert [enc.encode_single_token(token) for token in DOLMA2_ADDED] == list(
        range(100_256, 100_278)
    )
    assert get_tokenizer(str(DOLMA2)) is enc  # built once


def shared_files():
    folder = DOLMA2.parents[1]
    return (
        sorted(p for p in folder.rglob("*") if p.is_file() and p != DOLMA2)
        if folder.exists()
        else []
    )


def texts_of(path: Path):
    """The documents of a file: every string in its JSON lines, once, or the whole text."""
    content = (
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    ).decode()
    if ".json" not in path.suffixes and ".jsonl" not in path.suffixes:
        return {content}
    strings = lambda value: (
        [value]
        if isinstance(value, str)
        else [s for v in (value.values() if isinstance(value, dict) else value) for s in strings(v)]
        if isinstance(value, (dict, list))
        else []
    )
    lines = [content] if path.name.endswith("config.json") else content.splitlines()
    return {s for line in lines for s in strings(json.loads(line))}


MORE = [
    r"Let $f(x)=\begin{cases}x^2 & \text{if } x\le 0\\ \frac{1}{2} & \text{else}\end{cases}$. Then $\boxed{\left(\tfrac{3}{4},\infty\right)}$",
    "👩‍👩‍👧‍👦🏳️‍🌈 e\u0301 ñ \u200b\u2028\u2029 ß ŉ İ ı", "我们把 12345678 个苹果分给三个人，每人得到多少？\u3000（提示：余数）", "नमस्ते दुनिया مرحبا بالعالم שלום",
    "".join(map(chr, range(0x20))) + "\x7f\x80\x9f\xa0", "don't DON'T I'LL we'Ve it'S x'm y'D 'tis ''s", "a\n\n\nb  \n  c\t\t\n\r\n \r d   ", " " * 97 + "x" + "\n" * 33,
    "<|endoftext|><|endoftext|> <|pad|>a<|im_start|>user|||EMAIL_ADDRESS|||b<|extra_id_10|><|extra_id_0|>", "<|endoftex", "1" * 1000, "a" * 3000, "ab" * 2000 + "!?" * 500, "\U0010ffff\ue000\ufffd",
]  # fmt: skip


@needs_dolma2
def test_dolma2_is_what_the_tokenizers_library_says():
    """Ids equal and bytes come back, on tricky strings; both sides read added tokens that stand in the text."""
    tokenizers = pytest.importorskip(
        "tokenizers", reason="tokenizers is not installed: pip install -r tests/requirements.txt"
    )
    theirs, ours = tokenizers.Tokenizer.from_file(str(DOLMA2)), get_tokenizer(str(DOLMA2))
    for text in [*TRICKY, *MORE]:
        ids = ours.encode(text, allowed_special="all")
        assert ids == theirs.encode(text).ids, repr(text)[:100]
        assert (
            ours.decode_bytes(ids) == text.encode() == ours.decode_bytes(ours.encode_ordinary(text))
        )
        assert (
            max(ours.encode_ordinary(text), default=0) < 100_256
        )  # no added token, whatever the letters say


@pytest.mark.parametrize(
    "path",
    shared_files()
    or [pytest.param(None, marks=pytest.mark.skip(reason=f"{DOLMA2.parents[1]} is not here"))],
    ids=lambda p: p and p.name,
)
def test_dolma2_on_every_file_of_real_text(path):
    tokenizers = pytest.importorskip(
        "tokenizers", reason="tokenizers is not installed: pip install -r tests/requirements.txt"
    )
    theirs, ours = tokenizers.Tokenizer.from_file(str(DOLMA2)), get_tokenizer(str(DOLMA2))
    texts = sorted(texts_of(path))
    mine = [ours.encode(text, allowed_special="all") for text in texts]
    for text, ids, encoded in zip(texts, mine, theirs.encode_batch_fast(texts), strict=True):
        assert ids == encoded.ids, repr(text)[:100]
        assert ours.decode_bytes(ids) == text.encode()


@needs_dolma2
def test_dolma2_by_name_through_tiktokens_own_cache(tmp_path, monkeypatch):
    """What a machine with network gets: cl100k's rank file, which OLMo 2 left unchanged, read and verified by tiktoken."""
    vocab, to_byte = json.loads(DOLMA2.read_text())["model"]["vocab"], byte_of_char()
    lines = [
        base64.b64encode(bytes(to_byte[c] for c in token)) + b" %d\n" % i
        for token, i in vocab.items()
        if i < 100_256
    ]
    url = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
    (tmp_path / hashlib.sha1(url.encode()).hexdigest()).write_bytes(
        b"".join(sorted(lines, key=lambda line: int(line.split()[1])))
    )
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})
    get_tokenizer.cache_clear()
    named, read = get_tokenizer("dolma2"), get_tokenizer(str(DOLMA2))
    assert (named.n_vocab, named.eot_token, pad_token(named)) == (100_278, 100_257, 100_277)
    assert special_ids(named) == special_ids(read) and merge_ranks(named) == merge_ranks(read)
    for text in [*TRICKY, *MORE]:
        assert named.encode_ordinary(text) == read.encode_ordinary(text)
    get_tokenizer.cache_clear()


@needs_dolma2
def test_to_json_writes_the_file_it_was_read_from():
    written, read = to_json(get_tokenizer(str(DOLMA2))), json.loads(DOLMA2.read_text())
    assert (
        written["model"]["merges"] == read["model"]["merges"]
    )  # 100,000 merges, recovered from the ranks alone
    assert (
        written["added_tokens"] == read["added_tokens"]
        and written["pre_tokenizer"] == read["pre_tokenizer"]
    )
    assert written["model"]["vocab"].items() <= read["model"]["vocab"].items()


def test_dolma2_without_network(monkeypatch):
    import tiktoken

    def offline(name):
        raise ConnectionError("no route")

    get_tokenizer.cache_clear()
    monkeypatch.setattr(tiktoken, "get_encoding", offline)
    with pytest.raises(UserError, match="tokenizer.json"):
        get_tokenizer("dolma2")


def test_errors(tmp_path):
    with pytest.raises(UserError, match="choose toy, dolma2"):
        get_tokenizer("gpt5")
    with pytest.raises(FileNotFoundError, match="missing"):
        get_tokenizer(str(tmp_path / "none.json"))
    bad = tmp_path / "bad.json"
    bad.write_text('{"model": {"type": "WordPiece"}}')
    with pytest.raises(UserError, match="not a byte-level BPE"):
        get_tokenizer(str(bad))


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
WORDS = {
    "type": "Sequence",
    "pretokenizers": [
        {
            "type": "Split",
            "pattern": {"Regex": "\\S+|\\s+"},
            "behavior": "Isolated",
            "invert": False,
        },
        BYTE_LEVEL,
    ],
}


def tiny_json(
    path,
    added=("<|endoftext|>", "<|pad|>"),
    merges=("a b", "ab c"),
    n_bytes=256,
    pre_tokenizer=WORDS,
    **changes,
):
    vocab = sorted(byte_of_char(), key=byte_of_char().get)[:n_bytes] + ["ab", "abc"]
    path.write_text(json.dumps({
        "added_tokens": [{"id": len(vocab) + i, "content": token} for i, token in enumerate(added)],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "model": {"vocab": {token: i for i, token in enumerate(vocab)}, "merges": merges},
        **changes,
    }))  # fmt: skip
    return str(path)


def test_other_json(tmp_path):
    enc = get_tokenizer(tiny_json(tmp_path / "good.json"))
    assert (
        enc.encode_ordinary("abcab") == [257, 256]
        and enc.eot_token == 258
        and pad_token(enc) == 259
    )
    enc = get_tokenizer(tiny_json(tmp_path / "other_names.json", added=("<s>", "</s>")))
    assert enc.eot_token == 259 == pad_token(enc) and 259 not in enc.encode_ordinary("a</s>")
    two_regexes = {
        "type": "Sequence",
        "pretokenizers": [*WORDS["pretokenizers"][:1] * 2, BYTE_LEVEL],
    }
    cases = {
        "no end of text": (dict(added=("<|pad|>",)), "no end-of-text token"),
        "order": (dict(merges=("ab c", "a b")), "do not follow its merges"),
        "bytes": (dict(n_bytes=200), "lacks some of the 256 single bytes"),
        "normalizer": (dict(normalizer={"type": "NFC"}), "has a normalizer"),
        "own regex": (dict(pre_tokenizer={"type": "Whitespace"}), "cuts text in another way"),
        "two": (dict(pre_tokenizer=two_regexes), "cuts text in another way"),
        "prefix": (dict(pre_tokenizer={**BYTE_LEVEL, "use_regex": True, "add_prefix_space": True}), "cuts text in another way"),
        "regex": (dict(pre_tokenizer={"type": "Sequence", "pretokenizers": [{**WORDS["pretokenizers"][0], "pattern": {"Regex": "(a"}}, BYTE_LEVEL]}), "cannot read its regular"),
        "none": (dict(pre_tokenizer=None), "not a byte-level BPE"),
    }  # fmt: skip
    for name, (changes, message) in cases.items():
        with pytest.raises(UserError, match=message):
            get_tokenizer(tiny_json(tmp_path / f"{name}.json", **changes))


def test_a_wrong_field_is_named(tmp_path):
    """Wrong types anywhere, ids and tokens that stand twice, merges of what is not there."""
    good = json.loads(Path(tiny_json(tmp_path / "good.json")).read_text())
    cases = [
        (["model"], None, "model is null"),
        (["model"], ..., "model is missing"),
        (["model", "type"], "Unigram", "model.type is 'Unigram'"),
        (["model", "vocab"], [], "model.vocab is a list"),
        (["model", "vocab"], ..., "model.vocab is missing"),
        (["model", "vocab", "a"], "97", "model.vocab: 'a' has the id '97'"),
        (["model", "vocab", "a"], -1, "'a' has the id -1"),
        (["model", "vocab", "a"], True, "'a' has the id True"),
        (["model", "vocab", "a"], 1.0, "'a' has the id 1.0"),
        (["model", "vocab", "a"], 10**12, "'a' has the id 1000000000000, not a number below"),
        (["model", "vocab", "a"], 98, "'b' and 'a' have the id 98"),
        (["model", "vocab", "東"], 500, "'東' does not stand for bytes"),
        (["model", "vocab", ""], 500, "an empty token"),
        (["model", "merges"], None, "model.merges is null"),
        (["model", "merges"], {"a": "b"}, "model.merges is an object"),
        (["model", "merges", 0], "ab", "model.merges[0] is 'ab', not two tokens"),
        (["model", "merges", 0], "a b c", "model.merges[0] is 'a b c', not two tokens"),
        (["model", "merges", 0], ["a", 1], "model.merges[0] is ['a', 1], not two tokens"),
        (["model", "merges", 0], 7, "model.merges[0] is 7"),
        (["model", "merges", 1], "x y", "model.merges[1] 'x y': 'xy' is not in the vocabulary"),
        (["model", "merges", 1], "東 b", "'東' is not in the vocabulary"),
        (["model", "end_of_word_suffix"], "</w>", "marks of parts of words"),
        (["model", "dropout"], 0.1, "dropout"),
        (["added_tokens"], None, "added_tokens is null"),
        (["added_tokens"], "text", "added_tokens is text"),
        (["added_tokens", 0], "text", "added_tokens[0] is text"),
        (["added_tokens", 0, "id"], ..., "added_tokens[0].id is missing"),
        (["added_tokens", 0, "id"], "258", "added_tokens[0].id is text"),
        (["added_tokens", 0, "id"], 259, "added_tokens[1], '<|pad|>', has the id 259, as"),
        (["added_tokens", 0, "id"], 97, "has the id 97, as"),
        (["added_tokens", 0, "id"], -2, "'<|endoftext|>' has the id -2"),
        (["added_tokens", 0, "content"], 5, "added_tokens[0].content is a number"),
        (["added_tokens", 0, "content"], "", "added_tokens[0].content is empty"),
        (["added_tokens", 1, "content"], "<|endoftext|>", "added_tokens[1], '<|endoftext|>',"),
        (["added_tokens", 1, "content"], "ab", "has the id 259, in model.vocab 256"),
        (["pre_tokenizer"], None, "pre_tokenizer is null"),
        (["pre_tokenizer", "pretokenizers"], [], "pretokenizers is []"),
        (["pre_tokenizer", "pretokenizers"], "x", "pretokenizers is 'x'"),
        (["pre_tokenizer", "pretokenizers", 0], 1, "pretokenizers is [1,"),
        (["pre_tokenizer", "pretokenizers", 0, "type"], ["Split"], "cuts text in another way"),
        (["pre_tokenizer", "pretokenizers", 0, "pattern"], "x", "pattern is text"),
        (["pre_tokenizer", "pretokenizers", 0, "pattern", "Regex"], 1, "Regex is a number"),
        (["pre_tokenizer", "pretokenizers", 0, "invert"], "no", "invert is 'no'"),
        (["pre_tokenizer", "pretokenizers", 1, "use_regex"], 0, "use_regex is 0"),
        (["normalizer"], "NFC", "has a normalizer"),
    ]  # fmt: skip
    for i, (place, value, message) in enumerate(cases):
        data = json.loads(json.dumps(good))
        *parents, name = place
        part = data
        for key in parents:
            part = part[key]
        if value is ...:
            del part[name]
        else:
            part[name] = value
        path = tmp_path / f"{i}.json"
        path.write_text(json.dumps(data))
        with pytest.raises(UserError) as caught:
            get_tokenizer(str(path))
        said = str(caught.value)
        assert str(path) in said and message in said and "\n" not in said, (place, value, said)


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("a", "loses a part of a text"),  # whatever is no "a" would be dropped
        ("(?=.)", "matches where nothing stands"),
        ("x*|\\S+|\\s+", "matches where nothing stands"),
        ("(" * 5000, "cannot read its regular expression"),
        ("x" * 20_000, "it has 20,000 characters"),
    ],
)
def test_an_expression_that_loses_text_is_refused(tmp_path, pattern, message):
    split = {**WORDS["pretokenizers"][0], "pattern": {"Regex": pattern}}
    steps = {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL]}
    with pytest.raises(UserError, match=message):
        get_tokenizer(tiny_json(tmp_path / "a.json", pre_tokenizer=steps))


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"null", b"[" * 100_000, b"{}\0"])
def test_what_is_no_json_object_is_one_line(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="use OLMo 2's or a like one") as caught:
        get_tokenizer(str(path))
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@needs_dolma2
def test_any_byte_level_bpe_gives_the_librarys_ids(tmp_path):
    """A tokenizer trained here with GPT-2's expression, another end-of-text token and Shakespeare."""
    tokenizers = pytest.importorskip(
        "tokenizers", reason="tokenizers is not installed: pip install -r tests/requirements.txt"
    )
    text = (DOLMA2.parents[1] / "general_text_tinyshakespeare.txt").read_text()
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    theirs.train_from_iterator(text.splitlines(keepends=True), trainer)
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = get_tokenizer(str(tmp_path / "tokenizer.json"))
    assert (ours.n_vocab, ours.eot_token) == (3000, 1)
    for part in [text[:200_000], *TRICKY, *MORE]:
        ids = ours.encode_ordinary(part)
        assert ours.decode_bytes(ids) == part.encode()
        if "</s>" not in part and "<s>" not in part:
            assert ids == theirs.encode(part).ids
    again = tokenizers.Tokenizer.from_str(json.dumps(to_json(ours)))
    assert again.encode(text[:50_000]).ids == theirs.encode(text[:50_000]).ids
