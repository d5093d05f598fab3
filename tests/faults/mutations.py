"""Mutations: a damaged file of any format, and a command that reads it.

What may come of it:

fine        the command did its work: with the result of the sound file, or the damaged file is
            still one of its format that means something else, which nobody can know
refused     one line that names the file, and no result
unclear     an end that is not one line, or one that does not name the file
traceback   also a segfault, or a kill for want of memory
hang        still running after the limit
silent      another result than the sound file's, from a file that is certainly damaged: values of
            the wrong type, what cannot be parsed, or, in the files of our own making which have
            checksums, any change. Unless a line says what was left out.
"""

import random
import re
import shutil
from functools import partial
from pathlib import Path

from tests.faults import children, compare, damage, formats, judge
from tests.faults.damage import Damage
from tests.faults.formats import FORMATS, Format
from tests.faults.rewards import REWARDS
from tests.faults.trials import FINE, Trial, judged_end

SAYS = re.compile(
    r"left out|ignored|not read|damaged|skipped|dropped|torn|note:|warning|replaced|removed|made again",
    re.IGNORECASE,
)


BUFFER = "model.layers.0.self_attn.rotary_emb.inv_freq"  # older files have it; it is no weight


def trials(count: int, seed: int, names: list[str], world: Path, scratch: Path) -> list[Trial]:
    """`count` of them, the format changing fastest."""
    found = []
    for i in range(count if names else 0):
        name = names[i % len(names)]
        number = seed + i // len(names)
        found.append(Trial("mutations", name, number, partial(trial, name, world, scratch)))
    return found


def trial(name: str, world: Path, scratch: Path, seed: int) -> tuple[str, str, str]:
    """Damage the file, run a command that reads it, and see what comes of it."""
    rng = random.Random(f"mutations {name} {seed}")
    kind = FORMATS[name]
    command = rng.choice(kind.commands)
    right = formats.sound_result(name, command, world, scratch)
    folder = children.own_folder(scratch)
    shutil.copytree(formats.fixture(name, world, scratch), folder)
    target = kind.target(folder)
    sound = target.read_bytes()
    damaged = draw_damage(rng, kind, sound)
    write(target, damaged)
    outcome = children.run(formats.argv_of(command, folder, world))
    verdict, said = judged(outcome, kind, folder, target, right, sound, damaged)
    return verdict, f"{command.split()[0]}: {damaged.words}", said


def draw_damage(rng: random.Random, kind: Format, sound: bytes) -> Damage:
    """Of the bytes, or of the values, where the format has any."""
    if kind.kind == "python" and rng.random() < 0.8:
        name = rng.choice(sorted(REWARDS))
        text, valid = REWARDS[name]
        return Damage(text if isinstance(text, bytes) else text.encode(), name, valid)
    if rng.random() < 0.4 or kind.kind in ("bytes", "python"):
        return damage.of_bytes(rng, sound)
    if kind.kind == "torch":
        return of_checkpoint(rng, sound, kind)
    if kind.kind == "jsonl":
        return damage.of_jsonl(rng, sound, kind.shape.fits)
    if kind.kind == "safetensors":
        return of_safetensors(rng, sound)
    return damage.of_json(rng, sound, kind.shape.fits)


def of_checkpoint(rng: random.Random, sound: bytes, kind: Format) -> Damage:
    """One value of what a .pt file holds; written again, so that its checksums are right."""
    import io

    import torch

    content = torch.load(io.BytesIO(sound), weights_only=True)
    value, words, valid = damage.of_values(rng, content, kind.shape.fits)
    return Damage({"torch": value}, words, valid)


def of_safetensors(rng: random.Random, sound: bytes) -> Damage:
    """One tensor, or one value of the header."""
    import safetensors.torch

    before = safetensors.torch.load(sound)
    tensors = dict(before)
    name = rng.choice(sorted(tensors))
    act = rng.choice(("tensor", "rename", "remove", "add"))
    if act == "add":
        tensors[rng.choice((BUFFER, "x"))] = tensors[name][:1]
    else:
        tensor = tensors.pop(name)
        if act == "tensor":
            tensors[name] = damage.draw_tensor(rng, tensor)
        elif act == "rename":
            tensors[name.replace(".weight", "").replace("model.", "")] = tensor
    kept = {}
    for key, value in tensors.items():
        if hasattr(value, "dtype") and not value.is_sparse and value.numel() < 10**7:
            kept[key] = value.contiguous().clone()
    content = safetensors.torch.save(kept, {"format": "pt"})
    return Damage(content, f"{act} {name}", may_stand(before, kept))


def may_stand(before: dict, after: dict) -> bool:
    """The same names and shapes, floating-point types that are converted, finite numbers."""
    import torch

    if after.keys() - {BUFFER} != before.keys():
        return False
    for name, tensor in before.items():
        known = after[name].dtype in (torch.float32, torch.float16, torch.bfloat16)
        if not known or after[name].shape != tensor.shape or not after[name].isfinite().all():
            return False
    return True


def write(target: Path, damaged: Damage) -> None:
    if isinstance(damaged.content, dict):
        import torch

        torch.save(damaged.content["torch"], target)
    else:
        target.write_bytes(damaged.content)


# ------------------------------------------------------------------------------ the verdict


def judged(outcome, kind: Format, folder: Path, target: Path, right, sound: bytes, damaged: Damage):
    """-> (verdict, what was said or is different)"""
    files, stdout = right
    if outcome.status != 0:
        names = (str(target), str(target.parent) + "/", target.name, *kind.names)
        verdict = judged_end(outcome, names)
        return verdict, "" if verdict == "refused" else outcome.end()
    own = str(target.relative_to(folder))
    said = outcome.stdout.replace(str(folder), ".")
    without = (own, *formats.COPIES, *kind.beside)
    found = compare.differences(files, compare.snapshot(folder, without, but=formats.IDENTITY))
    if not found and not prints_other(outcome.argv, stdout, said):
        return FINE, ""
    different = "; ".join(found) or "it prints another thing"
    if is_valid(kind, sound, damaged) or says_so(stdout, said + outcome.stderr):
        return FINE, different
    return "silent", different


def prints_other(argv: list[str], right: str, said: str) -> bool:
    """Of `python model.py FILE`, whose result is what it prints."""
    return argv[0] == "model.py" and right != said


def is_valid(kind: Format, sound: bytes, damaged: Damage) -> bool:
    """Whether the damaged file is still one of its format; see judge.py."""
    if damaged.valid is not None:
        return damaged.valid
    content = damaged.content
    if content == sound:
        return True
    if kind.sealed or kind.kind == "bytes":
        return False
    if kind.kind == "json":
        return judge.json_is_valid(sound, content, kind.shape)
    if kind.kind == "jsonl":
        return judge.jsonl_is_valid(sound, content, kind.shape, kind.appended)
    if kind.kind == "safetensors":
        return judge.safetensors_is_valid(sound, content)
    if kind.kind == "tokenizer":
        return judge.tokenizer_is_valid(sound, content, kind.shape)
    return judge.python_is_valid(content)


def says_so(right: str, said: str) -> bool:
    """Whether a line that the sound file does not bring says that something was left out."""
    known = set(right.splitlines())
    return any(line not in known and SAYS.search(line) for line in said.splitlines())
