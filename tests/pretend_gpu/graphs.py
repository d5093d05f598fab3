"""Streams, events and recorded graphs of the pretended GPU, which has one stream."""

import contextlib

import torch
from torch.utils._pytree import tree_leaves

from tests.pretend_gpu.device import State, issued, wait


class Stream:
    def __init__(self, *args, **kwargs):
        pass

    def wait_stream(self, other) -> None:
        pass

    def wait_event(self, event) -> None:
        pass

    def synchronize(self) -> None:
        wait("a stream's synchronize")


class Event:
    """Waiting for it waits for the copies that were begun before it was recorded, and no others."""

    def __init__(self, *args, **kwargs):
        self.until = 0

    def record(self, stream=None) -> None:
        self.until = issued()

    def synchronize(self) -> None:
        wait("an event's synchronize", self.until)

    def query(self) -> bool:
        return True

    def wait(self, stream=None) -> None:
        pass


class Graph:
    """The recorded kernels, with the memory that each reads and writes.

    What is recorded has not run: what it wrote to is put back at the end. A replay runs the kernels
    again and copies what they make to where it was made the first time.
    """

    replays = 0  # of all graphs

    def __init__(self, *args, **kwargs):
        self.tape = []
        self.undo = []

    def before(self, operator, args) -> None:
        """Remember what the operator is about to overwrite."""
        for argument, given in zip(operator._schema.arguments, args):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self.keep(tree_leaves(given))

    def keep(self, tensors) -> None:
        for x in tensors:
            self.undo.append((x, x.clone()))

    def record(self, function, args, kwargs, out) -> None:
        storages = set()
        for x in tree_leaves((args, kwargs)):
            if isinstance(x, torch.Tensor):
                storages.add(x.untyped_storage()._cdata)
        new = []  # the results that are no views of an argument; None in the place of the others
        for x in tree_leaves(out):
            is_new = isinstance(x, torch.Tensor) and x.untyped_storage()._cdata not in storages
            new.append(x if is_new else None)
        self.tape.append((function, args, kwargs, new))

    def end(self) -> None:
        for x, before in reversed(self.undo):
            x.copy_(before)
        self.undo = []

    def pool(self) -> tuple[int, int]:
        return (0, 1)

    def replay(self) -> None:
        assert State.recording is None
        Graph.replays += 1
        with torch._C._DisableTorchDispatch(), torch.no_grad():
            for function, args, kwargs, new in self.tape:
                for x, again in zip(new, tree_leaves(function(*args, **kwargs))):
                    if x is not None:
                        x.copy_(again)


@contextlib.contextmanager
def record(graph: Graph, pool=None, stream=None, **how):
    """torch.cuda.graph."""
    wait("a graph's beginning")
    State.recording = graph
    try:
        yield
    finally:
        State.recording = None
        with torch._C._DisableTorchDispatch(), torch.no_grad():
            graph.end()
