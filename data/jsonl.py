"""Rows of JSON that others wrote: read line by line, and each field checked before it is used.

What is wrong is one UserError, here without the place: whoever reads the rows adds the file and the
line, or the data set and the row.
"""

import json
import math
import reprlib
from collections.abc import Iterator
from pathlib import Path

from data import UserError

BOM = b"\xef\xbb\xbf"  # some programs begin a UTF-8 file with this mark
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # and one in UTF-16 with one of these


def read_jsonl(path: Path) -> Iterator[tuple[int, object]]:
    """(line number, row) of every line of a jsonl file that is not blank.

    Raises UserError, with the file and the line, for what is not JSON, and OSError for a file that
    is missing or cannot be read.
    """
    check_file(path)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and line.startswith(UTF_16):
                raise UserError(f"{path} is UTF-16; save it as UTF-8")
            line = line.removeprefix(BOM).strip()
            if not line:
                continue
            try:
                row = parse(line)
            except UserError as error:
                raise UserError(f"{path}, line {number} {error}") from None
            yield number, row


def check_file(path: Path, what_else: str = "") -> None:
    """Refuse what is no file; `what_else` says what may be given instead."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing{what_else}")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise FileNotFoundError(f"{path} is {what}; give the path of a .jsonl file")


def parse(line: bytes) -> object:
    """The value that a line of JSON holds."""
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise UserError(f"is not JSON: byte {error.start + 1} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise UserError(f"is not JSON: {error.msg} (character {error.pos + 1})") from None
    except RecursionError:
        raise UserError("is nested too deeply for a row of data") from None
    except ValueError:  # Python reads no whole number of more than 4,300 digits
        raise UserError("holds a number of too many digits; write it as text") from None


# --- fields ---------------------------------------------------------------------------------------


def value_of(row: dict, name: str) -> object:
    """The field's value. null is as good as no field, and so is NaN, pandas's word for it."""
    value = row.get(name)
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def text_of(row: dict, name: str) -> str | None:
    """The text in a field, or None where there is none."""
    value = value_of(row, name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise UserError(f"field {name} is {type_name(value)}, must be text")
    return valid(value)


def texts_of(row: dict, name: str) -> tuple[str, ...]:
    """The texts in a field: a list of them, or a single one. null and blank ones are left out."""
    value = value_of(row, name)
    if value is None:
        return ()
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple):
        raise UserError(f"field {name} is {type_name(value)}, must be text or a list of texts")
    texts = []
    for item in value:
        if item is None:
            continue
        if not isinstance(item, str):
            raise UserError(f"field {name} holds {type_name(item)}, must hold texts")
        if item.strip():
            texts.append(valid(item))
    return tuple(texts)


def label_of(row: dict, name: str) -> str:
    """A text or a number in a field, as text; "" where there is none. 3 is "3", and so is 3.0."""
    value = value_of(row, name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f"field {name} is {type_name(value)}, must be text or a number")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of whole numbers with gaps is written with fractions
    return valid(str(value))


def valid(text: str) -> str:
    """The text, with U+FFFD for every half of a character that stands alone.

    JSON can write such halves, as in "\\ud83d", but UTF-8 cannot. The tokenizer does the same.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def type_name(value: object) -> str:
    """A value's type in words: "a list"."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    for kind, name in ((int | float, "a number"), (str, "text"), (dict, "an object")):
        if isinstance(value, kind):
            return name
    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"


# --- what a message quotes ------------------------------------------------------------------------

SHORT = reprlib.Repr()
SHORT.maxstring = 60
SHORT.maxother = 60


def quoted(value: object) -> str:
    """The value as Python writes it, cut to a few words."""
    return one_line(SHORT.repr(value))


def one_line(text: str, most: int = 200) -> str:
    """The text without line breaks, cut to at most so many characters, fit to be printed."""
    line = " ".join(valid(text[: 2 * most]).split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def names_of(row: dict) -> str:
    """The names of a row's fields, for a message."""
    return one_line(", ".join(map(str, row))) or "none"
