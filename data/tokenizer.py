"""Tokenizers, all as tiktoken encodings: `toy`, `dolma2` (OLMo 2), or a tokenizer.json.

A checkpoint from elsewhere brings its tokenizer.json, which data/tokenizer_json.py reads; ours
leave with one (convert.py), which to_json writes. Encode every text that comes from data with
`encode_ordinary`: then a document that contains the letters <|endoftext|> cannot end a sequence.
Add `eot_token` (end of text) yourself. No tokenizer adds a begin token.
"""

import re
from functools import lru_cache
from pathlib import Path

import tiktoken

from data import UserError
from data.problem import INSTRUCTION
from data.tokenizer_json import EOS, byte_of_char, json_tokenizer
from data.toy_world import STARTERS, WORDS

PAD = "<|pad|>"

# OLMo 2 adds these to cl100k_base, at ids 100256..100277 in this order.
DOLMA2_ADDED = [
    "<|extra_id_0|>",
    EOS,
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "|||PHONE_NUMBER|||",
    "|||EMAIL_ADDRESS|||",
    "|||IP_ADDRESS|||",
    "<|im_start|>",
    "<|im_end|>",
    "<|extra_id_1|>",
    "<|extra_id_2|>",
    "<|extra_id_3|>",
    "<|extra_id_4|>",
    "<|extra_id_5|>",
    "<|extra_id_6|>",
    "<|extra_id_7|>",
    "<|extra_id_8|>",
    "<|extra_id_9|>",
    "<|extra_id_10|>",
    "<|endofprompt|>",
    PAD,
]
DOLMA2_FIRST_ADDED = 100_256
DOLMA2_VOCAB = 100_278
# OLMo 2's tokenizer.json adds these, but does not call them "special".
DOLMA2_PLAIN = {token for token in DOLMA2_ADDED if token.startswith(("<|extra_id", "|||"))}
# As in OLMo 2's tokenizer.json. Newer versions of tiktoken spell cl100k's expression in another
# way, which Hugging Face's library would read differently.
DOLMA2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@lru_cache
def get_tokenizer(name: str) -> tiktoken.Encoding:
    """`toy`, `dolma2`, or the path of a tokenizer.json.

    End of text is `.eot_token`, padding is pad_token(encoding).
    """
    if name == "toy":
        return toy_tokenizer()
    if name == "dolma2":
        return dolma2_tokenizer()
    if Path(name).suffix == ".json" or Path(name).is_file():
        return json_tokenizer(Path(name))
    raise UserError(
        f"unknown tokenizer {name!r}; "
        "choose toy, dolma2 or the path of a Hugging Face tokenizer.json"
    )


def pad_token(encoding: tiktoken.Encoding) -> int:
    """The id that other programs fill batches with (nothing here does).

    It is end of text if a tokenizer has no token for padding.
    """
    return special_ids(encoding).get(PAD, encoding.eot_token)


# --- what an encoding is made of ------------------------------------------------------------------


def merge_ranks(encoding: tiktoken.Encoding) -> dict[bytes, int]:
    """{token: id} of all tokens but the special ones; a token with a lower id is merged earlier."""
    return {token: encoding.encode_single_token(token) for token in encoding.token_byte_values()}


def special_ids(encoding: tiktoken.Encoding) -> dict[str, int]:
    """{"<|endoftext|>": its id, ...}"""
    return {token: encoding.encode_single_token(token) for token in encoding.special_tokens_set}


def pattern_of(encoding: tiktoken.Encoding) -> str:
    """The regular expression that cuts text into pieces; tiktoken has no public name for it."""
    return encoding._pat_str


# --- toy and dolma2 -------------------------------------------------------------------------------


def toy_tokenizer() -> tiktoken.Encoding:
    r"""The 256 bytes, so that any text can be written, and every toy word as one token.

    The pattern cuts text into words that carry their leading blank. tiktoken looks a whole piece up
    before it merges bytes, so a word needs no merges. A number is one token wherever it stands,
    also in "\boxed{ 13, 5}".
    """
    pieces = [" " + INSTRUCTION, " \\boxed{"]
    pieces += [" " + word for word in WORDS]
    pieces += STARTERS
    ranks = {bytes([i]): i for i in range(256)}
    for i, piece in enumerate(pieces, start=256):
        ranks[piece.encode()] = i
    assert len(ranks) == 256 + len(pieces), (
        "a word of the toy world stands twice, or is a single letter without blank"
    )
    patterns = [
        re.escape(" " + INSTRUCTION),
        r" \\boxed\{",
        r" ?\p{L}+",
        r" ?\p{N}+",
        r" ?[^\s\p{L}\p{N}]",
        r"\s",
    ]
    return tiktoken.Encoding(
        "toy",
        pat_str="|".join(patterns),
        mergeable_ranks=ranks,
        special_tokens={EOS: len(ranks), PAD: len(ranks) + 1},
        explicit_n_vocab=len(ranks) + 2,
    )


def dolma2_tokenizer() -> tiktoken.Encoding:
    """OLMo 2's tokenizer: cl100k_base as tiktoken ships it (fetched once), and 22 added tokens."""
    try:
        base = tiktoken.get_encoding("cl100k_base")
    except OSError as error:  # requests' errors are OSErrors
        reason = type(error).__name__
        raise UserError(
            f"dolma2 needs the network once, for tiktoken's cl100k_base ({reason}); "
            "or give the path of OLMo 2's tokenizer.json"
        ) from None
    added = {token: i for i, token in enumerate(DOLMA2_ADDED, start=DOLMA2_FIRST_ADDED)}
    return tiktoken.Encoding(
        "dolma2",
        pat_str=DOLMA2_PATTERN,
        mergeable_ranks=merge_ranks(base),
        special_tokens=added,
        explicit_n_vocab=DOLMA2_VOCAB,
    )


# --- to a tokenizer.json --------------------------------------------------------------------------


def to_json(encoding: tiktoken.Encoding) -> dict:
    """The same tokenizer as the content of a Hugging Face tokenizer.json; undoes json_tokenizer.

    tiktoken looks a whole piece up before it merges, which `ignore_merges` asks for there.
    """
    ranks = merge_ranks(encoding)
    tokens = sorted(ranks, key=ranks.get)
    vocab = {}
    merges = []
    for token in tokens:
        vocab[in_chars(token)] = ranks[token]
        parts = last_merge(token, ranks) if len(token) > 1 else None
        if parts:
            merges.append(f"{in_chars(parts[0])} {in_chars(parts[1])}")

    added_ids = special_ids(encoding)
    added = []
    for token in sorted(added_ids, key=added_ids.get):
        added.append(
            {
                "id": added_ids[token],
                "content": token,
                "special": token not in DOLMA2_PLAIN,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
        )
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern_of(encoding)},
        "behavior": "Removed",
        "invert": True,
    }
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": vocab,
            "merges": merges,
        },
    }


def last_merge(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes] | None:
    """The two parts that merging by rank joins last to make `token`.

    None for a whole word that no merges make.
    """
    parts = [bytes([b]) for b in token]
    while len(parts) > 2:
        best_rank = ranks[token]
        best = None  # the place of the pair that is merged next
        for i, (a, b) in enumerate(zip(parts, parts[1:])):
            rank = ranks.get(a + b, best_rank)
            if rank < best_rank:
                best_rank = rank
                best = i
        if best is None:
            return None
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


@lru_cache(maxsize=1)
def char_of_byte() -> dict[int, str]:
    return {b: c for c, b in byte_of_char().items()}


def in_chars(token: bytes) -> str:
    """The token as a tokenizer.json writes it."""
    to_char = char_of_byte()
    return "".join(to_char[b] for b in token)
