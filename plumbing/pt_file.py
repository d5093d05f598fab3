"""A file of torch.save, read without trust: what it is, whether it is whole, and what is in it.

torch.load runs no code from the file (weights_only), but it compares no checksums, and what is
wrong surfaces as many exception types. So the file is looked at first. Only what was shown to be
damaged is called damaged, and only then does a message say to delete it.
"""

import errno
import os
import re
import stat
import warnings
import zipfile
from collections.abc import Iterator

import torch

from data.files import FileError, file_error, file_errors

NO_CHECKPOINT = "is not a checkpoint of this project"
AGAIN = "delete it and make it again"
MAKERS = "pretrain.py, the recipes and convert.py write them"
BLOCK = 2**20  # bytes read at a time


def read_file(path: str, mmap: bool = False, whole: bool = True) -> dict:
    """The dict that torch.save has written, on the CPU.

    `whole`: the checksums of all bytes are compared (2 GB/s), else those of what describes the
    tensors. Raises FileNotFoundError, or OSError of one line that says what the file is instead.
    """
    check_is_file(path)
    with file_errors("read", path):
        sizes = check_zip(path, whole)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what strangers' files hold
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except OSError as error:
        raise file_error("read", path, error) from error
    except MemoryError as error:
        raise no_memory(path) from error
    except Exception as error:  # they have no common class
        raise unreadable(path, error) from error
    if not isinstance(content, dict):
        raise FileError(f"{path} {NO_CHECKPOINT}; convert.py brings others in")
    check_storages(path, content, sizes)
    return content


# ------------------------------------------------------------------------------------ what it is


def check_is_file(path: str) -> None:
    """Say of everything that does not begin like a checkpoint what it is instead."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        there = what_is_there(os.path.dirname(path) or ".")
        raise FileNotFoundError(f"{path} is missing; {there}") from None
    except OSError as error:
        raise file_error("read", path, error) from error
    if stat.S_ISDIR(mode):
        raise FileError(f"{path} is a folder, not a checkpoint; {what_to_do_with_folder(path)}")
    if not stat.S_ISREG(mode):
        raise FileError(f"{path} is not a file; give the path of a checkpoint")
    with file_errors("read", path), open(path, "rb") as file:
        head = file.read(16)
    if not head:
        raise FileError(f"{path} is damaged or not a checkpoint (it is empty); {AGAIN}")
    if head[8:9] == b"{" and path.endswith(".safetensors"):
        folder = os.path.dirname(path) or "."
        message = f"{path} is a safetensors file, not a checkpoint"
        raise FileError(f"{message}; {command_for(folder)} brings the folder's model in")
    if head.startswith((b"\x80", b"GGUF")):
        message = f"{path} {NO_CHECKPOINT}, but weights in another format"
        raise FileError(f"{message}; save them as safetensors and bring them in with convert.py")
    if not head.startswith(b"PK") and not zipfile.is_zipfile(path):
        reason = "it does not begin as one"
        raise FileError(f"{path} is damaged or not a checkpoint ({reason}); {MAKERS}")


def what_is_there(folder: str) -> str:
    names = checkpoints_in(folder)
    return f"there are {', '.join(names)}" if names else "run pretrain.py first"


def checkpoints_in(folder: str) -> list[str]:
    """The names of the checkpoints in a folder, at most 20; none where it cannot be read."""
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(".pt"))[:20]
    except (OSError, ValueError):
        return []


def what_to_do_with_folder(path: str) -> str:
    if os.path.isfile(os.path.join(path, "config.json")):
        return f"it holds Hugging Face files: {command_for(path)}"
    names = checkpoints_in(path)
    if names:
        return f"it holds {', '.join(names)}; give one of them"
    if path.rstrip("/").endswith(".resume"):
        return "it holds the state of a run: the run's own command goes on from there"
    return "give the path of a .pt file"


def command_for(folder: str) -> str:
    return f"python convert.py from-hf {folder} --out NAME.pt"


# ------------------------------------------------------------------------------------ is it whole


def check_zip(path: str, whole: bool) -> list[int]:
    """Compare checksums -> the sizes of the parts that hold tensors, in bytes.

    Raises FileError, which says to delete the file only where its bytes are shown to be damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            pickles = [part for part in parts if part.filename.endswith("/data.pkl")]
            stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
            names = {part.filename for part in parts}
            if len(pickles) != 1 or not stored or len(names) < len(parts):
                reason = "it is a zip file of another kind"
                raise FileError(f"{path} is damaged or not a checkpoint ({reason}); {MAKERS}")
            for part in parts if whole else pickles:
                compare_checksum(archive, part)
    except FileError:
        raise
    except MemoryError as error:
        raise no_memory(path) from error
    except Exception as error:  # a damaged zip surfaces as many exception types
        from_disk = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
        if from_disk:
            raise
        reason = "its bytes are not those that were written"
        raise FileError(f"{path} is damaged or not a checkpoint ({reason}); {AGAIN}") from error
    prefix = pickles[0].filename.removesuffix("data.pkl") + "data/"
    return [part.file_size for part in parts if part.filename.startswith(prefix)]


def compare_checksum(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> None:
    """zipfile compares it when the last byte has been read; raises BadZipFile."""
    n = 0
    with archive.open(part) as file:
        while block := file.read(BLOCK):
            n += len(block)
    if n != part.file_size:
        raise zipfile.BadZipFile(f"{part.filename} is cut")


# ------------------------------------------------------------------------------------ is it ours


def no_memory(path: str) -> FileError:
    return file_error("read", path, OSError(errno.ENOMEM, ""))


def unreadable(path: str, error: Exception) -> FileError:
    """What torch.load's exception means for a file whose checksums are right."""
    text = str(error)
    number = re.search(r"\((\d{1,3})\)", text)  # as in "Too many open files (24)"
    if isinstance(error, RuntimeError) and number and os.strerror(int(number[1])) in text:
        return file_error("read", path, OSError(int(number[1]), ""))
    if "allocate memory" in text:
        return no_memory(path)
    return FileError(f"{path} {NO_CHECKPOINT} ({type(error).__name__}); {MAKERS}")


def check_storages(path: str, content: dict, sizes: list[int]) -> None:
    """The tensors need exactly the bytes that the file has for them.

    Else some would be read from where nothing was written, or two would share their memory.
    """
    storages = {}  # address -> bytes
    for x in tensors_in(content):
        if x.layout == torch.strided and x.device.type == "cpu":
            storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
    found = sorted(size for size in storages.values() if size)
    if found != sorted(size for size in sizes if size):
        raise FileError(f"{path} {NO_CHECKPOINT} (its tensors do not fit its bytes); {MAKERS}")


def tensors_in(value) -> Iterator[torch.Tensor]:
    """All tensors in nested dicts, lists and tuples; a container that stands twice counts once."""
    seen = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield value
        if id(value) in seen or not isinstance(value, dict | list | tuple | set):
            continue
        seen.add(id(value))
        waiting.extend(value.values() if isinstance(value, dict) else value)
