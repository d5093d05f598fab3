"""Tokenizers, all as tiktoken encodings: `toy`, `dolma2` (OLMo 2), or a Hugging Face tokenizer.json.

A checkpoint from elsewhere brings its tokenizer.json; ours leave with one (convert.py), which to_json writes.
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
DOLMA2_PATTERN = (  # as in OLMo 2's tokenizer.json; newer tiktoken spells cl100k's otherwise, which Hugging Face's would read otherwise
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DOLMA2_PLAIN = {token for token in DOLMA2_ADDED if token.startswith(("<|extra_id", "|||"))}  # added, but not "special" there
EOS_NAMES = (EOS, "</s>", "<|end_of_text|>", "<eos>", "<|eos|>", "[EOS]")  # end of text in other tokenizer.json files
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # of ByteLevel's own expression


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
    """The id that others fill batches with (nothing here does); end of text where a tokenizer has none."""
    return enc._special_tokens.get(PAD, enc.eot_token)


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
    return tiktoken.Encoding("dolma2", pat_str=DOLMA2_PATTERN, mergeable_ranks=base._mergeable_ranks, special_tokens=special, explicit_n_vocab=100278)


def json_tokenizer(path: Path) -> tiktoken.Encoding:
    """A byte-level BPE tokenizer.json of the `tokenizers` library, without that library and without network.

    Its end-of-text token, whatever its name there (EOS_NAMES), is `.eot_token` here. Raises UserError where tiktoken
    could not give the same ids: another kind of model, a normalizer, several regular expressions one after the other.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; give the path of a Hugging Face tokenizer.json, or use dolma2")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        vocab, merges = data["model"]["vocab"], data["model"]["merges"]
        added = {token["content"]: token["id"] for token in data["added_tokens"]}
        pattern = split_pattern(data["pre_tokenizer"])
        to_byte = byte_of_char()
        ranks = {bytes(to_byte[c] for c in token): i for token, i in vocab.items() if token not in added}
        # tiktoken merges the pair whose result has the lowest id: right only if ids were given in the order of the merges
        ids = [vocab["".join(m if isinstance(m, list) else m.split(" "))] for m in merges]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a byte-level BPE tokenizer.json ({error!r}); use OLMo 2's or a like one") from None
    if data.get("normalizer") or data["model"].get("dropout") or ids != sorted(ids):
        raise UserError(f"{path} has a normalizer, dropout, or ids that do not follow its merges; tiktoken cannot reproduce it")
    if not pattern:
        raise UserError(f"{path} cuts text in another way than by one regular expression; tiktoken cannot reproduce it")
    if any(bytes([b]) not in ranks for b in range(256)):
        raise UserError(f"{path} lacks some of the 256 single bytes, so it cannot write every text; use OLMo 2's or a like one")
    name = next((name for name in EOS_NAMES if name in added), None)
    if name is None:
        raise UserError(f"{path} has no end-of-text token; add {EOS} to its added_tokens with a free id")
    added[EOS] = added.pop(name)
    try:
        return tiktoken.Encoding(path.stem, pat_str=pattern, mergeable_ranks=ranks, special_tokens=added)
    except ValueError as error:
        raise UserError(f"{path}: tiktoken cannot read its regular expression ({str(error).splitlines()[0]}); use OLMo 2's or a like one") from None


def split_pattern(pre_tokenizer: dict) -> str | None:
    """The one regular expression whose matches are the pieces that bytes are merged in; None where it is not so simple.

    Either a Split, then ByteLevel without its own expression, or ByteLevel alone with GPT-2's.
    """
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    byte_level = steps[-1]
    if byte_level["type"] != "ByteLevel" or byte_level.get("add_prefix_space", True):
        return None
    own = byte_level.get("use_regex", True)
    if len(steps) == 1:
        return GPT2_PATTERN if own else None
    split = steps[0]
    cuts = len(steps) == 2 and split["type"] == "Split" and not own and "Regex" in split["pattern"]
    matches = {("Isolated", False), ("Removed", True)}  # two ways of saying: keep every match as a piece
    return split["pattern"]["Regex"] if cuts and (split["behavior"], split.get("invert", False)) in matches else None


def to_json(encoding: tiktoken.Encoding) -> dict:
    """The same tokenizer as the content of a Hugging Face tokenizer.json; the other way from json_tokenizer.

    tiktoken looks a whole piece up before it merges, which `ignore_merges` asks for there.
    """
    char = {b: c for c, b in byte_of_char().items()}
    write = lambda token: "".join(char[b] for b in token)
    ranks = encoding._mergeable_ranks
    vocab = {write(token): i for token, i in sorted(ranks.items(), key=lambda item: item[1])}
    pairs = [last_merge(token, ranks) for token in sorted(ranks, key=ranks.get) if len(token) > 1]
    added = [
        {"id": i, "content": token, "special": token not in DOLMA2_PLAIN, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        for token, i in sorted(encoding._special_tokens.items(), key=lambda item: item[1])
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": encoding._pat_str}, "behavior": "Removed", "invert": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]}, "post_processor": None, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": True, "vocab": vocab,
            "merges": [f"{write(pair[0])} {write(pair[1])}" for pair in pairs if pair],
        },
    }  # fmt: skip


def last_merge(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes] | None:
    """The two parts that merging by rank joins last to make `token`; None for a whole word that no merges make."""
    parts = [bytes([b]) for b in token]
    while len(parts) > 2:
        rank, i = min((ranks.get(a + b, ranks[token]), i) for i, (a, b) in enumerate(zip(parts, parts[1:])))
        if rank >= ranks[token]:
            return None
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]


def byte_of_char() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes, undone: "Ġ" is the blank, letters stand for themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
