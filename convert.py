"""Public OLMo2 checkpoints in, ours out, as Hugging Face directories.

    python convert.py list allenai/OLMo-2-0425-1B        # checkpoints kept during its pre-training
    python convert.py from-hf allenai/OLMo-2-0425-1B --revision stage1-step10000-tokens21B \\
        --out out/olmo2/21B.pt
    python convert.py from-hf some/directory --out out/4B.pt
    python convert.py to-hf out/4B.rl.pt some/directory  # for transformers, vLLM and the harness

Such a directory has config.json, safetensors files and tokenizer.json. Every check is made before
the first byte is written (plumbing/hf_format.py). Tensors go from file to file through memory maps,
so that memory never holds more than one copy of the weights.
"""

import argparse
import math
import os
import re
import shutil
import sys
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file as save_safetensors

from data import UserError
from data.files import write_aside
from data.tokenizer import PAD, get_tokenizer, special_ids, to_json
from model import PRESETS, ModelConfig, Transformer
from plumbing import hub
from plumbing.checkpoint import check_kind, read_file, save_file, tokenizer_of
from plumbing.flags import OneLineParser, check, field_comments, leave
from plumbing.hf_format import (
    check_tensors,
    find_tensors,
    hf_config,
    hf_name,
    model_config,
    read_json,
    read_tensor,
    write_json,
)
from plumbing.identity import is_finished, make_facts
from plumbing.units import count


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
    if is_finished(config.out, config):
        return
    # The small files first: what is wrong with them is said before gigabytes come.
    folder = source_folder(config, ["config.json", "tokenizer.json"])
    shape = model_config(folder / "config.json")
    tokenizer = config.tokenizer or own_tokenizer(folder)
    encoding = get_tokenizer(tokenizer)
    rows = shape.padded_vocab_size
    check(
        encoding.n_vocab <= rows,
        f"tokenizer {tokenizer} has {encoding.n_vocab} ids, the model only {rows} rows; "
        "give the right --tokenizer",
    )
    shape = replace(shape, vocab_size=encoding.n_vocab)

    patterns = ["config.json", "tokenizer.json", "*.safetensors", "*.safetensors.index.json"]
    folder = source_folder(config, patterns)
    with torch.device("meta"):
        sizes = {name: p.shape for name, p in Transformer(shape).state_dict().items()}
    place = find_tensors(folder)
    check_tensors(place, {hf_name(name): size for name, size in sizes.items()})

    kept = keep_tokenizer(tokenizer, Path(config.out).parent)
    weights = {}
    for name in sizes:
        weights[name] = read_tensor(place[hf_name(name)], hf_name(name))
    named = hub.revision_facts(config.revision)
    facts = make_facts(
        config,
        "base",
        step=named.get("step", 0),
        parent=None,
        tokens=config.tokens or named.get("tokens"),
        tokenizer=kept,
        corpus=config.source,
        preset=config.preset or nearest_preset(shape),
        commit=None if os.path.isdir(config.source) else folder.name,
    )
    save_file(config.out, {"model": weights, "config": asdict(shape), "facts": facts})
    compare_ends_of_text(folder, encoding)
    print_result(config, shape, facts)


def source_folder(config: Config, patterns: list[str]) -> Path:
    """The folder with the source's files of these patterns, downloaded if it is on the hub."""
    if os.path.isdir(config.source):
        message = f"{config.source} is a directory; --revision is for repositories on the hub"
        check(not config.revision, message)
        return Path(config.source)
    check(
        re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", config.source) is not None,
        f"{config.source} is missing: neither a directory nor owner/name of a hub repository",
    )
    return hub.fetch(config.source, config.revision, patterns)


def own_tokenizer(folder: Path) -> str:
    path = folder / "tokenizer.json"
    message = f"{path} is missing; give --tokenizer dolma2 or the path of a tokenizer.json"
    check(path.is_file(), message)
    return str(path)


def keep_tokenizer(name: str, folder: Path) -> str:
    """Copy a tokenizer.json beside the checkpoint, so that both travel together -> its new name."""
    if name in ("toy", "dolma2"):
        return name
    content = Path(name).read_bytes()
    kept = folder / "tokenizer.json"
    if not kept.is_file():
        write_aside(kept, lambda file: file.write(content))
    message = f"{kept} is another tokenizer than {name}; give an --out in another folder"
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


def to_hf(ckpt: str, out: str) -> None:
    """Write a checkpoint as a directory, which is there as a whole or not at all."""
    free = not os.path.exists(out) or (os.path.isdir(out) and not os.listdir(out))
    check(free, f"{out} exists and is not an empty directory; give another or delete it")
    content = read_file(ckpt, mmap=True)
    check_kind(ckpt, content)
    aside = Path(out.rstrip("/") + ".tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        write_directory(aside, content, tokenizer_of(content["facts"], ckpt))
        if os.path.isdir(out):
            os.rmdir(out)
        os.replace(aside, out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    counts = Counter(p.dtype for p in content["model"].values())
    parts = []
    for dtype, n in counts.items():
        parts.append(f"{n} tensors of {str(dtype).removeprefix('torch.')}")
    loads = f"AutoModelForCausalLM.from_pretrained({out!r}) loads it"
    print(f"wrote {out}: {', '.join(parts)}; {loads}")


def write_directory(folder: Path, content: dict, tokenizer: str) -> None:
    """The files of a Hugging Face directory, from what a checkpoint holds and its tokenizer."""
    weights = {}
    for name, p in content["model"].items():
        weights[hf_name(name)] = p
    save_safetensors(weights, folder / "model.safetensors", metadata={"format": "pt"})

    encoding = get_tokenizer(tokenizer)
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
    shape = ModelConfig(**content["config"])
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
        values["tokens"] = count(values["tokens"])
        from_hf(Config(**values))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (UserError, OSError) as error:
        leave(f"convert.py: {error}")
    except KeyboardInterrupt:
        leave("convert.py: interrupted; nothing was written")
