"""A Hugging Face tokenizer.json, read without that library: byte-level BPE as a tiktoken encoding.

Every field that is used is checked first, so that a file of another kind, or a damaged one, is one
line that names the field.
"""

from functools import lru_cache
from pathlib import Path

import regex
import tiktoken

from data import UserError
from data.files import read_json
from data.jsonl import quoted, type_name

EOS = "<|endoftext|>"
# End of text in other tokenizer.json files; the first that is there counts.
EOS_NAMES = (EOS, "</s>", "<|end_of_text|>", "<eos>", "<|eos|>", "[EOS]")
# The expression that Hugging Face's ByteLevel cuts by, if a tokenizer.json names no other.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LIKE_OLMO2 = "use OLMo 2's or a like one"
MOST_IDS = 2**24  # the largest vocabularies have 300,000
LONGEST_PATTERN = 10_000  # characters
PROBE = "It's 12 apples,\r\n\n\t naïve (a_b) = {3.5}!  \\boxed{7}\u3000東京🙂\x00\ue000."


def json_tokenizer(path: Path) -> tiktoken.Encoding:
    """A byte-level BPE tokenizer.json of the `tokenizers` library, read without that library.

    Its end-of-text token, whatever its name there (EOS_NAMES), is `.eot_token` here. Raises
    UserError where the file is damaged, and where tiktoken could not give the same ids: another
    kind of model, a normalizer, several regular expressions one after the other.
    """
    missing = "give the path of a Hugging Face tokenizer.json, or use dolma2"
    data = read_json(path, missing, LIKE_OLMO2)
    try:
        model = part(data, "model", dict)
        if model.get("type", "BPE") != "BPE":
            raise UserError(f"model.type is {quoted(model['type'])}")
        vocab = checked_vocabulary(part(model, "vocab", dict, "model."))
        added = added_tokens(part(data, "added_tokens", list), vocab)
        pattern = split_pattern(part(data, "pre_tokenizer", dict))
        ranks = ranks_of_vocabulary(vocab, added)
        merged = ids_of_merges(vocab, part(model, "merges", list, "model."))
    except UserError as error:
        raise UserError(
            f"{path} is not a byte-level BPE tokenizer.json ({error}); {LIKE_OLMO2}"
        ) from None
    # tiktoken merges the pair whose result has the lowest id. That is right only if the ids were
    # given in the order of the merges.
    in_order = merged == sorted(merged)
    changes = [data.get("normalizer"), *map(model.get, CHANGES)]
    if any(changes) or not in_order:
        raise UserError(
            f"{path} has a normalizer, dropout, marks of parts of words, or ids that do not follow "
            "its merges; tiktoken cannot reproduce it"
        )
    if not pattern:
        raise UserError(
            f"{path} cuts text in another way than by one regular expression; "
            "tiktoken cannot reproduce it"
        )
    if any(bytes([b]) not in ranks for b in range(256)):
        raise UserError(
            f"{path} lacks some of the 256 single bytes, so it cannot write every text; "
            f"{LIKE_OLMO2}"
        )
    names = [name for name in EOS_NAMES if name in added]
    if not names:
        raise UserError(
            f"{path} has no end-of-text token; add {EOS} to its added_tokens with a free id"
        )
    added[EOS] = added.pop(names[0])
    return encoding_of(path, pattern, ranks, added)


# Fields of the model that change what is merged.
CHANGES = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")


def encoding_of(path: Path, pattern: str, ranks: dict, added: dict) -> tiktoken.Encoding:
    """The encoding, after a text with characters of all kinds has gone through it and back."""
    try:
        if len(pattern) > LONGEST_PATTERN:
            raise ValueError(f"it has {len(pattern):,} characters")
        encoding = tiktoken.Encoding(
            path.stem, pat_str=pattern, mergeable_ranks=ranks, special_tokens=added
        )
        if matches_nothing(pattern):
            raise ValueError("it matches where nothing stands, or takes seconds")
        back = encoding.decode(encoding.encode_ordinary(PROBE))
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: tiktoken cannot read its regular expression ({reason}); {LIKE_OLMO2}"
        ) from None
    if back != PROBE:
        raise UserError(f"{path}: its regular expression loses a part of a text; {LIKE_OLMO2}")
    return encoding


def matches_nothing(pattern: str) -> bool:
    """Whether a match may be empty, or takes a second; then tiktoken ends without an exception."""
    try:
        matches = regex.finditer(pattern, PROBE, timeout=1)
        return any(match.end() == match.start() for match in matches)
    except TimeoutError:
        return True
    except regex.error:  # tiktoken says what is wrong, and may know what this library does not
        return False


# --- fields ---------------------------------------------------------------------------------------


def part(values: dict, name: str, kind: type, prefix: str = ""):
    """A field that has to be there, of this type. UserError says what is there instead."""
    if name not in values:
        raise UserError(f"{prefix}{name} is missing")
    value = values[name]
    if type(value) is not kind:
        raise UserError(f"{prefix}{name} is {type_name(value)}")
    return value


def flag(values: dict, name: str, default: bool) -> bool:
    value = values.get(name, default)
    if type(value) is not bool:
        raise UserError(f"pre_tokenizer: {name} is {quoted(value)}, not true or false")
    return value


def check_id(where: str, token: str, value) -> None:
    if type(value) is not int or not 0 <= value < MOST_IDS:
        has = f"{where}: {quoted(token)} has the id {quoted(value)}"
        raise UserError(f"{has}, not a number below {MOST_IDS:,}")


def checked_vocabulary(vocab: dict) -> dict[str, int]:
    """model.vocab: every token has an id of its own."""
    of_id = {}
    for token, i in vocab.items():
        check_id("model.vocab", token, i)
        if i in of_id:
            raise UserError(f"model.vocab: {quoted(token)} and {quoted(of_id[i])} have the id {i}")
        of_id[i] = token
    return vocab


def added_tokens(rows: list, vocab: dict[str, int]) -> dict[str, int]:
    """{"<|endoftext|>": its id, ...}. Some stand in the vocabulary too, with the same id."""
    taken = {i: token for token, i in vocab.items()}
    added = {}
    for number, row in enumerate(rows):
        where = f"added_tokens[{number}]"
        if not isinstance(row, dict):
            raise UserError(f"{where} is {type_name(row)}")
        token = part(row, "content", str, f"{where}.")
        if not token:
            raise UserError(f"{where}.content is empty")
        i = part(row, "id", int, f"{where}.")
        check_id(where, token, i)
        where = f"{where}, {quoted(token)},"
        if token in added or taken.get(i, token) != token:
            other = taken.get(i, token)
            raise UserError(f"{where} has the id {i}, as {quoted(other)} has")
        if vocab.get(token, i) != i:
            raise UserError(f"{where} has the id {i}, in model.vocab {vocab[token]}")
        added[token] = i
        taken[i] = token
    return added


def ranks_of_vocabulary(vocab: dict[str, int], added: dict[str, int]) -> dict[bytes, int]:
    """{token: id} in bytes, without the added tokens."""
    to_byte = byte_of_char()
    ranks = {}
    for token, i in vocab.items():
        if token in added:
            continue
        try:
            ranks[bytes(to_byte[c] for c in token)] = i
        except KeyError:
            raise UserError(f"model.vocab: {quoted(token)} does not stand for bytes") from None
    if b"" in ranks:
        raise UserError("model.vocab has an empty token")
    return ranks


def ids_of_merges(vocab: dict[str, int], merges: list) -> list[int]:
    """The id of what each merge makes; a merge is written ["a", "b"] or "a b"."""
    ids = []
    for number, merge in enumerate(merges):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or [type(one) for one in parts] != [str, str]:
            raise UserError(f"model.merges[{number}] is {quoted(merge)}, not two tokens")
        for token in (*parts, "".join(parts)):
            if token not in vocab:
                where = f"model.merges[{number}] {quoted(merge)}"
                raise UserError(f"{where}: {quoted(token)} is not in the vocabulary")
        ids.append(vocab["".join(parts)])
    return ids


def split_pattern(pre_tokenizer: dict) -> str | None:
    """The one regular expression whose matches are the pieces that bytes are merged in.

    None if the text is not cut by one expression. Two forms are known: a Split, then ByteLevel
    without an expression of its own; or ByteLevel alone with GPT-2's.
    """
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    if not isinstance(steps, list) or not steps or any(type(step) is not dict for step in steps):
        raise UserError(f"pre_tokenizer.pretokenizers is {quoted(steps)}")
    byte_level = steps[-1]
    if byte_level.get("type") != "ByteLevel" or flag(byte_level, "add_prefix_space", True):
        return None
    has_own_pattern = flag(byte_level, "use_regex", True)
    if len(steps) == 1:
        return GPT2_PATTERN if has_own_pattern else None
    split = steps[0]
    if len(steps) > 2 or split.get("type") != "Split" or has_own_pattern:
        return None
    # There are two ways of saying that every match is kept as a piece.
    how = (split.get("behavior"), flag(split, "invert", False))
    if how not in (("Isolated", False), ("Removed", True)):
        return None
    pattern = part(split, "pattern", dict, "pre_tokenizer's Split: ")
    return part(pattern, "Regex", str, "pre_tokenizer's pattern: ") if "Regex" in pattern else None


@lru_cache(maxsize=1)
def byte_of_char() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes, undone: "Ġ" is the blank, letters are themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    stand_ins = {chr(b): b for b in printable}
    for i, b in enumerate(others):
        stand_ins[chr(256 + i)] = b
    return stand_ins
