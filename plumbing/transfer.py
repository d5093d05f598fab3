"""Numbers of the host on their way to the device, without the host waiting for it."""

import numpy as np
import torch


def send(numbers, device: torch.device | str) -> torch.Tensor:
    """A tensor, an array or a list of numbers -> the tensor on the device.

    A copy from ordinary memory to a GPU waits until all that the GPU has still to do is done. From
    pinned memory it takes its turn behind that, while the host goes on. torch keeps the pinned copy
    that is made here until it has been read.
    """
    on_host = (
        numbers if isinstance(numbers, torch.Tensor) else torch.from_numpy(np.asarray(numbers))
    )
    if torch.device(device).type == "cuda":
        return on_host.pin_memory().to(device, non_blocking=True)
    return on_host.to(device)
