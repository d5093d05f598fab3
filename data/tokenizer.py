"""Tokenizers, all as tiktoken encodings: `toy`, `dolma2` (OLMo 2), or a Hugging Face tokenizer.json.

Encode every text that comes from data with `encode_ordinary`: then a document that contains the letters
<|endoftext|> cannot end a sequence. Add `eot_token` (end of text) yourself. No tokenizer adds a begin token.
"""

import json
import re
from functools import lru_cache
from pathlib import Path

import tiktoken

from data import UserError
from data.problems import INSTRUCTION

EOS, PAD = "<|endoftext|>", "<|pad|>"

# OLMo 2 adds these to cl100k_base, at ids 100256..100277 in this order.
DOLMA2_ADDED = [
    "<|extra_id_0|>", EOS, "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
    "|||PHONE_NUMBER|||", "|||EMAIL_ADDRESS|||", "|||IP_ADDRESS|||", "<|im_start|>", "<|im_end|>",
    *[f"<|extra_id_{i}|>" for i in range(1, 11)], "<|endofprompt|>", PAD,
]  # fmt: skip


@lru_cache
def get_tokenizer(name: str) -> tiktoken.Encoding:
    """`toy`, `dolma2`, or the path of a tokenizer.json; end of text is `.eot_token`, padding pad_token(enc)."""
    if name == "toy":
        return toy_tokenizer()
    if name == "dolma2":
        return dolma2_tokenizer()
    if Path(name).suffix == ".json" or Path(name).is_file():
        return json_tokenizer(Path(name))
    raise UserError(f"unknown tokenizer {name!r}; choose toy, dolma2 or the path of a Hugging Face tokenizer.json")


def pad_token(enc: tiktoken.Encoding) -> int:
    """The id that fills batches; it is never trained on."""
    return enc.encode_single_token(PAD)


def toy_tokenizer() -> tiktoken.Encoding:
    """The 256 bytes, so that any text can be written, and every word of the toy world as one token.

    The pattern cuts text into words that carry their leading blank. tiktoken looks a whole piece up before it
    merges bytes, so a word needs no merges. A number is one token wherever it stands, also in "\\boxed{ 13, 5}".
    """
    from data.toy import STARTERS, WORDS

    pieces = [" " + INSTRUCTION, " \\boxed{", *[" " + word for word in WORDS], *STARTERS]
    ranks = {bytes([i]): i for i in range(256)}
    ranks |= {piece.encode(): 256 + i for i, piece in enumerate(pieces)}
    assert len(ranks) == 256 + len(pieces), "a word of the toy world stands twice, or is a single letter without blank"
    pattern = "|".join([re.escape(" " + INSTRUCTION), r" \\boxed\{", r" ?\p{L}+", r" ?\p{N}+", r" ?[^\s\p{L}\p{N}]", r"\s"])
    special = {EOS: len(ranks), PAD: len(ranks) + 1}
    return tiktoken.Encoding("toy", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special, explicit_n_vocab=len(ranks) + 2)


def dolma2_tokenizer() -> tiktoken.Encoding:
    """OLMo 2's tokenizer: cl100k_base as tiktoken ships it (fetched once, then cached) and 22 added tokens."""
    try:
        base = tiktoken.get_encoding("cl100k_base")
    except OSError as error:  # requests' errors are OSErrors
        reason = type(error).__name__
        raise UserError(f"dolma2 needs the network once, for tiktoken's cl100k_base ({reason}); or give the path of OLMo 2's tokenizer.json") from None
    special = {token: 100256 + i for i, token in enumerate(DOLMA2_ADDED)}
    return tiktoken.Encoding("dolma2", pat_str=base._pat_str, mergeable_ranks=base._mergeable_ranks, special_tokens=special, explicit_n_vocab=100278)


def json_tokenizer(path: Path) -> tiktoken.Encoding:
    """A byte-level BPE tokenizer.json of the `tokenizers` library, without that library and without network."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; give the path of a Hugging Face tokenizer.json, or use dolma2")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        vocab, merges = data["model"]["vocab"], data["model"]["merges"]
        splits = data["pre_tokenizer"].get("pretokenizers", [data["pre_tokenizer"]])
        pattern = next(s["pattern"]["Regex"] for s in splits if s["type"] == "Split")
        added = {token["content"]: token["id"] for token in data["added_tokens"]}
        to_byte = byte_of_char()
        ranks = {bytes(to_byte[c] for c in token): i for token, i in vocab.items() if token not in added}
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise UserError(f"{path} is not a byte-level BPE tokenizer.json with a Split pattern ({error!r}); use OLMo 2's or a like one") from None
    # tiktoken merges the pair whose result has the lowest id: right only if ids were given in the order of the merges
    ids = [vocab["".join(m if isinstance(m, list) else m.split(" "))] for m in merges]
    if data.get("normalizer") or ids != sorted(ids):
        raise UserError(f"{path} has a normalizer, or ids that do not follow its merges; tiktoken cannot reproduce it")
    if not {EOS, PAD} <= added.keys():
        raise UserError(f"{path} lacks the added token {EOS} or {PAD}; add it to added_tokens with a free id")
    return tiktoken.Encoding(path.stem, pat_str=pattern, mergeable_ranks=ranks, special_tokens=added)


def byte_of_char() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes, undone: "Ġ" is the blank, letters stand for themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
