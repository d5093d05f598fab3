"""The state of an unfinished run, checked against the model and the optimizers that it is for."""

import os

import torch

from data.files import FileError
from plumbing.checked import check_names, check_plain, not_finite, short, type_name
from plumbing.pt_file import read_file


def read_state(path: str, mmap: bool = False) -> dict:
    """The state that plumbing/resume.py has written: every part is there and of the right type.

    Raises OSError where the file is damaged, or something else.
    """
    state = read_file(path, mmap)
    for name, kind in (("step", int), ("config", dict), ("model", dict), ("optimizers", list)):
        if type(state.get(name)) is not kind:
            has = type_name(state[name]) if name in state else "missing"
            raise wrong(path, f"{name} is {has}, not a {kind.__name__}")
    if state["step"] < 0:
        raise wrong(path, f"step is {state['step']}")
    tensors = ("model", "optimizers", "reference")
    settings = {name: value for name, value in state.items() if name not in tensors}
    check_plain(path, "settings", settings, advice(path))
    return state


def check_state(path: str, state: dict, model, optimizers, reference=None) -> None:
    """Refuse a state whose tensors are not those of this model and of its optimizers.

    Nothing has been put into the model then. Raises OSError, which names the tensor.
    """
    check_weights(path, "model", state["model"], model)
    if reference is not None:
        check_weights(path, "reference", state.get("reference"), reference)
    if len(state["optimizers"]) != len(optimizers):
        found = len(state["optimizers"])
        raise wrong(path, f"it has {found} optimizers, this run has {len(optimizers)}")
    for number, (optimizer, saved) in enumerate(zip(optimizers, state["optimizers"]), 1):
        check_optimizer(path, f"optimizer {number}", saved, optimizer)


def check_weights(path: str, what: str, tensors, model) -> None:
    check_names(path, tensors, f"the tensors of {what}", advice(path))
    now = model.state_dict()
    for name in sorted(now.keys() ^ tensors.keys()):
        has = "lacks" if name in now else "has"
        raise wrong(path, f"{what} {has} the tensor {short(name)}")
    for name, p in now.items():
        check_tensor(path, f"{what}'s {name}", tensors[name], p.shape, p.dtype)


def check_optimizer(path: str, what: str, saved, optimizer: torch.optim.Optimizer) -> None:
    """The groups are those of this optimizer, and either all parameters have moments or none."""
    whole = isinstance(saved, dict) and isinstance(saved.get("state"), dict)
    if not whole or not isinstance(saved.get("param_groups"), list):
        raise wrong(path, f"{what} has no state and param_groups")
    check_plain(path, f"{what}'s param_groups", saved["param_groups"], advice(path))
    now = optimizer.state_dict()["param_groups"]
    if len(now) != len(saved["param_groups"]):
        raise wrong(path, f"{what} has {len(saved['param_groups'])} groups, this run {len(now)}")
    for i, (group, of_file) in enumerate(zip(now, saved["param_groups"])):
        if not isinstance(of_file, dict) or "params" not in of_file:
            raise wrong(path, f"{what} has no params in group {i}")
        for name in sorted(group.keys() & of_file.keys() - {"lr"}):  # the rate has a course
            same = type(of_file[name]) is type(group[name]) and of_file[name] == group[name]
            if not same:
                raise wrong(path, f"{what} has other {name} in group {i} than this run")
    parameters = []
    for group in optimizer.param_groups:
        parameters.extend(group["params"])
    moments = saved["state"]
    if moments and set(moments) != set(range(len(parameters))):
        raise wrong(path, f"{what} has moments of other parameters than this run")
    for i, of_one in moments.items():
        check_moments(path, f"{what}, parameter {i}", of_one, parameters[i])


def check_moments(path: str, what: str, moments, p: torch.Tensor) -> None:
    """AdamW's: step, exp_avg and exp_avg_sq of one parameter."""
    check_names(path, moments, what, advice(path))
    for name in ("step", "exp_avg", "exp_avg_sq"):
        if name not in moments:
            raise wrong(path, f"{what} lacks {name}")
        wanted = (torch.Size(), torch.float32) if name == "step" else (p.shape, p.dtype)
        check_tensor(path, f"{what}: {name}", moments[name], *wanted)


def check_tensor(
    path: str, what: str, x: torch.Tensor, shape: torch.Size, dtype: torch.dtype
) -> None:
    if x.shape != shape or x.dtype != dtype:
        found = f"shape {tuple(x.shape)} and type {x.dtype}"
        raise wrong(path, f"{what} has {found}, this run's {tuple(shape)} and {dtype}")
    plain = x.layout == torch.strided and x.device.type == "cpu"
    if not plain or x.numel() * x.element_size() > x.untyped_storage().nbytes():
        raise wrong(path, f"{what} holds no numbers of its own")
    if not_finite({what: x}):
        raise wrong(path, f"{what} holds NaN or infinite numbers")


def wrong(path: str, reason: str) -> FileError:
    return FileError(f"{path} is not the state of this run: {reason}; {advice(path)}")


def advice(path: str) -> str:
    return f"delete {os.path.dirname(path)}, and the same command begins again"
