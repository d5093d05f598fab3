"""Toy words are whole tokens, nothing is lost, and a tokenizer.json gives the ids its vocabulary says."""

import itertools
import json
from pathlib import Path

import pytest

from data import UserError, benchmarks, toy
from data.problems import few_shot_text, prompt_text
from data.tokenizer import DOLMA2_ADDED, byte_of_char, get_tokenizer, pad_token

DOLMA2 = Path(__file__).parents[2] / "shared/data/tokenizer/allenai_dolma2.json"
needs_dolma2 = pytest.mark.skipif(not DOLMA2.exists(), reason=f"{DOLMA2} is not here")

TRICKY = ["", " ", "\n\n \t x", "It's 1234567 apples, isn't it?", "naïve café — 東京 🙂 \u200d", "\\boxed{ 13, 5}", "a<|endoftext|>b <|pad|>",
          "x" * 300, "\r\n\r\n", "  indented\n    code()  ", "3.14e-10 1,000,000", "\ufeff\x00\x7f", "ÀÉ ﬁ Ⅷ ½ ٣"]  # fmt: skip


def toy_texts():
    for family in toy.LIMITS:
        for problem in [p for split in toy.SPLITS for p in toy.problems(split, family)]:
            yield from (prompt_text(problem), *problem.solutions)
    yield from (text for _, text in itertools.islice(toy.documents(0), 5_000))
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
    used = {i for _, text in itertools.islice(toy.documents(0), 20_000) for i in enc.encode_ordinary(text)}
    unused = [enc.decode([i]) for i in range(256, enc.eot_token) if i not in used]
    assert not unused


def test_toy_pieces():
    enc = get_tokenizer("toy")
    assert [enc.decode([i]) for i in enc.encode_ordinary("so \\boxed{ 13, 5}")] == ["so", " \\boxed{", " 13", ",", " 5", "}"]
    p = toy.problems("train", "toy", 1)[0]
    prompt, solution = enc.encode_ordinary(prompt_text(p)), enc.encode_ordinary(p.solutions[0])
    assert enc.decode([prompt[-2]]).startswith(" Let's think") and enc.decode([prompt[-1]]) == "\n"
    assert enc.encode_ordinary(prompt_text(p) + p.solutions[0]) == prompt + solution  # the boundary is a token boundary
    assert len(prompt) <= 36
    few = few_shot_text(p, toy.problems("train", "toy", 3)[1:])
    assert enc.encode_ordinary(few)[-len(prompt) :] == prompt


def test_toy_ids_are_pinned():
    """Checkpoints depend on them; a change of the words needs new checkpoints."""
    enc = get_tokenizer("toy")
    assert (enc.n_vocab, enc.eot_token, pad_token(enc)) == (600, 598, 599)
    assert enc.encode_ordinary("say hana has 11 cards . buys 2 .") == [583, 327, 545, 277, 372, 258, 380, 268, 258]


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
    assert [enc.encode_single_token(token) for token in DOLMA2_ADDED] == list(range(100_256, 100_278))
    assert get_tokenizer(str(DOLMA2)) is enc  # built once


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


def tiny_json(path, added=("<|endoftext|>", "<|pad|>"), vocab=("a", "b", "c", "ab", "abc"), merges=("a b", "ab c")):
    path.write_text(json.dumps({
        "added_tokens": [{"id": len(vocab) + i, "content": token} for i, token in enumerate(added)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\S+"}},
        "model": {"vocab": {token: i for i, token in enumerate(vocab)}, "merges": merges},
    }))  # fmt: skip
    return str(path)


def test_other_json(tmp_path):
    enc = get_tokenizer(tiny_json(tmp_path / "good.json"))
    assert enc.encode_ordinary("abcab") == [4, 3] and enc.eot_token == 5 and pad_token(enc) == 6
    with pytest.raises(UserError, match="lacks the added token"):
        get_tokenizer(tiny_json(tmp_path / "no_pad.json", added=("<|endoftext|>",)))
    with pytest.raises(UserError, match="do not follow its merges"):
        get_tokenizer(tiny_json(tmp_path / "order.json", merges=("ab c", "a b")))
