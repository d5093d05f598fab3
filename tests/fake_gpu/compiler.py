"""torch.compile for a GPU that is not there: Triton kernels are assembled for sm_90 and never run."""

import contextlib

import torch
import triton
from torch._dynamo.eval_frame import _debug_get_cache_entry_list

from tests.fake_gpu.device import PROPERTIES
from tests.fake_gpu.meter import Meter, size
from tests.kernel_build import AbsentGPU

ASSEMBLED = []  # names of the kernels that were assembled
FUSED = []  # the functions that the program has asked to be compiled


def install() -> None:
    import torch._dynamo.device_interface
    import torch._inductor.config as config
    import torch._inductor.runtime.triton_helpers as helpers
    import torch.utils._triton
    from torch._inductor.fx_passes import joint_graph
    from torch._inductor.runtime.triton_heuristics import CachingAutotuner

    triton.runtime.driver.set_active(AbsentGPU(90))
    everywhere(config, "compile_threads", 1)  # in this process, where the absent GPU is known
    everywhere(config, "joint_graph_constant_folding", False)  # it would fill tensors on the device
    # What was compiled elsewhere says nothing of this run.
    everywhere(config, "fx_graph_cache", False)
    # Patterns to replace, which are traced with tensors on the device. Ours has no attention in it,
    # and widths that are multiples of 8, so that none would be found.
    joint_graph.lazy_init = lambda device=None: None
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
    watch()


def everywhere(config, name: str, value) -> None:
    """Set an option in all threads. To assign it would set it in this one, and a backward pass is
    in another one."""
    config._config[name].env_value_force = value


def empty_strided(size, stride, dtype):
    return torch.empty_strided(size, stride, dtype=dtype, device="cuda")


def reinterpreted(x, size, stride, offset=0):
    return torch.as_strided(x, size, stride, offset)


def assembled(self) -> None:
    """In the place of loading a compiled kernel onto the device."""
    ASSEMBLED.append(self.fn.__name__)


def launched(self, *args, **kwargs) -> None:
    more = 0
    if "_red_" in self.fn.__name__:  # it may walk over its numbers more than once
        for name, x in zip(self.fn.arg_names, args):
            loads = self.fn.src.count(f"tl.load({name} +")
            if isinstance(x, torch.Tensor):
                more += max(0, loads - 1) * size(x)
    Meter.launched(self.fn.__name__, *args, more=more)


def watch() -> None:
    """Keep what torch.compile is asked for."""
    plain = torch.compile

    def compile(function=None, **how):
        if function is None:
            return lambda function: compile(function, **how)
        FUSED.append(function)
        return plain(function, **how)

    torch.compile = compile


def variants() -> dict[str, int]:
    """How often each function of the program has been compiled."""
    found = {}
    for function in FUSED:
        n = len(_debug_get_cache_entry_list(function.__code__))
        if n:
            found[function.__name__] = n
    return found
