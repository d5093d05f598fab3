"""What a checkpoint holds, checked field by field before a model is built from it.

A checkpoint may come from a stranger, from older code, or from a script that edited it. Each error
is one line that names the field or the tensor.
"""

import dataclasses
import hashlib
import json
import math
import re

import torch

from data.files import FileError
from model import ModelConfig, Transformer

ADVICE = "make the file again or give another"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MOST_VALUES = 100_000  # in the facts, whose config has some dozens
DEEPEST = 50  # nesting of the facts

# The largest sizes that are taken for meant. The largest open models have a tenth of them.
LARGEST = {
    "vocab_size": 2**24,
    "padded_vocab_size": 2**24,
    "d_model": 2**18,
    "n_layers": 2**12,
    "n_heads": 2**12,
    "n_kv_heads": 2**12,
    "d_ff": 2**20,
    "max_seq_len": 2**30,
}
POSITIVE = ("rope_theta", "norm_eps")

# The facts that programs rely on. Older code did not write all of them, and None is no value.
TYPES_OF_FACTS = {
    "recipe": str,
    "step": int,
    "tokens": int,
    "corpus": str,
    "corpus_content": str,
    "tokenizer": str,
    "preset": str,
    "seed": int,
    "parent": str,
    "parent_id": str,
    "parent_weights": str,
    "base_id": str,
    "config": dict,
    "code": str,
    "torch": str,
    "commit": str,
    "id": str,
    "weights": str,
}
OF_OLDER_CODE = {
    "corpus": None,
    "tokens": None,
    "seed": 0,
    "parent_id": None,
    "base_id": None,
    "config": {},
    "code": "unknown",
}
NEVER_NONE = ("recipe", "preset", "seed", "config", "code", "id", "weights", "step")


class Facts(dict):
    """What a checkpoint says of itself. A fact that it lacks is an OSError with its name."""

    def __init__(self, values: dict, path: str):
        super().__init__(values)
        self.path = path

    def __missing__(self, name: str):
        if name in OF_OLDER_CODE:
            return OF_OLDER_CODE[name]
        raise FileError(f"{self.path}: its facts have no {name}; {ADVICE}")


def check_content(path: str, content: dict) -> tuple[ModelConfig, dict, Facts]:
    """What read_file has read -> the model's config, its weights and the facts."""
    if not {"model", "config", "facts"} <= content.keys():
        message = f"{path} is not a checkpoint of this project; convert.py brings others in"
        raise FileError(message)
    facts = check_facts(path, content["facts"])
    config = check_config(path, content["config"])
    weights = content["model"]
    check_names(path, weights)
    layers = count_layers(weights)
    if layers != config.n_layers:
        message = f"{path}: its config has n_layers {config.n_layers}, its tensors are of {layers}"
        raise FileError(f"{message}; {ADVICE}")
    check_tensors(path, weights, shapes_of(config))
    return config, weights, facts


# ------------------------------------------------------------------------------------ the config


def check_config(path: str, values) -> ModelConfig:
    """The config of a model whose parts fit each other. Nothing of its sizes is built here."""
    if not isinstance(values, dict):
        raise FileError(f"{path}: its config is {type_name(values)}, not a dict; {ADVICE}")
    fields = {field.name: field.type for field in dataclasses.fields(ModelConfig)}
    for name in values:
        if name not in fields:
            raise FileError(f"{path}: its config has {short(name)}, which no model has; {ADVICE}")
    for name, kind in fields.items():
        if name in values:
            check_number(path, name, kind, values[name])
        elif name in LARGEST or name in POSITIVE:  # the others have defaults
            raise FileError(f"{path}: its config lacks {name}; {ADVICE}")
    config = ModelConfig(**values)
    reason = misfit(config)
    if reason:
        raise FileError(f"{path}: its config does not fit together: {reason}; {ADVICE}")
    return config


def check_number(path: str, name: str, kind: type, value) -> None:
    """One field of the config: a size, or a finite number."""
    if kind is int:
        fits = type(value) is int and 1 <= value <= LARGEST[name]
        wanted = f"a whole number from 1 to {LARGEST[name]:,}"
    else:
        fits = type(value) in (int, float) and abs(value) < 1e30  # neither inf nor NaN
        wanted = "a finite number"
        if fits and name in POSITIVE:
            fits = value > 0
            wanted = "a positive number"
    if not fits:
        raise FileError(f"{path}: its config has {name} {short(value)}; it must be {wanted}")


def misfit(config: ModelConfig) -> str:
    """Why these sizes make no decoder; "" where they do."""
    width = config.d_model
    heads = config.n_heads
    if width % heads:
        return f"d_model {width} is no multiple of n_heads {heads}"
    if config.head_dim % 2:
        return f"d_model {width} and n_heads {heads} give heads of odd width {config.head_dim}"
    if heads % config.n_kv_heads:
        return f"n_heads {heads} is no multiple of n_kv_heads {config.n_kv_heads}"
    if config.padded_vocab_size < config.vocab_size:
        rows = config.padded_vocab_size
        return f"vocab_size {config.vocab_size} is more than padded_vocab_size {rows}"
    return ""


# ------------------------------------------------------------------------------------ the facts


def check_facts(path: str, facts) -> Facts:
    """Facts are plain values, and those that programs rely on are of the right type."""
    if not isinstance(facts, dict):
        raise FileError(f"{path}: its facts are {type_name(facts)}, not a dict; {ADVICE}")
    check_plain(path, "facts", facts)
    for name, kind in TYPES_OF_FACTS.items():
        value = facts.get(name)
        if value is None and (name not in NEVER_NONE or name not in facts):
            continue
        if type(value) is not kind:
            message = f"{path}: its fact {name} is {short(value)}, not of type {kind.__name__}"
            raise FileError(f"{message}; {ADVICE}")
    for name, value in (facts.get("config") or {}).items():
        if isinstance(value, dict | list | tuple):
            message = f"{path}: the flag {short(name)} in its facts is {short(value)}"
            raise FileError(f"{message}; it must be a number or text")
    if "check" in facts and facts["check"] != facts_hash(facts):  # older code wrote none
        message = f"{path}: its facts are not those that were written"
        raise FileError(f"{message}; {ADVICE}")
    return Facts({name: value for name, value in facts.items() if name != "check"}, path)


def facts_hash(facts: dict) -> str:
    """A hash of all facts but itself, which must be plain values."""
    rest = {name: value for name, value in facts.items() if name != "check"}
    text = json.dumps(rest, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def check_plain(path: str, what: str, value, advice: str = ADVICE) -> None:
    """Refuse all but what JSON can write: numbers, text, None, and lists and dicts of them."""
    count = 0
    waiting = [(value, 0)]
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if count > MOST_VALUES or depth > DEEPEST:
            raise FileError(f"{path}: its {what} are too many or nested too deeply; {advice}")
        if type(value) is dict:
            parts = list(value.values())
            plain = all(type(name) is str for name in value)
        elif type(value) in (list, tuple):
            parts = value
            plain = True
        else:
            parts = []
            plain = value is None or type(value) in (str, int, float, bool)
        if not plain:
            raise FileError(f"{path}: its {what} hold {type_name(value)}; {advice}")
        waiting.extend((part, depth + 1) for part in parts)


# ------------------------------------------------------------------------------------ the tensors


def check_names(path: str, tensors, what: str = "its weights", advice: str = ADVICE) -> None:
    """A dict of plain tensors by their names."""
    if not isinstance(tensors, dict):
        raise FileError(f"{path}: {what} are {type_name(tensors)}, not tensors by name; {advice}")
    for name, x in tensors.items():
        if type(name) is not str or not isinstance(x, torch.Tensor):
            message = f"{path}: {what} hold {short(name)}, which is no named tensor"
            raise FileError(f"{message}; {advice}")


def count_layers(tensors) -> int:
    """The number of different N in names like layers.N.mlp.up_proj.weight."""
    layers = set()
    for name in tensors:
        found = re.match(r"(?:model\.)?layers\.(\d+)\.", name)
        if found:
            layers.add(found[1])
    return len(layers)


def shapes_of(config: ModelConfig) -> dict[str, torch.Size]:
    """Name -> shape of every tensor that a model of this config has, without making any."""
    with torch.device("meta"):
        return {name: p.shape for name, p in Transformer(config).state_dict().items()}


def check_tensors(path: str, tensors: dict, shapes: dict) -> None:
    """Exactly these names and shapes, of a type that can be trained, and every number there."""
    missing = shapes.keys() - tensors.keys()
    unknown = tensors.keys() - shapes.keys()
    for names, has in ((missing, "lacks"), (unknown, "has")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            message = f"{path} {has} the tensor {short(min(names), quote=False)}{more}"
            raise FileError(f"{message}, unlike the model of its config; {ADVICE}")
    for name, shape in shapes.items():
        x = tensors[name]
        if x.shape != shape:
            message = f"{path}: tensor {name} has shape {tuple(x.shape)}"
            raise FileError(f"{message}, the config says {tuple(shape)}; {ADVICE}")
        check_numbers_are_there(path, name, x)
    memory = {}  # address -> bytes
    for x in tensors.values():
        memory[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
    if sum(map(bytes_of, tensors.values())) > sum(memory.values()):
        raise FileError(f"{path}: several of its tensors share their numbers; {ADVICE}")


def check_numbers_are_there(path: str, name: str, x: torch.Tensor) -> None:
    """A type that can be trained, and one place in memory for each number."""
    plain = x.layout == torch.strided and x.device.type == "cpu" and type(x) in PLAIN
    if not plain or x.dtype not in DTYPES:
        kind = str(x.dtype).removeprefix("torch.")
        message = f"{path}: tensor {name} has type {kind} on {x.device}, layout {x.layout}"
        raise FileError(f"{message}; it must be float32, bfloat16 or float16")
    if bytes_of(x) > x.untyped_storage().nbytes():
        raise FileError(f"{path}: tensor {name} repeats the same bytes; {ADVICE}")


def bytes_of(x: torch.Tensor) -> int:
    """Of its numbers; a view has fewer or more than the memory that it looks at."""
    return x.numel() * x.element_size()


PLAIN = (torch.Tensor, torch.nn.Parameter)


def not_finite(tensors: dict[str, torch.Tensor]) -> str:
    """The name of the first tensor that holds NaN or an infinite number; "" where none does.

    The least and the largest number tell, since NaN is passed on: 30 GB/s on one core.
    """
    for name, x in tensors.items():
        if x.numel() and not all(math.isfinite(edge) for edge in torch.aminmax(x.detach())):
            return name
    return ""


# ------------------------------------------------------------------------------------ words


def type_name(value) -> str:
    return f"a {type(value).__name__}"


def short(value, quote: bool = True) -> str:
    """A value for a message: one line of at most 60 characters."""
    try:
        text = repr(value) if quote else repr(value)[1:-1]
    except (RecursionError, ValueError):  # Python writes no number of more than 4,300 digits
        text = type_name(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
