"""Public OLMo2 checkpoints in, ours out, as Hugging Face directories.

    python convert.py list allenai/OLMo-2-0425-1B        # checkpoints kept during its pre-training
    python convert.py from-hf allenai/OLMo-2-0425-1B --revision stage1-step10000-tokens21B \\
        --out out/olmo2/21B.pt
    python convert.py from-hf some/directory --out out/1B/4B.pt
    python convert.py to-hf out/1B/4B.rl.pt some/directory  # for transformers, vLLM and the harness

Such a directory has config.json, safetensors files and tokenizer.json. Every check is made before
the first byte is written (plumbing/hf_format.py, plumbing/hf_weights.py). Tensors go from file to
file through memory maps, so that memory never holds more than one copy of the weights.
"""

import argparse
import math
import os
import re
import shutil
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from data import UserError, lock
from data.files import file_errors, write_aside
from data.tokenizer import PAD, get_tokenizer, special_ids, to_json
from model import PRESETS, ModelConfig, Transformer
from plumbing import hub
from plumbing.checked import shapes_of
from plumbing.checkpoint import read_checkpoint, save_weights, tokenizer_for, tokenizer_of
from plumbing.flags import OneLineParser, check, field_comments, leave
from plumbing.hf_format import hf_config, hf_name, model_config, read_json, write_json
from plumbing.hf_weights import SINGLE, check_tensors, find_tensors, read_tensors, write_tensors
from plumbing.identity import is_finished, make_facts
from plumbing.ranges import check_ranges
from plumbing.units import count

MOST_TOKENS = 10**16


@dataclass(frozen=True)
class Config:
    """of from-hf"""

    source: str  # a directory, or owner/name on the hub
    out: str  # the checkpoint to write, for example out/olmo2/21B.pt
    revision: str = ""  # branch, tag or commit on the hub; default main
    tokens: int = 0  # of pre-training so far, as 21B; default: as the revision's name says
    tokenizer: str = ""  # toy, dolma2 or a tokenizer.json; default the source's own
    preset: str = ""  # whose hyper-parameters grpo.py etc. take; default the nearest in size
    seed: int = 0  # the number that this pre-training run goes by in result rows


# ---------------------------------------------------------------------------- Hugging Face -> ours


def from_hf(config: Config) -> None:
    """Write the checkpoint of a directory or of a revision on the hub."""
    check(config.out.endswith(".pt"), f"--out {config.out}: a checkpoint's name ends in .pt")
    known = config.preset in ("", *PRESETS)
    check(known, f"unknown preset {config.preset}; there are {', '.join(PRESETS)}")
    lock.check_file(config.out)
    if os.path.exists(config.out) and is_finished(config.out, config):
        return
    source = check_source(config)
    try:
        if not is_finished(config.out, config):  # another process may have made it meanwhile
            write_checkpoint(config, source)
    finally:
        lock.release(config.out)


@dataclass
class Source:
    """What is known to be right before anything is written."""

    folder: Path
    commit: str | None  # of a repository on the hub
    shape: ModelConfig
    tokenizer: str
    weights: dict[str, torch.Tensor]  # in fp32; views of mapped files where the files are fp32


def check_source(config: Config) -> Source:
    """Read the source, and refuse what is wrong with it."""
    # The small files first: what is wrong with them is said before gigabytes come.
    folder = source_folder(config)
    shape = model_config(folder / "config.json")
    tokenizer = config.tokenizer or own_tokenizer(folder)
    n_vocab = get_tokenizer(tokenizer).n_vocab
    rows = shape.padded_vocab_size
    check(
        n_vocab <= rows,
        f"tokenizer {tokenizer} has {n_vocab} ids, the model only {rows} rows; "
        "give the right --tokenizer",
    )
    shape = replace(shape, vocab_size=n_vocab)

    commit = None
    if not os.path.isdir(config.source):
        commit = folder.name
        folder = hub.fetch_weights(config.source, commit)
    place = find_tensors(folder)
    check(
        shape.n_layers <= len(place),
        f"{folder / 'config.json'} asks for {shape.n_layers} layers, the source holds "
        f"{len(place)} tensors",
    )
    sizes = shapes_of(shape)
    check_tensors(place, {hf_name(name): size for name, size in sizes.items()})
    tensors = read_tensors(place)
    weights = {name: tensors[hf_name(name)] for name in sizes}
    return Source(folder, commit, shape, tokenizer, weights)


def write_checkpoint(config: Config, source: Source) -> None:
    named = hub.revision_facts(config.revision)
    facts = make_facts(
        config,
        "base",
        step=named.get("step", 0),
        parent=None,
        tokens=config.tokens or named.get("tokens"),
        tokenizer=keep_tokenizer(source.tokenizer, Path(config.out).parent),
        corpus=config.source,
        preset=config.preset or nearest_preset(source.shape),
        commit=source.commit,
    )
    save_weights(config.out, source.shape, source.weights, facts)
    compare_ends_of_text(source.folder, get_tokenizer(source.tokenizer))
    print_result(config, source.shape, facts)


def source_folder(config: Config) -> Path:
    """The folder with config.json and tokenizer.json, downloaded if the source is on the hub."""
    if os.path.isdir(config.source):
        message = f"{config.source} is a directory; --revision is for repositories on the hub"
        check(not config.revision, message)
        return Path(config.source)
    message = f"{config.source} is a file; give the directory that it is in"
    check(not os.path.exists(config.source), message)
    check(
        re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", config.source) is not None,
        f"{config.source} is missing: neither a directory nor owner/name of a hub repository",
    )
    return hub.fetch(config.source, config.revision, ["config.json", "tokenizer.json"])


def own_tokenizer(folder: Path) -> str:
    path = folder / "tokenizer.json"
    message = f"{path} is missing; give --tokenizer dolma2 or the path of a tokenizer.json"
    check(path.is_file(), message)
    return str(path)


def keep_tokenizer(name: str, folder: Path) -> str:
    """Copy a tokenizer.json beside the checkpoint, so that both travel together -> its new name."""
    if name in ("toy", "dolma2"):
        return name
    kept = folder / "tokenizer.json"
    with file_errors("read", name):
        content = Path(name).read_bytes()
    if not kept.is_file():
        write_aside(kept, lambda file: file.write(content))
    message = f"{kept} is another tokenizer than {name}; give an --out in another folder"
    with file_errors("read", kept):
        check(kept.read_bytes() == content, message)
    return str(kept)


def nearest_preset(shape: ModelConfig) -> str:
    """The preset whose hyper-parameters fit: that of this very shape, else the nearest in size."""

    def distance(preset: str) -> float:
        return abs(log_size_of_blocks(PRESETS[preset]) - log_size_of_blocks(shape))

    return min(PRESETS, key=distance)


def log_size_of_blocks(shape: ModelConfig) -> float:
    """log of the weights in the blocks' matrices."""
    attention = 2 * shape.d_model * shape.head_dim * (shape.n_heads + shape.n_kv_heads)
    mlp = 3 * shape.d_model * shape.d_ff
    return math.log(shape.n_layers * (attention + mlp))


def compare_ends_of_text(folder: Path, encoding) -> None:
    """Say where config.json and the tokenizer end a text with different ids."""
    eos = read_json(folder / "config.json").get("eos_token_id")
    if encoding.eot_token not in (eos if isinstance(eos, list) else [eos]):
        print(
            f"note: config.json ends text with id {eos}, the tokenizer with {encoding.eot_token}; "
            "the tokenizer's is used"
        )


def print_result(config: Config, shape: ModelConfig, facts: dict) -> None:
    with torch.device("meta"):
        n = Transformer(shape).num_parameters()
    tokens = "unknown" if facts["tokens"] is None else f"{facts['tokens']:,}"
    print(
        f"wrote {config.out}: {n:,} parameters, vocabulary {shape.vocab_size} in "
        f"{shape.padded_vocab_size} rows, {tokens} tokens of pre-training, "
        f"hyper-parameters of preset {facts['preset']}"
    )


# ---------------------------------------------------------------------------- ours -> Hugging Face


# What a directory consists of, so that the rest of a killed command is known for what it is.
FILES = (SINGLE, "tokenizer.json", "config.json", "generation_config.json", "tokenizer_config.json")


def to_hf(ckpt: str, out: str) -> None:
    """Write a checkpoint as a directory, which is there as a whole or not at all."""
    out = out.rstrip("/") or "/"
    check_free(out)
    shape, weights, facts = read_checkpoint(ckpt, mmap=True)
    tokenizer = tokenizer_of(facts, ckpt)
    encoding = tokenizer_for(tokenizer, shape)
    with lock.claimed(out):
        check_free(out)  # another process may have made it meanwhile
        aside = Path(f"{out}.tmp")
        remove_rest(aside)
        try:
            with file_errors("write", out):
                aside.mkdir(parents=True)
                write_directory(aside, shape, weights, tokenizer, encoding)
                if os.path.isdir(out):
                    os.rmdir(out)
                os.replace(aside, out)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    counts = Counter(p.dtype for p in weights.values())
    parts = []
    for dtype, n in counts.items():
        parts.append(f"{n} tensors of {str(dtype).removeprefix('torch.')}")
    loads = f"AutoModelForCausalLM.from_pretrained({out!r}) loads it"
    print(f"wrote {out}: {', '.join(parts)}; {loads}")


def check_free(out: str) -> None:
    """Refuse a path that holds something already."""
    check(os.path.isdir(out) or not os.path.lexists(out), f"{out} is a file; give a new directory")
    with file_errors("read", out):
        free = not os.path.isdir(out) or not os.listdir(out)
    check(free, f"{out} exists and is not an empty directory; give a new one")


def remove_rest(aside: Path) -> None:
    """Remove what a killed command left; never a folder of somebody else's."""
    if not os.path.lexists(aside):
        return
    ours = aside.is_dir() and {path.name.removesuffix(".tmp") for path in aside.iterdir()} <= set(
        FILES
    )
    check(ours, f"{aside} is in the way; move it, or give another directory")
    shutil.rmtree(aside)


def write_directory(
    folder: Path, shape: ModelConfig, weights: dict, tokenizer: str, encoding
) -> None:
    """The files of a Hugging Face directory."""
    named = {}
    for name, p in weights.items():
        named[hf_name(name)] = p
    write_tensors(folder / SINGLE, named)

    if tokenizer in ("toy", "dolma2"):
        write_json(folder / "tokenizer.json", to_json(encoding))
    else:
        shutil.copyfile(tokenizer, folder / "tokenizer.json")
    names = {}  # id -> how tokenizer.json spells a special token
    for token in read_json(folder / "tokenizer.json")["added_tokens"]:
        names[token["id"]] = token["content"]
    eos = encoding.eot_token
    pad = special_ids(encoding).get(PAD)
    ids = {"bos_token_id": None, "eos_token_id": eos, "pad_token_id": pad}
    about_tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": names[eos],
        "pad_token": names.get(pad),
        "model_max_length": shape.max_seq_len,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "config.json", hf_config(shape) | ids)
    write_json(folder / "generation_config.json", ids)
    write_json(folder / "tokenizer_config.json", about_tokenizer)


# ---------------------------------------------------------------------------------- flags


def command_parser() -> OneLineParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog="convert.py", description=__doc__, formatter_class=layout)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=OneLineParser)

    def add_command(name: str, text: str):
        return commands.add_parser(name, prog=f"convert.py {name}", help=text)

    listing = add_command("list", "print the revisions of a hub repository with their tokens")
    listing.add_argument("repo", help="owner/name")
    bring = add_command("from-hf", "a directory or hub repository -> a checkpoint")
    bring.add_argument("source", help="a directory, or owner/name on the hub")
    comments = field_comments(Config)
    bring.add_argument("--out", required=True, help=comments["out"])
    bring.add_argument("--revision", default="", help=comments["revision"])
    bring.add_argument("--tokens", default="0", help=comments["tokens"])
    bring.add_argument("--tokenizer", default="", help=comments["tokenizer"])
    bring.add_argument("--preset", default="", help=comments["preset"])
    bring.add_argument("--seed", type=int, default=0, help=comments["seed"])
    send = add_command("to-hf", "a checkpoint -> a directory that transformers loads")
    send.add_argument("ckpt", help="a checkpoint")
    send.add_argument("directory", help="a new or empty directory")
    return parser


def main(argv: list[str]) -> None:
    values = vars(command_parser().parse_args(argv))
    command = values.pop("command")
    if command == "list":
        hub.list_revisions(values["repo"])
    elif command == "to-hf":
        to_hf(values["ckpt"], values["directory"])
    else:
        tokens = values["tokens"]
        values["tokens"] = count(tokens)
        if not 0 <= values["tokens"] <= MOST_TOKENS:
            raise UserError(f"--tokens {tokens}: give how many the model has seen, as in 21B")
        config = Config(**values)
        check_ranges(config)
        from_hf(config)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (UserError, OSError) as error:
        leave(f"convert.py: {error}")
    except KeyboardInterrupt:
        leave("convert.py: interrupted; nothing was written")
