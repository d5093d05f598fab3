"""Public OLMo2 checkpoints in, ours out: Hugging Face directories of config.json, safetensors and tokenizer.json.

    python convert.py list allenai/OLMo-2-0425-1B        # the checkpoints kept during its pre-training
    python convert.py from-hf allenai/OLMo-2-0425-1B --revision stage1-step10000-tokens21B --out out/olmo2/21B.pt
    python convert.py from-hf some/directory --out out/4B.pt
    python convert.py to-hf out/4B.rl.pt some/directory  # transformers, vLLM and lm-evaluation-harness load it

Parameters have the same names and shapes on both sides (model.py), so converting is checking and copying. Names,
shapes and types are read from the files' headers, and every check is made before the first byte is written. Tensors
go from file to file through memory maps: the memory in use is never more than one copy of the weights.
"""

import argparse
import json
import math
import os
import re
import shutil
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

import common
from common import check
from data import UserError
from data.tokenizer import PAD, get_tokenizer, to_json
from model import PRESETS, ModelConfig, Transformer, read_file, write_aside


@dataclass(frozen=True)
class Config:
    """of from-hf"""

    source: str  # a directory, or owner/name on the hub
    out: str  # the checkpoint to write, <t>.pt
    revision: str = ""  # branch, tag or commit on the hub; default main
    tokens: int = 0  # of pre-training so far; default: as the revision's name says
    tokenizer: str = ""  # toy, dolma2 or a tokenizer.json; default the source's own
    preset: str = ""  # whose hyper-parameters grpo.py etc. take; default the nearest in size
    seed: int = 0  # the number that this pre-training run goes by in result rows


# ---------------------------------------------------------------------------------------------- the hub


@contextmanager
def hub_errors(repo: str, revision: str = ""):
    """The hub's many exceptions as one line."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except RevisionNotFoundError:
        raise UserError(f"{repo} has no revision {revision}; `python convert.py list {repo}` prints them") from None
    except RepositoryNotFoundError:
        raise UserError(f"{repo} is neither a directory here nor a public repository on the hub; check the spelling") from None
    except Exception as error:  # no network, offline mode, a gateway's answer: the client has no common class for them
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{repo} is not a directory here, and the hub does not answer ({reason}); check the network or give a directory") from None


def revision_facts(name: str) -> dict:
    """'stage1-step10000-tokens21B' -> {stage: 1, step: 10000, tokens: 21000000000}; what a name lacks is absent.

    Stage 2 counts its own tokens from 0. Tokens are rounded up to a whole billion by who named them.
    """
    facts = {}
    for key, pattern in {"stage": r"stage(\d+)", "ingredient": r"ingredient(\d+)", "step": r"step(\d+)", "tokens": r"tokens?(\d+(?:\.\d+)?)([KMBT])"}.items():
        found = re.search(pattern, name, re.I)
        if found:
            scale = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}[found[2].upper()] if key == "tokens" else 1
            facts[key] = round(float(found[1]) * scale)
    return facts


def list_revisions(repo: str) -> None:
    """Print every branch and tag of a repository with the step and tokens its name tells, in training order."""
    from huggingface_hub import HfApi

    with hub_errors(repo):
        refs = HfApi().list_repo_refs(repo)
    names = [ref.name for ref in [*refs.branches, *refs.tags]]
    order = lambda name: [revision_facts(name).get(key, math.inf) for key in ("stage", "ingredient", "step", "tokens")]
    width = max(map(len, [*names, "revision"]))
    print(f"{'revision':<{width}}  {'step':>9}  {'tokens':>9}")
    for name in sorted(names, key=lambda name: (order(name), name)):
        facts = revision_facts(name)
        tokens = f"{facts['tokens'] / 1e9:,.0f}B" if "tokens" in facts else "-"
        print(f"{name:<{width}}  {facts.get('step', '-'):>9}  {tokens:>9}")


def fetch(config: Config, patterns: list[str]) -> Path:
    """The directory that holds the source's files of these patterns; a hub's are downloaded once and kept in its cache."""
    if os.path.isdir(config.source):
        check(not config.revision, f"{config.source} is a directory; --revision is for repositories on the hub")
        return Path(config.source)
    check(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", config.source) is not None, f"{config.source} is missing: neither a directory nor owner/name of a hub repository")
    from huggingface_hub import snapshot_download

    with hub_errors(config.source, config.revision):
        return Path(snapshot_download(config.source, revision=config.revision or None, allow_patterns=patterns))


# ---------------------------------------------------------------------------------------------- Hugging Face -> ours


def read_json(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; a Hugging Face directory has config.json, tokenizer.json and safetensors files")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); download it again") from None
    check(isinstance(content, dict), f"{path} is not a JSON object; download it again")
    return content


def model_config(path: Path) -> ModelConfig:
    """config.json -> our config, without the tokenizer's part. Whatever would make another decoder than OLMo2's is refused."""
    hf = read_json(path)
    kind = hf.get("model_type"), *(hf.get("architectures") or ["Olmo2ForCausalLM"])
    check(kind == ("olmo2", "Olmo2ForCausalLM"), f"{path}: architecture {' '.join(map(str, kind))}; only olmo2, Olmo2ForCausalLM, can be converted")
    rope = hf.get("rope_parameters") or {}  # transformers 5; before, rope_theta and rope_scaling stood at the top
    sizes = {
        "padded_vocab_size": "vocab_size", "d_model": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
        "d_ff": "intermediate_size", "max_seq_len": "max_position_embeddings",
    }  # fmt: skip
    values = {ours: hf.get(theirs) for ours, theirs in sizes.items()}
    values["n_kv_heads"] = hf.get("num_key_value_heads") or hf.get("num_attention_heads")
    for ours, value in values.items():
        check(type(value) is int and value > 0, f"{path}: {sizes.get(ours, 'num_key_value_heads')} is {value}; it must be a positive number")
    d, heads, kv_heads = values["d_model"], values["n_heads"], values["n_kv_heads"]
    check(d % (2 * heads) == 0 and heads % kv_heads == 0, f"{path}: width {d}, {heads} heads and {kv_heads} key-value heads do not divide")
    floats = {"rope_theta": rope.get("rope_theta", hf.get("rope_theta")), "norm_eps": hf.get("rms_norm_eps")}
    for ours, value in floats.items():
        check(type(value) in (int, float) and value > 0, f"{path}: {ours.replace('norm', 'rms_norm')} is {value}; it must be a positive number")
    supported = {  # value in the file, or its default -> the only one this decoder knows
        "hidden_act": (hf.get("hidden_act", "silu"), "silu"),
        "attention_bias": (hf.get("attention_bias") or False, False),
        "attention_dropout": (hf.get("attention_dropout") or 0, 0),
        "tie_word_embeddings": (hf.get("tie_word_embeddings") or False, False),
        "head_dim": (hf.get("head_dim") or d // heads, d // heads),
        "rope_scaling": (hf.get("rope_scaling") or {}, {}) if not rope else ({}, {}),
        "rope_parameters.rope_type": (rope.get("rope_type", "default"), "default"),
        "rope_parameters.partial_rotary_factor": (rope.get("partial_rotary_factor", 1), 1),
        "sliding_window": (hf.get("sliding_window"), None),
        "clip_qkv": (hf.get("clip_qkv"), None),
        "quantization_config": (hf.get("quantization_config"), None),
    }
    for key, (found, only) in supported.items():
        check(found == only, f"{path}: {key} is {found}; this decoder has {only} only")
    return ModelConfig(**values, **{k: float(v) for k, v in floats.items()})


def find_tensors(folder: Path) -> dict[str, Path]:
    """Tensor name -> the safetensors file that holds it. The files' own headers are read; a damaged or missing one is named."""
    index = folder / "model.safetensors.index.json"
    listed = read_json(index).get("weight_map", {}) if index.is_file() else {}
    check(all(isinstance(name, str) and name == os.path.basename(name) for name in listed.values()), f"{index} is damaged; download it again")
    files = sorted({folder / name for name in listed.values()}) or sorted(folder.glob("*.safetensors"))
    others = sorted(p.name for p in folder.glob("*.bin"))
    check(bool(files), f"{folder} holds no safetensors file" + (f" (only {others[0]}); load and save_pretrained it with transformers first" if others else ""))
    absent = [path.name for path in files if not path.is_file()]
    check(not absent, f"{folder} lacks {', '.join(absent[:3])}{' ...' if absent[3:] else ''} of {len(files)} shards; download again")
    place = {}
    for path in files:
        with open_shard(path) as shard:
            place.update({name: path for name in shard.keys() if listed.get(name, path.name) == path.name})
    return place


@contextmanager
def open_shard(path: Path):
    try:
        with safe_open(path, "pt") as shard:
            yield shard
    except SafetensorError as error:
        raise UserError(f"{path} is truncated or damaged ({error}); download it again") from None


def check_tensors(place: dict[str, Path], expected: dict[str, torch.Size]) -> None:
    """Names, shapes and types, from the headers alone."""
    some = lambda names: ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    missing, unknown = expected.keys() - place.keys(), place.keys() - expected.keys()
    check(not missing, f"the source lacks {len(missing)} of {len(expected)} tensors: {some(missing)}")
    check(not unknown, f"the source holds {len(unknown)} tensors that OLMo2 has not: {some(unknown)}")
    for path in sorted(set(place.values())):
        with open_shard(path) as shard:
            for name in (name for name, where in place.items() if where == path):
                header = shard.get_slice(name)
                shape, dtype = tuple(header.get_shape()), header.get_dtype()
                check(shape == expected[name], f"{path}: {name} has shape {shape}, config.json asks for {tuple(expected[name])}")
                check(dtype in ("F32", "BF16", "F16"), f"{path}: {name} has type {dtype}; only F32, BF16 and F16 can be converted")


def read_tensor(path: Path, name: str) -> torch.Tensor:
    """One tensor in fp32: a view of the mapped file where it is fp32 there, else a copy that lets the map go."""
    with open_shard(path) as shard:
        return shard.get_tensor(name).float()


def hf_name(name: str) -> str:
    return name if name.startswith("lm_head.") else f"model.{name}"


def nearest_preset(shape: ModelConfig) -> str:
    """The preset whose hyper-parameters fit: the one of this very shape, else the nearest in parameters of the blocks."""
    n = lambda c: math.log(c.n_layers * (2 * c.d_model * c.head_dim * (c.n_heads + c.n_kv_heads) + 3 * c.d_model * c.d_ff))
    return min(PRESETS, key=lambda name: abs(n(PRESETS[name]) - n(shape)))


def from_hf(config: Config) -> None:
    check(config.out.endswith(".pt"), f"--out {config.out}: a checkpoint's name ends in .pt")
    check(config.preset in ("", *PRESETS), f"unknown preset {config.preset}; there are {', '.join(PRESETS)}")
    if common.is_finished(config.out, config):
        return
    folder = fetch(config, ["config.json", "tokenizer.json"])  # small: what is wrong with them is said before gigabytes come
    shape = model_config(folder / "config.json")
    own = folder / "tokenizer.json"
    check(bool(config.tokenizer) or own.is_file(), f"{own} is missing; give --tokenizer dolma2 or the path of a tokenizer.json")
    tokenizer = config.tokenizer or str(own)
    encoding = get_tokenizer(tokenizer)
    rows = shape.padded_vocab_size
    check(encoding.n_vocab <= rows, f"tokenizer {tokenizer} has {encoding.n_vocab} ids, the model only {rows} rows; give the right --tokenizer")
    shape = replace(shape, vocab_size=encoding.n_vocab)

    folder = fetch(config, ["config.json", "tokenizer.json", "*.safetensors", "*.safetensors.index.json"])
    with torch.device("meta"):
        expected = {name: p.shape for name, p in Transformer(shape).state_dict().items()}
    place = find_tensors(folder)
    check_tensors(place, {hf_name(name): size for name, size in expected.items()})

    kept = keep_tokenizer(tokenizer, Path(config.out).parent)
    weights = {name: read_tensor(place[hf_name(name)], hf_name(name)) for name in expected}
    named = revision_facts(config.revision)
    tokens = config.tokens or named.get("tokens")
    facts = common.make_facts(
        config, "base", named.get("step", 0), None, tokens=tokens, tokenizer=kept, corpus=config.source,
        preset=config.preset or nearest_preset(shape), commit=None if os.path.isdir(config.source) else folder.name,
    )  # fmt: skip
    write_aside(config.out, {"model": weights, "config": asdict(shape), "facts": facts})
    eos = read_json(folder / "config.json").get("eos_token_id")
    if encoding.eot_token not in (eos if isinstance(eos, list) else [eos]):
        print(f"note: config.json ends text with id {eos}, the tokenizer with {encoding.eot_token}; the tokenizer's is used")
    n = sum(size.numel() for size in expected.values())
    about = f"{n:,} parameters, vocabulary {encoding.n_vocab} in {rows} rows, {'unknown' if tokens is None else f'{tokens:,}'} tokens of pre-training"
    print(f"wrote {config.out}: {about}, hyper-parameters of preset {facts['preset']}")


def keep_tokenizer(name: str, folder: Path) -> str:
    """Copy a tokenizer.json beside the checkpoint, so that both travel together -> its name from now on."""
    if name in ("toy", "dolma2"):
        return name
    content, kept = Path(name).read_bytes(), folder / "tokenizer.json"
    if not kept.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / "tokenizer.json.tmp"
        aside.write_bytes(content)
        os.replace(aside, kept)
    check(kept.read_bytes() == content, f"{kept} is another tokenizer than {name}; give an --out in another folder")
    return str(kept)


# ---------------------------------------------------------------------------------------------- ours -> Hugging Face


def to_hf(ckpt: str, out: str) -> None:
    check(not os.path.exists(out) or os.path.isdir(out) and not os.listdir(out), f"{out} exists and is not an empty directory; give another or delete it")
    content = read_file(ckpt, mmap=True)
    check({"model", "config", "facts"} <= content.keys(), f"{ckpt} is not a checkpoint of this project")
    shape = ModelConfig(**content["config"])
    tokenizer = common.tokenizer_of(content["facts"], ckpt)
    encoding = get_tokenizer(tokenizer)
    aside = out.rstrip("/") + ".tmp"
    shutil.rmtree(aside, ignore_errors=True)
    os.makedirs(aside)
    try:
        save_file({hf_name(name): p for name, p in content["model"].items()}, os.path.join(aside, "model.safetensors"), metadata={"format": "pt"})
        pad = encoding._special_tokens.get(PAD)
        ids = {"bos_token_id": None, "eos_token_id": encoding.eot_token, "pad_token_id": pad}
        if tokenizer in ("toy", "dolma2"):
            write_json(Path(aside, "tokenizer.json"), to_json(encoding))
        else:
            shutil.copyfile(tokenizer, Path(aside, "tokenizer.json"))
        name_of = {token["id"]: token["content"] for token in read_json(Path(aside, "tokenizer.json"))["added_tokens"]}
        files = {
            "config.json": {**hf_config(shape), **ids},
            "generation_config.json": ids,
            "tokenizer_config.json": {
                "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": name_of[encoding.eot_token], "pad_token": name_of.get(pad),
                "model_max_length": shape.max_seq_len, "clean_up_tokenization_spaces": False,
            },
        }  # fmt: skip
        for name, value in files.items():
            write_json(Path(aside, name), value)
        if os.path.isdir(out):
            os.rmdir(out)
        os.replace(aside, out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    types = ", ".join(f"{count} tensors of {str(dtype).removeprefix('torch.')}" for dtype, count in Counter(p.dtype for p in content["model"].values()).items())
    print(f"wrote {out}: {types}; AutoModelForCausalLM.from_pretrained({out!r}) loads it")


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def hf_config(shape: ModelConfig) -> dict:
    """config.json in both spellings: rope_theta for transformers 4 and vLLM, rope_parameters for transformers 5."""
    return {
        "architectures": ["Olmo2ForCausalLM"],
        "model_type": "olmo2",
        "vocab_size": shape.padded_vocab_size,
        "hidden_size": shape.d_model,
        "intermediate_size": shape.d_ff,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": shape.max_seq_len,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "rms_norm_eps": shape.norm_eps,
        "initializer_range": shape.embed_std,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "use_cache": True,
        "torch_dtype": "float32",
    }


# ---------------------------------------------------------------------------------------------- flags


def main(argv: list[str]) -> None:
    parser = common.OneLineParser(prog="convert.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=common.OneLineParser)
    listing = commands.add_parser("list", prog="convert.py list", help="print the revisions of a hub repository with their tokens")
    listing.add_argument("repo", help="owner/name")
    bring = commands.add_parser("from-hf", prog="convert.py from-hf", help="a directory or hub repository -> a checkpoint")
    bring.add_argument("source", help="a directory, or owner/name on the hub")
    bring.add_argument("--out", required=True, help="the checkpoint to write, for example out/olmo2/21B.pt")
    bring.add_argument("--revision", default="", help="branch, tag or commit on the hub")
    bring.add_argument("--tokens", default="0", help="of pre-training so far, as 21B; default: as the revision's name says")
    bring.add_argument("--tokenizer", default="", help="toy, dolma2 or a tokenizer.json; default the source's own")
    bring.add_argument("--preset", default="", help="whose hyper-parameters grpo.py etc. take; default the nearest in size")
    bring.add_argument("--seed", type=int, default=0, help="the number that this pre-training run goes by in result rows")
    send = commands.add_parser("to-hf", prog="convert.py to-hf", help="a checkpoint -> a directory that transformers loads")
    send.add_argument("ckpt", help="a checkpoint")
    send.add_argument("directory", help="a new or empty directory")
    flags = parser.parse_args(argv)
    if flags.command == "list":
        list_revisions(flags.repo)
    elif flags.command == "to-hf":
        to_hf(flags.ckpt, flags.directory)
    else:
        values = {k: v for k, v in vars(flags).items() if k != "command"}
        from_hf(Config(**{**values, "tokens": common.count(flags.tokens)}))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (UserError, OSError) as error:
        common.leave(f"convert.py: {error}")
    except KeyboardInterrupt:
        common.leave("convert.py: interrupted; nothing was written")
