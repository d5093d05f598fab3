"""Which kernels run, the bytes that each reads and writes, and the peak of live memory."""

import weakref
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.fake_gpu.device import is_composite, is_gpu, is_sharded

# Operators that start no kernel.
NO_KERNEL = set(
    "view _unsafe_view reshape slice select unsqueeze squeeze transpose t permute expand alias detach "
    "detach_ as_strided split unbind split_with_sizes empty empty_like new_empty empty_strided "
    "new_empty_strided unflatten lift_fresh _reshape_alias is_pinned sym_size diagonal".split()
)
# Of what they read only as much counts as they write.
READ_A_PART = {"embedding", "gather", "index", "index_select"}
WRITE_A_PART = {"index_put_", "_index_put_impl_", "scatter_add_", "index_add_", "scatter_"}


class Kernel(NamedTuple):
    name: str
    moved: int  # bytes read and written
    flops: float = 0.0  # of a matrix product
    aligned: bool = True  # its rows are


def size(x: torch.Tensor) -> int:
    return x.numel() * x.element_size()


class Meter(TorchDispatchMode):
    """What runs inside. One meter for a scene: memory made before it is not known to it.

    kernels: in their order. live and peak: bytes of storages on the device.
    """

    now = None

    def __init__(self):
        super().__init__()
        self.depth = 0  # a composed operator enters the mode again
        self.live = 0
        self.peak = 0
        self.held = {}  # storage -> its bytes
        self.clear()

    def clear(self) -> None:
        """Forget the kernels, and the peak but for what is live."""
        self.kernels = []
        self.peak = self.live

    @classmethod
    def is_infra_mode(cls) -> bool:
        return True

    def __enter__(self):
        Meter.now = self
        self.depth += 1
        return super().__enter__()

    def __exit__(self, *error):
        self.depth -= 1
        if not self.depth:
            Meter.now = None
        return super().__exit__(*error)

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if is_sharded(types):
            return NotImplemented
        if is_composite(operator):
            with self:
                return operator.decompose(*args, **kwargs)
        out = operator(*args, **kwargs)
        made = [x for x in tree_leaves(out) if is_gpu(x)]
        name = operator.overloadpacket.__name__
        for x in made:
            self.hold(x)
        if operator._schema.is_mutable and not made:  # a list of tensors, changed in place
            made = [x for x in tree_leaves(args) if is_gpu(x)]
        if made and name not in NO_KERNEL:
            moved = bytes_of(name, args, kwargs, made)
            self.kernels.append(Kernel(name, moved, *product_of(name, args)))
        return out

    @staticmethod
    def launched(name: str, *tensors, more: int = 0) -> None:
        """A kernel that reads or writes each of the tensors once, and so many bytes more."""
        if Meter.now is not None:
            moved = more + sum(size(x) for x in tensors if isinstance(x, torch.Tensor))
            Meter.now.kernels.append(Kernel(name, moved))

    # ------------------------------------------------------------------------------ live memory

    def hold(self, x: torch.Tensor) -> None:
        storage = x.untyped_storage()
        key = storage._cdata
        if key in self.held:
            return
        self.held[key] = 0
        weakref.finalize(storage, self.resize, key, 0, True)
        self.resize(key, storage.nbytes())

    def resize(self, key: int, bytes_: int, gone: bool = False) -> None:
        if key not in self.held:
            return
        self.live += bytes_ - self.held[key]
        self.held[key] = bytes_
        if gone:
            del self.held[key]
        self.peak = max(self.peak, self.live)


PRODUCTS = {"mm", "linear"}


def product_of(name: str, args) -> tuple[float, bool]:
    """FLOPs of a matrix product, and whether all its rows begin at multiples of 16 bytes."""
    if name not in PRODUCTS:
        return 0.0, True
    a, b = args[:2]  # (N, K); (K, M), or (M, K) of linear
    N = a.numel() // a.shape[-1]
    sizes = [N, *b.shape]
    return 2.0 * N * b.numel(), all(n % 8 == 0 for n in sizes[1:])


def bytes_of(name: str, args, kwargs, made) -> int:
    """What a kernel reads and writes, each tensor once."""
    written = sum(size(x) for x in made)
    if name in READ_A_PART:
        return 2 * written
    if name in WRITE_A_PART:
        return 2 * sum(size(x) for x in tree_leaves(args[1:]) if is_gpu(x))
    return written + sum(size(x) for x in tree_leaves((args, kwargs)) if is_gpu(x))


def install() -> None:
    """FSDP gives a storage's memory back and takes it again without any operator."""
    resize = torch.UntypedStorage.resize_

    def resized(self, bytes_):
        out = resize(self, bytes_)
        if Meter.now is not None:
            Meter.now.resize(self._cdata, bytes_)
        return out

    torch.UntypedStorage.resize_ = resized
