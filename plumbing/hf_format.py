"""OLMo2's config.json, read and written, and the names of its tensors there.

Parameters have the same shapes there as in model.py, and the same names behind a prefix. So to
convert is to check and to copy. The files of the tensors are plumbing/hf_weights.py's.
"""

import json
from pathlib import Path

from data import files
from data.files import write_text
from model import ModelConfig
from plumbing.checked import LARGEST, short
from plumbing.flags import check

AGAIN = "download it again"
# What a converted repository may call itself: also as it was called before it had its name.
MODEL_TYPES = ("olmo2", "olmo_1124")
ARCHITECTURES = ("Olmo2ForCausalLM", "Olmo1124ForCausalLM")


def read_json(path: Path) -> dict:
    """The object in a JSON file; UserError or FileNotFoundError where there is none."""
    missing = "a Hugging Face directory has config.json, tokenizer.json and safetensors files"
    return files.read_json(path, missing, AGAIN)


def write_json(path: Path, value: dict) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def hf_name(name: str) -> str:
    """Our name of a parameter -> its name there."""
    return name if name.startswith("lm_head.") else f"model.{name}"


# ---------------------------------------------------------------------------------- config.json


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

    Whatever would make a decoder other than OLMo2's is refused, and every field of another type.
    """
    hf = read_json(path)
    check_architecture(path, hf)
    hf["num_key_value_heads"] = hf.get("num_key_value_heads") or hf.get("num_attention_heads")
    sizes = {ours: hf.get(theirs) for ours, theirs in SIZES.items()}
    for ours, value in sizes.items():
        check(
            type(value) is int and 1 <= value <= LARGEST[ours],
            f"{path}: {SIZES[ours]} is {short(value)}; it must be a positive number "
            f"of at most {LARGEST[ours]:,}",
        )
    width = sizes["d_model"]
    heads = sizes["n_heads"]
    kv_heads = sizes["n_kv_heads"]
    check(
        width % (2 * heads) == 0 and heads % kv_heads == 0,
        f"{path}: width {width}, {heads} heads and {kv_heads} key-value heads do not divide",
    )
    theta = rope_theta(path, hf)
    eps = hf.get("rms_norm_eps")
    for name, value in {"rope_theta": theta, "rms_norm_eps": eps}.items():
        check(
            type(value) in (int, float) and 0 < value < 1e30,  # neither NaN nor inf
            f"{path}: {name} is {short(value)}; it must be a positive number",
        )
    check_decoder(path, hf, head_dim=width // heads)
    return ModelConfig(**sizes, rope_theta=float(theta), norm_eps=float(eps))


def check_architecture(path: Path, hf: dict) -> None:
    """One architecture, OLMo2's decoder. A config may leave it to the model type."""
    kind = hf.get("model_type")
    names = hf.get("architectures") or ["Olmo2ForCausalLM"]
    names = names if isinstance(names, list) else [names]
    named = " ".join(short(name, quote=not isinstance(name, str)) for name in [kind, *names][:4])
    check(
        kind in MODEL_TYPES and len(names) == 1 and names[0] in ARCHITECTURES,
        f"{path}: architecture {named}; only olmo2, Olmo2ForCausalLM, can be converted",
    )


def rope_theta(path: Path, hf: dict):
    """The base of the rotary embedding, which may stand in three places.

    transformers 5 writes rope_parameters; 4 wrote rope_theta at the top, and rope_scaling, which
    transformers 5 still takes instead of rope_parameters.
    """
    for key in ("rope_parameters", "rope_scaling"):
        check_rope(path, key, hf.get(key) or {})
    rope = hf.get("rope_scaling") or hf.get("rope_parameters") or {}
    return rope.get("rope_theta", hf.get("rope_theta"))


def check_rope(path: Path, key: str, rope) -> None:
    """Refuse every rotary embedding but the plain one."""
    check(isinstance(rope, dict), f"{path}: {key} is {short(rope)}; it must be an object")
    if key == "rope_scaling":
        kinds = [rope[name] for name in ("rope_type", "type") if name in rope]
        plain = not rope or (kinds and all(kind == "default" for kind in kinds))
        check(plain, f"{path}: rope_scaling is {short(rope)}; this decoder has the default only")
    found = {
        f"{key}.rope_type": (rope.get("rope_type", rope.get("type", "default")), "default"),
        f"{key}.partial_rotary_factor": (rope.get("partial_rotary_factor", 1), 1),
    }
    for name, value in rope.items():
        if isinstance(value, dict | list):  # one embedding for each kind of layer
            found[f"{key}.{name}"] = (value, None)
    check_values(path, found)


def check_decoder(path: Path, hf: dict, head_dim: int) -> None:
    """Refuse every value of config.json that this decoder does not compute."""
    supported = {  # key -> (the file's value or its default, the only value that works)
        "hidden_act": (hf.get("hidden_act", "silu"), "silu"),
        "attention_bias": (hf.get("attention_bias") or False, False),
        "attention_dropout": (hf.get("attention_dropout") or 0, 0),
        "tie_word_embeddings": (hf.get("tie_word_embeddings") or False, False),
        "head_dim": (hf.get("head_dim") or head_dim, head_dim),
        "partial_rotary_factor": (hf.get("partial_rotary_factor") or 1, 1),
        "sliding_window": (hf.get("sliding_window"), None),
        "clip_qkv": (hf.get("clip_qkv"), None),
        "quantization_config": (hf.get("quantization_config"), None),
        "transformers_weights": (hf.get("transformers_weights"), None),  # another file of weights
    }
    check_values(path, supported)


def check_values(path: Path, supported: dict) -> None:
    """key -> (the value that was found, the only value that works)."""
    for key, (found, only) in supported.items():
        value = short(found, quote=not isinstance(found, str))
        check(found == only, f"{path}: {key} is {value}; this decoder has {only} only")


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
