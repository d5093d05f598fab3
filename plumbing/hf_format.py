"""OLMo2 as Hugging Face directories hold it: config.json and safetensors files.

Parameters have the same shapes there as in model.py, and the same names behind a prefix. So to
convert is to check and to copy. What is checked comes from the files' headers alone.
"""

import json
import os
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from data import UserError
from model import ModelConfig
from plumbing.flags import check

# ---------------------------------------------------------------------------------- config.json


def read_json(path: Path) -> dict:
    """The object in a JSON file; UserError or FileNotFoundError where there is none."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; a Hugging Face directory has config.json, tokenizer.json and "
            "safetensors files"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); download it again") from None
    check(isinstance(content, dict), f"{path} is not a JSON object; download it again")
    return content


def write_json(path: Path, value: dict) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


# Our name of a size -> its name in config.json.
SIZES = {
    "padded_vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "d_ff": "intermediate_size",
    "max_seq_len": "max_position_embeddings",
    "n_kv_heads": "num_key_value_heads",
}


def model_config(path: Path) -> ModelConfig:
    """config.json -> our config, but for what the tokenizer decides.

    Whatever would make a decoder other than OLMo2's is refused.
    """
    hf = read_json(path)
    kind = (hf.get("model_type"), *(hf.get("architectures") or ["Olmo2ForCausalLM"]))
    check(
        kind == ("olmo2", "Olmo2ForCausalLM"),
        f"{path}: architecture {' '.join(map(str, kind))}; only olmo2, Olmo2ForCausalLM, can be "
        "converted",
    )
    hf["num_key_value_heads"] = hf.get("num_key_value_heads") or hf.get("num_attention_heads")
    sizes = {ours: hf.get(theirs) for ours, theirs in SIZES.items()}
    for ours, value in sizes.items():
        fits = type(value) is int and value > 0
        check(fits, f"{path}: {SIZES[ours]} is {value}; it must be a positive number")
    width = sizes["d_model"]
    heads = sizes["n_heads"]
    kv_heads = sizes["n_kv_heads"]
    check(
        width % (2 * heads) == 0 and heads % kv_heads == 0,
        f"{path}: width {width}, {heads} heads and {kv_heads} key-value heads do not divide",
    )
    rope = hf.get("rope_parameters") or {}  # transformers 5; 4 has rope_theta at the top
    theta = rope.get("rope_theta", hf.get("rope_theta"))
    eps = hf.get("rms_norm_eps")
    for name, value in {"rope_theta": theta, "rms_norm_eps": eps}.items():
        fits = type(value) in (int, float) and value > 0
        check(fits, f"{path}: {name} is {value}; it must be a positive number")
    check_decoder(path, hf, rope, head_dim=width // heads)
    return ModelConfig(**sizes, rope_theta=float(theta), norm_eps=float(eps))


def check_decoder(path: Path, hf: dict, rope: dict, head_dim: int) -> None:
    """Refuse every value of config.json that this decoder does not compute."""
    rope_type = rope.get("rope_type", "default")
    rotated = rope.get("partial_rotary_factor", 1)  # share of a head
    scaling = {} if rope else hf.get("rope_scaling") or {}  # transformers 4
    supported = {  # key -> (the file's value or its default, the only value that works)
        "hidden_act": (hf.get("hidden_act", "silu"), "silu"),
        "attention_bias": (hf.get("attention_bias") or False, False),
        "attention_dropout": (hf.get("attention_dropout") or 0, 0),
        "tie_word_embeddings": (hf.get("tie_word_embeddings") or False, False),
        "head_dim": (hf.get("head_dim") or head_dim, head_dim),
        "rope_scaling": (scaling, {}),
        "rope_parameters.rope_type": (rope_type, "default"),
        "rope_parameters.partial_rotary_factor": (rotated, 1),
        "sliding_window": (hf.get("sliding_window"), None),
        "clip_qkv": (hf.get("clip_qkv"), None),
        "quantization_config": (hf.get("quantization_config"), None),
    }
    for key, (found, only) in supported.items():
        check(found == only, f"{path}: {key} is {found}; this decoder has {only} only")


def hf_config(shape: ModelConfig) -> dict:
    """Our config -> config.json, without the tokenizer's ids.

    It has both spellings: rope_theta for transformers 4 and vLLM, rope_parameters for transformers
    5.
    """
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


# ---------------------------------------------------------------------------------- tensors


def hf_name(name: str) -> str:
    """Our name of a parameter -> its name there."""
    return name if name.startswith("lm_head.") else f"model.{name}"


@contextmanager
def open_shard(path: Path):
    """An open safetensors file; a UserError where it is damaged."""
    try:
        with safe_open(path, "pt") as shard:
            yield shard
    except SafetensorError as error:
        raise UserError(f"{path} is truncated or damaged ({error}); download it again") from None


def find_tensors(folder: Path) -> dict[str, Path]:
    """Tensor name -> the safetensors file that holds it, as the files' own headers say.

    The index, where there is one, says which files there are. UserError names a file that is
    damaged or missing.
    """
    index = folder / "model.safetensors.index.json"
    listed = {}  # tensor name -> file name
    if index.is_file():
        listed = read_json(index).get("weight_map", {})
    for name in listed.values():
        is_name = isinstance(name, str) and name == os.path.basename(name)
        check(is_name, f"{index} is damaged; download it again")
    files = sorted({folder / name for name in listed.values()})
    if not files:
        files = sorted(folder.glob("*.safetensors"))
    hint = ""
    for other in sorted(folder.glob("*.bin"))[:1]:
        hint = f" (only {other.name}); load and save_pretrained it with transformers first"
    check(bool(files), f"{folder} holds no safetensors file{hint}")
    absent = [path.name for path in files if not path.is_file()]
    named = ", ".join(absent[:3]) + (" ..." if len(absent) > 3 else "")
    check(not absent, f"{folder} lacks {named} of {len(files)} shards; download again")
    place = {}
    for path in files:
        with open_shard(path) as shard:
            for name in shard.keys():
                if listed.get(name, path.name) == path.name:
                    place[name] = path
    return place


def check_tensors(place: dict[str, Path], expected: dict[str, torch.Size]) -> None:
    """Compare names, shapes and types with what the model needs, from the headers alone.

    place: tensor name -> its file. expected: tensor name -> its shape.
    """
    missing = expected.keys() - place.keys()
    unknown = place.keys() - expected.keys()
    check(
        not missing,
        f"the source lacks {len(missing)} of {len(expected)} tensors: {first_of(missing)}",
    )
    check(
        not unknown,
        f"the source holds {len(unknown)} tensors that OLMo2 has not: {first_of(unknown)}",
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
                    dtype in ("F32", "BF16", "F16"),
                    f"{path}: {name} has type {dtype}; only F32, BF16 and F16 can be converted",
                )


def first_of(names) -> str:
    """The first three in the alphabet, and how many more there are."""
    text = ", ".join(sorted(names)[:3])
    return f"{text} and {len(names) - 3} more" if len(names) > 3 else text


def read_tensor(path: Path, name: str) -> torch.Tensor:
    """One tensor in fp32.

    Where it is fp32 in the file this is a view of the mapped file, else a copy that lets the map
    go.
    """
    with open_shard(path) as shard:
        return shard.get_tensor(name).float()
