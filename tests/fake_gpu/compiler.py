"""torch.compile for a GPU that is not there: Triton kernels are assembled for sm_90 and never run."""

import contextlib

import torch
import triton

from tests.fake_gpu.device import PROPERTIES
from tests.fake_gpu.meter import Meter
from tests.kernel_build import AbsentGPU

ASSEMBLED = []  # names of the kernels that were assembled


def install() -> None:
    import torch._dynamo.device_interface
    import torch._inductor.config as config
    import torch._inductor.runtime.triton_helpers as helpers
    import torch.utils._triton
    from torch._inductor.fx_passes import joint_graph
    from torch._inductor.runtime.triton_heuristics import CachingAutotuner

    triton.runtime.driver.set_active(AbsentGPU(90))
    config.compile_threads = 1  # it compiles in this process, where the absent GPU is known
    config.joint_graph_constant_folding = False  # it would fill real tensors on the device
    # Patterns to replace, which are traced with tensors on the device. Ours has no attention in it,
    # and widths that are multiples of 8, so that none would be found.
    joint_graph.lazy_init = lambda device=None: None
    config.fx_graph_cache = False  # what was compiled elsewhere says nothing of this run
    interface = torch._dynamo.device_interface.CudaInterface
    interface.Worker.get_device_properties = staticmethod(lambda device=None: PROPERTIES)
    interface.Worker.current_device = staticmethod(lambda: 0)
    interface.get_compute_capability = staticmethod(lambda device=None: 90)
    interface.is_available = staticmethod(lambda: True)
    interface.exchange_device = staticmethod(lambda device: 0)
    interface.maybe_exchange_device = staticmethod(lambda device: 0)
    for name in ("has_triton", "has_triton_package"):
        setattr(torch.utils._triton, name, lambda *args, **kwargs: True)
    helpers.set_driver_to_gpu = lambda: None
    torch.cuda._DeviceGuard = lambda device: contextlib.nullcontext()
    torch._C._cuda_getCurrentRawStream = lambda device: 0
    guards = torch._C._dynamo.guards
    guards._empty_strided_cuda = empty_strided
    guards._reinterpret_tensor = reinterpreted
    CachingAutotuner._make_launchers = assembled
    CachingAutotuner.run = launched


def empty_strided(size, stride, dtype):
    return torch.empty_strided(size, stride, dtype=dtype, device="cuda")


def reinterpreted(x, size, stride, offset=0):
    return torch.as_strided(x, size, stride, offset)


def assembled(self) -> None:
    """In the place of loading a compiled kernel onto the device."""
    ASSEMBLED.append(self.fn.__name__)


def launched(self, *args, **kwargs) -> None:
    Meter.count_launch(self.fn.__name__, args)
