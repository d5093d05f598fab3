"""Tensors of the pretended GPU, and what the host may do with them."""

import collections
import contextlib
import os
import sys
from dataclasses import dataclass

from tests.pretend_gpu import guard

if "torch" in sys.modules:
    raise ImportError("the pretended GPU comes before torch: python -m tests.pretend_gpu ...")
library = guard.load()

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

library.use_guard()

aten = torch.ops.aten
CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)
HERE = os.path.dirname(os.path.abspath(__file__))


class CaptureError(RuntimeError):
    """Something that a GPU does not permit while a graph is recorded."""


# ---------------------------------------------------------------------------------- the state


class State:
    """What the host has asked of the device."""

    waits = collections.Counter()  # "file.py:line what" -> how often the host waited there
    recording = None  # the graph that is being recorded
    pinned: dict[int, torch.Tensor] = {}  # storages; kept, since their addresses are their names
    queue: list = []  # copies from or to pinned memory, in their order, that may be under way
    over = 0  # copies that are known to be over


@dataclass
class CopyIn:
    """From pinned memory to the device: the device may read it at any time until it is over."""

    source: torch.Tensor
    content: torch.Tensor
    where: str

    def finish(self) -> None:
        if not same_bits(self.source, self.content):
            raise AssertionError(
                f"a pinned buffer changed before the copy from it, begun at {self.where}, was over"
            )


@dataclass
class CopyOut:
    """From the device to pinned memory: until it is over, anything may stand there."""

    target: torch.Tensor
    content: torch.Tensor

    def finish(self) -> None:
        self.target.copy_(self.content)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if not a.numel():
        return True
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def issued() -> int:
    """How many copies have been begun."""
    return State.over + len(State.queue)


def wait(what: str, until: int | None = None) -> None:
    """The host waits for the device here: for the first `until` copies, or for all there are."""
    if State.recording is not None:
        raise CaptureError(f"{what} at {caller()}: not permitted while a graph is recorded")
    State.waits[f"{caller()} {what}"] += 1
    while State.queue and (until is None or State.over < until):
        State.over += 1
        State.queue.pop(0).finish()


def caller() -> str:
    """file.py:line of the innermost frame that is neither torch's, Python's, nor ours."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        of_python = "site-packages" in path or "/lib/python" in path or path.startswith("<")
        if not of_python and os.path.dirname(path) != HERE:
            return f"{os.path.basename(path)}:{frame.f_lineno}"
        frame = frame.f_back
    return "a backward pass"


# ---------------------------------------------------------------------------------- the tensors


class OnGPU(torch.Tensor):
    """A tensor on "cuda"; `inner` has its numbers, on the CPU, with the same strides."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=GPU,
        )

    def __init__(self, inner: torch.Tensor):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return run(operator, args, kwargs or {})

    def tolist(self):  # torch's own reads memory, and is no operator
        wait("tolist")
        return self.inner.tolist()

    def __repr__(self):
        return f"OnGPU({self.inner})"

    # With these two, model.cuda() puts such tensors in the place of the parameters.

    def __tensor_flatten__(self):
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(parts, meta, size, stride):
        return OnGPU(parts["inner"])


class Everywhere(TorchDispatchMode):
    """Also what has no tensor of the GPU among its arguments comes to `run`: torch.zeros(...)."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        return run(operator, args, kwargs or {})


EVERYWHERE = Everywhere()


def inner(x):
    return x.inner if isinstance(x, OnGPU) else x


def outer(x):
    return OnGPU(x) if isinstance(x, torch.Tensor) else x


# ---------------------------------------------------------------------------------- operators

# What has to know a number that the device has.
ASKING = {
    aten._local_scalar_dense.default,
    aten.bincount.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.repeat_interleave.Tensor,
    aten._unique2.default,
    aten.unique_consecutive.default,
}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
MAKES_EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
NO_NUMBER = 0x55  # in integers that nobody has written

INSTEAD = {}  # operator -> what is run in its place, on the inner tensors
WHOLE = {}  # operator -> what is run in its place, on the tensors as they are


def instead_of(*operators):
    """A decorator: the function computes on the CPU what these operators compute on a GPU."""

    def put(function):
        INSTEAD.update(dict.fromkeys(operators, function))
        return function

    return put


def whole(*operators):
    """A decorator: the function does all that these operators do."""

    def put(function):
        WHOLE.update(dict.fromkeys(operators, function))
        return function

    return put


def run(operator, args, kwargs):
    """What any operator of torch does, wherever its tensors are."""
    if is_made_of_others(operator):
        with EVERYWHERE:
            return operator.decompose(*args, **kwargs)
    if operator in WHOLE:
        return WHOLE[operator](*args, **kwargs)
    kwargs = dict(kwargs)
    device = kwargs.get("device")
    device = None if device is None else torch.device(device)
    if kwargs.pop("pin_memory", False):
        return pinned(operator(*args, **kwargs))
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    on_gpu = [x for x in tensors if isinstance(x, OnGPU)]
    if device is not None and device.type == "cuda":
        kwargs["device"] = CPU
    elif not on_gpu or (device is not None and device.type != "cuda"):
        return operator(*tree_map(inner, args), **tree_map(inner, kwargs))
    check_generator(args, kwargs)
    if on_gpu:
        check_devices(operator, args, tensors)
        if asks(operator, args):
            wait(name_of(operator))
    out = compute(operator, tree_map(inner, args), tree_map(inner, kwargs))
    return wrapped(operator, args, kwargs, out, on_gpu)


def compute(operator, args, kwargs):
    """Run it on the CPU; while a graph is recorded, it is recorded too."""
    function = INSTEAD.get(operator, operator)
    if name_of(operator) in MAKES_EMPTY:
        function = poisoned(operator)
    graph = State.recording
    if graph is None:
        return function(*args, **kwargs)
    graph.before(operator, args)
    out = function(*args, **kwargs)
    graph.record(function, args, kwargs, out)
    return out


def wrapped(operator, args, kwargs, out, on_gpu):
    """The results as tensors of the GPU; what is a view of an argument, or is one, stays so."""
    views = [r.alias_info for r in operator._schema.returns]
    is_view = any(alias is not None and not alias.is_write for alias in views)
    with contextlib.ExitStack() as stack:
        if is_view and on_gpu:
            stack.enter_context(torch.inference_mode(on_gpu[0].is_inference()))
        result = tree_map(outer, out)
        if not on_gpu:
            return result
        return return_and_correct_aliasing(operator, args, kwargs, result)


def is_made_of_others(operator) -> bool:
    """In inference mode operators that torch composes of others come here whole."""
    if not torch.is_inference_mode_enabled() or not operator.name().startswith("aten::"):
        return False
    if operator in (aten.linear.default, aten._fused_rms_norm.default):
        return False
    key = "CompositeImplicitAutograd"
    return torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), key)


def name_of(operator) -> str:
    return operator.overloadpacket.__name__


def check_devices(operator, args, tensors) -> None:
    """Only single numbers and indices may be the host's, and an index costs a wait."""
    for x in tensors:
        if isinstance(x, OnGPU) or x.ndim == 0:
            continue
        if name_of(operator) in INDEXING and any(x is index for index in args[1]):
            wait(f"{name_of(operator)} with an index on the CPU")
            continue
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"cuda:0 and cpu! ({operator} at {caller()})"
        )


def check_generator(args, kwargs) -> None:
    """Random numbers of the device come from a generator of the device."""
    for x in tree_leaves((args, kwargs)):
        if isinstance(x, torch.Generator) and x.device.type == "cpu":
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")


def asks(operator, args) -> bool:
    """Whether the host has to know numbers of the device before it can go on."""
    if operator in ASKING:
        return True
    if name_of(operator) not in INDEXING:
        return False
    masks = [x for x in args[1] if x is not None and x.dtype in (torch.bool, torch.uint8)]
    fills = name_of(operator) != "index" and args[2].numel() == 1  # with one number: masked_fill
    return bool(masks) and not fills


def poisoned(operator):
    """A function that makes an empty tensor, with numbers in it that nobody can want."""

    def make(*args, **kwargs):
        x = operator(*args, **kwargs)
        if x.dtype.is_floating_point:
            return x.fill_(float("nan"))
        return x if x.dtype == torch.bool else x.fill_(NO_NUMBER)

    return make


# ---------------------------------------------------------------------------------- copies


def pinned(x: torch.Tensor) -> torch.Tensor:
    State.pinned[x.untyped_storage()._cdata] = x
    return x


def is_pinned(x: torch.Tensor) -> bool:
    return x.untyped_storage()._cdata in State.pinned


@whole(aten._pin_memory.default)
def pin(x, device=None):
    return pinned(x.clone())


@whole(aten.is_pinned.default)
def asked_whether_pinned(x, device=None) -> bool:
    return is_pinned(x)


@whole(aten._to_copy.default)
def to_copy(
    x, *, dtype=None, layout=None, device=None, pin_memory=None, non_blocking=False,
    memory_format=None,
):  # fmt: skip
    how = {"dtype": dtype}
    if memory_format is not None:
        how["memory_format"] = memory_format
    target = x.device if device is None else torch.device(device)
    if isinstance(x, OnGPU) and target.type == "cuda":
        return OnGPU(compute(aten._to_copy.default, (x.inner,), how))
    if isinstance(x, OnGPU):
        wait("a copy to the host")
    elif target.type == "cuda":
        copy_in(x, non_blocking)
    out = aten._to_copy.default(inner(x), **how)
    return OnGPU(out) if target.type == "cuda" else out


@whole(aten.copy_.default)
def copy_(target, source, non_blocking=False):
    if isinstance(target, OnGPU) and isinstance(source, OnGPU):
        compute(aten.copy_.default, (target.inner, source.inner), {})
        return target
    if isinstance(target, OnGPU) and (source.ndim or State.recording is not None):
        copy_in(source, non_blocking)
    elif isinstance(source, OnGPU) and non_blocking and is_pinned(target):
        State.queue.append(CopyOut(target, source.inner.to(target.dtype)))
        spoil(target)  # until it is over, something else stands there
        return target
    elif isinstance(source, OnGPU):
        wait("a copy to the host")
    inner(target).copy_(inner(source))
    return target


def spoil(x: torch.Tensor) -> None:
    """Every number becomes another one."""
    if x.dtype == torch.bool:
        x.logical_not_()
    else:
        x.view(torch.uint8).bitwise_not_()


def copy_in(source: torch.Tensor, non_blocking: bool) -> None:
    """What a copy from the host's memory to the device means for the host."""
    if is_pinned(source) and non_blocking:
        State.queue.append(CopyIn(source, source.clone(), caller()))
        return
    wait("a copy to the device")  # torch waits for all that the device has still to do


# ---------------------------------------------------------------------------------- torch.cuda


def install(free: int = 5 << 20) -> None:
    """From here on there is a GPU; `free`: bytes that its memory has left, few on purpose."""
    from tests.pretend_gpu import graphs, kernels

    cuda = torch.cuda
    cuda.is_available = lambda: True
    cuda._lazy_init = lambda: None
    cuda.is_bf16_supported = lambda including_emulation=True: True
    cuda.device_count = lambda: 1
    cuda.current_device = lambda: 0
    cuda.set_device = lambda device: None
    cuda.get_device_name = lambda device=None: "a pretended GPU"
    cuda.get_device_capability = lambda device=None: (9, 0)
    cuda.mem_get_info = lambda device=None: (free, free)
    cuda.memory_reserved = lambda device=None: 0
    cuda.memory_allocated = lambda device=None: 0
    cuda.max_memory_allocated = lambda device=None: 0
    cuda.reset_peak_memory_stats = lambda device=None: None
    cuda.empty_cache = lambda: None
    cuda.synchronize = lambda device=None: wait("synchronize")
    cuda.Event = graphs.Event
    cuda.Stream = graphs.Stream
    cuda.current_stream = lambda device=None: graphs.Stream()
    cuda.stream = contextlib.nullcontext
    cuda.CUDAGraph = graphs.Graph
    cuda.graph = graphs.record
    torch.Tensor.pin_memory = lambda self, device=None: pin(self)
    # torch.tensor(..., device="cuda") is made on the CPU and then copied
    torch._C._set_only_lift_cpu_tensors(True)
    kernels.install()
    EVERYWHERE.__enter__()
