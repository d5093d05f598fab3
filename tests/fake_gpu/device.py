"""Tensors on "cuda" that have no numbers, and what makes the host wait for the device.

What is on the CPU stays real, so that the program's own lists and tables are what they are. What is
on "cuda" is a FakeTensor of torch. Import this before torch.
"""

import collections
import contextlib
import os
import sys
from types import SimpleNamespace

from tests.pretend_gpu import guard

if "torch" in sys.modules:
    raise ImportError("the fake GPU comes before torch: python -m tests.fake_gpu ...")
library = guard.load()

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

library.use_guard()

aten = torch.ops.aten
HERE = os.path.dirname(os.path.abspath(__file__))
MEMORY = int(79.6 * 2**30)  # bytes, of an H100 as nvidia-smi shows it

# What torch, its compiler and Triton ask of a device: an H100 SXM.
PROPERTIES = SimpleNamespace(
    name="an H100 that is not there",
    major=9,
    minor=0,
    total_memory=MEMORY,
    multi_processor_count=132,
    warp_size=32,
    max_threads_per_block=1024,
    max_threads_per_multi_processor=2048,
    regs_per_multiprocessor=65_536,
    shared_memory_per_block=49_152,
    shared_memory_per_block_optin=232_448,
    shared_memory_per_multiprocessor=233_472,
    L2_cache_size=50 << 20,
    gcnArchName="",
    clock_rate=1_980_000,
    memory_clock_rate=2_619_000,
    memory_bus_width=5120,
)


# ---------------------------------------------------------------------------------- what waits


class Host:
    """What the host has asked of the device."""

    waits = collections.Counter()  # (file, function, what) -> how often it waited there
    pinned: dict[int, torch.Tensor] = {}  # storages; kept, since their addresses are their names
    answer = 1  # to whatever it asks


def wait(what: str) -> None:
    Host.waits[(*caller(), what)] += 1


@contextlib.contextmanager
def waits(counter: collections.Counter):
    """The waits inside go to this counter."""
    before = Host.waits
    Host.waits = counter
    try:
        yield
    finally:
        Host.waits = before


def caller() -> tuple[str, str]:
    """File and function of the innermost frame that is neither torch's, Python's, nor ours."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        of_python = "site-packages" in path or "/lib/python" in path or path.startswith("<")
        if not of_python and os.path.dirname(path) != HERE:
            return os.path.basename(path), frame.f_code.co_name
        frame = frame.f_back
    return "torch", "a backward pass"


# ---------------------------------------------------------------------------------- the tensors


def is_composite(operator) -> bool:
    """In inference mode operators that torch composes of others come to a mode whole."""
    if not torch.is_inference_mode_enabled() or not isinstance(operator, torch._ops.OpOverload):
        return False
    if operator not in COMPOSITE:
        stays = operator in (aten.linear.default, aten._fused_rms_norm.default)
        name = operator.name()
        key = "CompositeImplicitAutograd"
        composed = name.startswith("aten::")
        composed = composed and torch._C._dispatch_has_kernel_for_dispatch_key(name, key)
        COMPOSITE[operator] = composed and not stays
    return COMPOSITE[operator]


COMPOSITE: dict = {}


def is_sharded(types) -> bool:
    """A DTensor does what it does with its own part, and that comes to the mode."""
    return any(x.__name__ == "DTensor" for x in types)


class NoNumbers(TorchDispatchMode):
    """Inside, whatever is on "cuda" is fake, and whatever is on the CPU is real."""

    def __init__(self):
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)

    @classmethod
    def is_infra_mode(cls) -> bool:
        return True  # torch's compiler goes on under it

    def __enter__(self):
        # torch.tensor(..., device="cuda") is made on the CPU and then copied
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if is_sharded(types):
            return NotImplemented
        if is_composite(operator):
            with self:
                return operator.decompose(*args, **kwargs)
        if operator in INSTEAD:
            return INSTEAD[operator](self, *args, **kwargs)
        if kwargs.pop("pin_memory", False):
            return pinned(operator(*args, **kwargs))
        device = kwargs.get("device")
        on_gpu = device is not None and torch.device(device).type == "cuda"
        if on_gpu or any(isinstance(x, FakeTensor) for x in tree_leaves((args, kwargs))):
            with self.fake:
                return operator(*args, **kwargs)
        return operator(*args, **kwargs)

    def empty(self, shape, dtype: torch.dtype) -> torch.Tensor:
        with self.fake:
            return torch.empty(shape, dtype=dtype, device="cuda:0")


INSTEAD = {}  # operator -> what is done in its place


def instead_of(*operators):
    def put(function):
        INSTEAD.update(dict.fromkeys(operators, function))
        return function

    return put


def is_gpu(x) -> bool:
    return isinstance(x, FakeTensor) and x.fake_device.type == "cuda"


@instead_of(aten._local_scalar_dense.default)
def number(mode, x):
    if not is_gpu(x):
        return aten._local_scalar_dense.default(x)
    wait("item")
    return torch.tensor(Host.answer, dtype=x.dtype).tolist()


@instead_of(aten.bincount.default)
def bincount(mode, x, weights=None, minlength=0):
    """It has `minlength` numbers here, which on a GPU would be asked for."""
    if not is_gpu(x):
        return aten.bincount.default(x, weights, minlength)
    wait("bincount")
    return mode.empty((minlength,), torch.int64)


@instead_of(aten.nonzero.default)
def nonzero(mode, x):
    """All are answered to be something."""
    if not is_gpu(x):
        return aten.nonzero.default(x)
    wait("nonzero")
    return mode.empty((x.numel(), x.ndim), torch.int64)


@instead_of(aten._to_copy.default)
def to_copy(mode, x, **how):
    target = x.device if how.get("device") is None else torch.device(how["device"])
    if is_gpu(x) and target.type == "cpu":
        wait("a copy to the host")
        return torch.full(x.shape, Host.answer, dtype=how.get("dtype") or x.dtype)
    if is_gpu(x):
        with mode.fake:
            return aten._to_copy.default(x, **how)
    if target.type == "cpu":
        return aten._to_copy.default(x, **how)
    copy_in(x, how.get("non_blocking", False))
    dtype = how.get("dtype") or x.dtype
    return mode.empty(x.shape, dtype)


@instead_of(aten.copy_.default)
def copy_(mode, target, source, non_blocking=False):
    if is_gpu(source) and not is_gpu(target):
        if not (non_blocking and is_pinned(target)):
            wait("a copy to the host")
        return target.fill_(Host.answer)
    if not is_gpu(target):
        return aten.copy_.default(target, source)
    if is_gpu(source):
        with mode.fake:
            return aten.copy_.default(target, source)
    if source.ndim:
        copy_in(source, non_blocking)
    return target


def copy_in(source: torch.Tensor, non_blocking: bool) -> None:
    if not (non_blocking and is_pinned(source)):
        wait("a copy to the device")  # torch waits for all that the device has still to do


def pinned(x: torch.Tensor) -> torch.Tensor:
    Host.pinned[x.untyped_storage()._cdata] = x
    return x


def is_pinned(x: torch.Tensor) -> bool:
    return x.untyped_storage()._cdata in Host.pinned


@instead_of(aten._pin_memory.default)
def pin(mode, x, device=None):
    return pinned(x.clone())


@instead_of(aten.is_pinned.default)
def asked_whether_pinned(mode, x, device=None) -> bool:
    return is_pinned(x)


# ---------------------------------------------------------------------------------- torch.cuda


class Event:
    def __init__(self, *args, **kwargs):
        pass

    def record(self, stream=None) -> None:
        pass

    def synchronize(self) -> None:
        wait("an event")

    def wait(self, stream=None) -> None:
        pass

    def query(self) -> bool:
        return True


class Stream(Event):
    """Also the guard that a stream is while it is used with `with`."""

    def record_event(self, event=None) -> Event:
        return event or Event()

    def wait_stream(self, other) -> None:
        pass

    def wait_event(self, event) -> None:
        pass

    def synchronize(self) -> None:
        wait("a stream")

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        pass


class Graph:
    """It runs nothing when it is replayed: what it would run was seen when it was recorded."""

    def pool(self) -> tuple[int, int]:
        return (0, 1)

    def replay(self) -> None:
        pass


def install(free=lambda: MEMORY) -> None:
    """From here on there is a GPU. free(): bytes of its memory that are left."""
    import torch.amp.autocast_mode

    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    cuda = torch.cuda
    cuda.is_available = lambda: True
    cuda._lazy_init = lambda: None
    cuda.is_bf16_supported = lambda including_emulation=True: True
    cuda.device_count = lambda: 1
    cuda.current_device = lambda: 0
    cuda._exchange_device = lambda device: 0
    cuda._maybe_exchange_device = lambda device: 0
    cuda.set_device = lambda device: None
    cuda.get_device_name = lambda device=None: PROPERTIES.name
    cuda.get_device_capability = lambda device=None: (9, 0)
    cuda.get_device_properties = lambda device=None: PROPERTIES
    cuda.mem_get_info = lambda device=None: (free(), MEMORY)
    cuda.memory_reserved = lambda device=None: 0
    cuda.memory_allocated = lambda device=None: 0
    cuda.get_rng_state = lambda device="cuda": torch.zeros(16, dtype=torch.uint8)
    cuda.set_rng_state = lambda state, device="cuda": None
    cuda.empty_cache = lambda: None
    cuda.synchronize = lambda device=None: wait("synchronize")
    cuda.Event = Event
    cuda.Stream = Stream
    cuda.current_stream = lambda device=None: Stream()
    cuda.stream = lambda stream: Stream()
    cuda.CUDAGraph = Graph
    cuda.graph = lambda graph, pool=None, stream=None, **how: Stream()
    torch.Tensor.pin_memory = lambda self, device=None: pinned(self.clone())
    # torch's own asks element by element
    FakeTensor.tolist = lambda self: self.cpu().tolist()
