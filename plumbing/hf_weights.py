"""The safetensors files of a Hugging Face directory: which of them count, and what is in them.

As in transformers: model.safetensors if it is there, else the files that the index lists. What is
checked comes from the files' headers alone, but for the numbers themselves: they have to be finite.
A safetensors file has no checksum. In those that convert.py writes a hash of the weights stands
among the metadata, and is compared when they come back.
"""

import errno
import json
import os
import re
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from data import UserError
from data.files import file_error, write_aside
from plumbing.checked import not_finite, short
from plumbing.flags import check
from plumbing.hashes import combined, tensor_hash, weights_hash
from plumbing.hf_format import AGAIN, read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
HASH = "weights"  # its name in the metadata
IGNORED = "rotary_emb.inv_freq"  # older versions stored what follows from the config


def find_tensors(folder: Path) -> dict[str, Path]:
    """Tensor name -> the safetensors file that holds it, as the files' own headers say.

    UserError names a file that is damaged or missing, and a tensor that stands in two files or in
    another file than the index says.
    """
    files, listed = weight_files(folder)
    place = {}
    for path in files:
        with open_shard(path) as shard:
            names = [name for name in shard.keys() if not name.endswith(IGNORED)]
        for name in names:
            first = place.setdefault(name, path)
            check(
                first == path,
                f"{folder}: the tensor {short(name)} stands in {first.name} and in {path.name}; "
                "remove the files that do not belong to the model",
            )
            check(
                listed.get(name, path.name) == path.name and (not listed or name in listed),
                f"{path} holds {short(name)}, which {INDEX} does not place there; {AGAIN}",
            )
    for name, file in listed.items():
        found = name in place or name.endswith(IGNORED)
        check(found, f"{folder / file} lacks {short(name)}, which {INDEX} places there; {AGAIN}")
    return place


def weight_files(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """The files that hold the model, and what the index says: tensor name -> file name."""
    single = folder / SINGLE
    listed = {}
    if (folder / INDEX).is_file():
        listed = read_index(folder / INDEX)
    if os.path.lexists(single):
        check(single.is_file(), f"{single} is no file, or a link to one that is gone; {AGAIN}")
        return [single], {}
    files = sorted({folder / name for name in listed.values()})
    if not listed:
        files = [path for path in sorted(folder.glob("*")) if SHARD.fullmatch(path.name)]
    if not files:
        raise UserError(f"{folder} {what_it_lacks(folder)}")
    absent = [path.name for path in files if not path.is_file()]
    named = ", ".join(absent[:3]) + (" ..." if len(absent) > 3 else "")
    check(not absent, f"{folder} lacks {named} of {len(files)} shards; download again")
    return files, listed


def read_index(path: Path) -> dict[str, str]:
    """Tensor name -> file name, from model.safetensors.index.json."""
    listed = read_json(path).get("weight_map")
    check(isinstance(listed, dict) and listed, f"{path} is damaged: no weight_map; {AGAIN}")
    for name, file in listed.items():
        is_name = isinstance(file, str) and file == os.path.basename(file) and file.isprintable()
        whole = is_name and file.endswith(".safetensors")
        check(whole, f"{path} is damaged: it places {short(name)} in {short(file)}; {AGAIN}")
    return listed


def what_it_lacks(folder: Path) -> str:
    for other in sorted(folder.glob("*.safetensors"))[:1]:
        hint = f"only {other.name}; rename it to {SINGLE} if it holds the model"
        return f"holds neither {SINGLE} nor its index ({hint})"
    for other in sorted(folder.glob("*.bin"))[:1]:
        hint = "load and save_pretrained it with transformers first"
        return f"holds no safetensors file (only {other.name}); {hint}"
    return "holds no safetensors file"


# ---------------------------------------------------------------------------------- one file


@contextmanager
def open_shard(path: Path):
    """An open safetensors file; a UserError where it is damaged, OSError where it is unreadable."""
    try:
        with safe_open(path, "pt") as shard:
            yield shard
    except (SafetensorError, OSError) as error:
        cause = cause_of(error)
        if cause:
            raise file_error("read", path, cause) from error
        raise UserError(f"{path} is truncated or damaged ({error}); {AGAIN}") from None
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        raise file_error("read", path, OSError(errno.ENOMEM, "")) from error


def cause_of(error: Exception) -> OSError | None:
    """The system's error behind one of safetensors, which tells it in words only."""
    number = re.search(r"os error (\d{1,4})", str(error))
    if number:
        return OSError(int(number[1]), "")
    return error if isinstance(error, OSError) else None


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """One safetensors file: the size of the header, the header as JSON, then all numbers.

    The library's own function writes the metadata in an order that changes from run to run. Here
    the same tensors are the same bytes. Wide types come first, so that each number stands at a
    multiple of its size. OSError of one line where the disk does not take it.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header = {"__metadata__": {"format": "pt", HASH: weights_hash(tensors)}}
    end = 0
    for name in names:
        x = tensors[name]
        start = end
        end += x.numel() * x.element_size()
        shape = list(x.shape)
        header[name] = {"dtype": TYPES[x.dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def write(file) -> None:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(as_bytes(tensors[name]))

    write_aside(path, write)


def as_bytes(x: torch.Tensor) -> memoryview:
    return memoryview(x.detach().contiguous().reshape(-1).view(torch.uint8).numpy())


def check_tensors(place: dict[str, Path], expected: dict[str, torch.Size]) -> None:
    """Compare names, shapes and types with what the model needs, from the headers alone.

    place: tensor name -> its file. expected: tensor name -> its shape.
    """
    missing = expected.keys() - place.keys()
    unknown = place.keys() - expected.keys()
    source = ", ".join(sorted({str(path) for path in place.values()})[:3])
    check(
        not missing,
        f"the source lacks {len(missing)} of {len(expected)} tensors: {first_of(missing)} "
        f"(files: {source})",
    )
    check(
        not unknown,
        f"the source holds {len(unknown)} tensors that OLMo2 has not: {first_of(unknown)} "
        f"(files: {source})",
    )
    names_in = {}  # file -> its tensors
    for name, path in place.items():
        names_in.setdefault(path, []).append(name)
    for path in sorted(names_in):
        with open_shard(path) as shard:
            for name in names_in[path]:
                header = shard.get_slice(name)
                shape = tuple(header.get_shape())
                dtype = header.get_dtype()
                check(
                    shape == expected[name],
                    f"{path}: {name} has shape {shape}, config.json asks for "
                    f"{tuple(expected[name])}",
                )
                check(
                    dtype in TYPES.values(),
                    f"{path}: {name} has type {dtype}; only F32, BF16 and F16 can be converted",
                )


def first_of(names) -> str:
    """The first three in the alphabet, and how many more there are."""
    shown = [short(name, quote=False) for name in sorted(names)[:3]]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(shown) + more


def read_tensors(place: dict[str, Path]) -> dict[str, torch.Tensor]:
    """All tensors in fp32. UserError where one holds NaN or infinite numbers, or was changed.

    Where a tensor is fp32 in its file this is a view of the mapped file, else a copy that lets the
    map go.
    """
    tensors = {}
    hashes = {}
    written = ""  # the hash, in a file of ours
    for name, path in place.items():
        with open_shard(path) as shard:
            written = (shard.metadata() or {}).get(HASH, "")
            x = shard.get_tensor(name)
        if written:
            hashes[name] = tensor_hash(x)
        tensors[name] = x.float()
        finite = not not_finite({name: tensors[name]})
        check(finite, f"{path}: {name} holds NaN or infinite numbers; {AGAIN}, or other weights")
    same = len(hashes) < len(place) or combined(hashes) == written
    check(same, f"{path} is damaged: its weights are not those that were written; make it again")
    return tensors
