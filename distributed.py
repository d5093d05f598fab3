"""Many processes as one: torchrun's group, weights sharded by FSDP2, gradients summed over ranks, whole tensors for files.

One process is the special case in which nothing is wrapped, gathered or waited for. With more, `shard` spreads weights,
gradients and moments over the ranks (within a node; each node has its own copy: HSDP); a block's weights are gathered when
it is computed. Such a pass is a sequence of collectives, so every rank has to make the same passes in the same order:
`in_step` fills up where ranks have unequal work, and what samples or evaluates does so from a plain copy of the weights.

Weights, gradients and their sums are fp32, and bf16 is autocast's business as on one GPU: the arithmetic does not change
with the number of ranks, only the order in which gradients are added does.
"""

import ctypes
import functools
import math
import os
import pickle
import resource
import sys
import threading
import time
import uuid
from datetime import timedelta

import torch
import torch.distributed as dist

from data import UserError

# ---------------------------------------------------------------------------------------------- the group


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def device() -> torch.device:
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else torch.device("cpu")


def keep_freed_memory() -> None:
    """On a CPU with glibc: freed memory stays with the process. By default large blocks go back to the system and every page is
    cleared again when it is next touched, which takes 5 to 10 % of a toy training step."""
    mallopt = None if torch.cuda.is_available() else getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(-3, 2**30) or mallopt(-3, 2**25)  # M_MMAP_THRESHOLD: older versions take no more than 32 MB
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def start_processes() -> None:
    """Join torchrun's group where there is one: nccl between GPUs, gloo on CPU. One process is world size 1.

    DIST_TIMEOUT: seconds that ranks wait for each other before all give up; more than the slowest rank's sampling takes.
    """
    cuda = torch.cuda.is_available()
    keep_freed_memory()
    if cuda:
        torch.cuda.set_device(device())
    if "RANK" in os.environ:
        text = os.environ.get("DIST_TIMEOUT", "7200")
        if not text.isdigit() or int(text) < 1:
            raise UserError(f"DIST_TIMEOUT={text} is not a number of seconds")
        store, its_rank, size = next(dist.rendezvous("env://"))
        store = store_of_this_start(store, its_rank, size, int(text))
        dist.init_process_group(
            "nccl" if cuda else "gloo", store=dist.PrefixStore("group", store), rank=its_rank, world_size=size,
            timeout=timedelta(seconds=int(text)), device_id=device() if cuda else None,
        )  # fmt: skip
        Phase.watch(dist.PrefixStore("phase", store), int(text))
    print0(f"{world()} process(es) on {device().type}, {'bf16 autocast over fp32 weights' if cuda else 'fp32'}")


def store_of_this_start(store, its_rank: int, size: int, timeout: int):
    """A part of torchrun's store that these processes share with no others.

    torchrun keeps its store when it restarts the ranks (seen in 2.13), and with it the addresses of those that were killed;
    a rank that reads one waits for ever. Nothing in the environment is the same on all nodes and new at each start, so rank 0
    makes a name, and gives it to whoever asks with a name of his own, until all of now have it.
    """
    if its_rank > 0:
        mine = uuid.uuid4().hex
        store.set(f"asks/{its_rank}", mine)
        name = store.get(f"answer/{mine}").decode()  # waits for it
        store.set(f"{name}/has/{its_rank}", "")
        return dist.PrefixStore(name, store)
    name, missing, end = uuid.uuid4().hex, set(range(1, size)), time.time() + timeout
    while missing:
        for r in sorted(missing):
            if store.check([f"asks/{r}"]):  # this may still be the question of one that is dead: the answer hurts nobody
                store.set(f"answer/{store.get(f'asks/{r}').decode()}", name)
            if store.check([f"{name}/has/{r}"]):
                missing.remove(r)
        if time.time() > end:
            raise RuntimeError(f"ranks {sorted(missing)} did not start within {timeout} s (DIST_TIMEOUT)")
        time.sleep(0.01)
    return dist.PrefixStore(name, store)


class Phase:
    """What this rank is doing, for the messages before and after a collective gives up: neither nccl nor gloo says who is missing."""

    text, since, waiting, store = "start", time.time(), 0, None

    @classmethod
    def watch(cls, store, timeout: int) -> None:
        """A thread tells the other ranks what this one does, and standard error who waits for whom, a while before the timeout."""
        cls.store = store
        threading.Thread(target=cls._watch, args=(timeout,), daemon=True).start()

    @classmethod
    def _watch(cls, timeout: int) -> None:
        said = None
        while dist.is_initialized():
            text, age = cls.text, time.time() - cls.since
            try:
                cls.store.set(str(rank()), cls.status())
            except RuntimeError:  # the store went down with its node
                return
            if age > 0.7 * timeout and said != text:
                said = text
                line = f"rank {rank()} has been in {cls.status()!r} for {age:.0f} s{cls.elsewhere()}"
                print(f"{line}; ranks wait {timeout} s for each other (DIST_TIMEOUT)", file=sys.stderr, flush=True)
            time.sleep(min(5, timeout / 20))

    @classmethod
    def status(cls) -> str:
        return cls.text + ", waiting for other ranks" * bool(cls.waiting)

    @classmethod
    def elsewhere(cls) -> str:
        """The ranks that do something else."""
        try:
            known = {r: cls.store.get(str(r)).decode() if cls.store.check([str(r)]) else "start" for r in range(world())}
        except RuntimeError:
            return ""
        others = [f"rank {r} is in {status!r}" for r, status in known.items() if r != rank() and status != cls.status()]
        return "".join(f", {other}" for other in others[:8])


def phase(text: str) -> None:
    """Note what comes now, such as "step 12, sampling"."""
    Phase.text, Phase.since = text, time.time()


def waits(function):
    """Mark the time in a function as waiting: all ranks have to come there."""

    @functools.wraps(function)
    def marked(*args):
        Phase.waiting += 1
        result = function(*args)
        Phase.waiting -= 1  # not where it fails: the message tells
        return result

    return marked


def print0(*args) -> None:
    if rank() == 0:
        print(*args, flush=True)


@waits
def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


@waits
def all_sum(*values: float) -> list[float]:
    """Sum each number over the ranks."""
    total = torch.tensor(values, dtype=torch.float64, device=device())
    if dist.is_initialized():
        dist.all_reduce(total)
    return total.tolist()


@waits
def all_max(*values: float) -> list[float]:
    """The largest of each number over the ranks."""
    largest = torch.tensor(values, dtype=torch.float64, device=device())
    if dist.is_initialized():
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest.tolist()


def peak_memory() -> float:
    """GiB that the fullest rank has held at most: on its GPU, or of its process without one."""
    bytes_ = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return all_max(bytes_ / 2**30)[0]


@waits
def gather_objects(value) -> list:
    """Every rank's Python object, in rank order, on every rank."""
    if not dist.is_initialized():
        return [value]
    values = [None] * world()
    dist.all_gather_object(values, value)
    return values


@waits
def exchange(parcels: list) -> list:
    """parcels[r] goes to rank r -> what each rank sent here, in rank order. Python objects."""
    data = [torch.frombuffer(bytearray(pickle.dumps(p)), dtype=torch.uint8) for p in parcels]
    sizes = torch.tensor([len(d) for d in data], device=device())
    sizes_in = torch.empty_like(sizes)
    dist.all_to_all_single(sizes_in, sizes)
    received = torch.empty(int(sizes_in.sum()), dtype=torch.uint8, device=device())
    dist.all_to_all_single(received, torch.cat(data).to(device()), sizes_in.tolist(), sizes.tolist())
    return [pickle.loads(part.numpy().tobytes()) for part in received.cpu().split(sizes_in.tolist())]


def in_step(work: list) -> list:
    """This rank's micro-batches, and None for each that the rank with most has more."""
    return work + [None] * (int(all_max(len(work))[0]) - len(work)) if world() > 1 else work


def deal(costs: list[float], n: int) -> list[int]:
    """Which of n ranks takes each item, so that their sums of costs are about equal: the dearest first, each to whom has least.

    deal([5, 1, 4, 2], 2) == [0, 0, 1, 1]
    """
    load, to = [0.0] * n, [0] * len(costs)
    for i in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        to[i] = min(range(n), key=lambda r: (load[r], r))
        load[to[i]] += costs[i]
    return to


# ---------------------------------------------------------------------------------------------- sharded weights


@functools.cache
def device_mesh():
    """One row of ranks; with several nodes (replicate, shard): gathering stays within a node, sums of gradients cross nodes."""
    from torch.distributed.device_mesh import init_device_mesh

    here = int(os.environ.get("LOCAL_WORLD_SIZE", world()))
    if here < world() and world() % here == 0:
        return init_device_mesh(device().type, (world() // here, here), mesh_dim_names=("replicate", "shard"))
    return init_device_mesh(device().type, (world(),), mesh_dim_names=("shard",))


def shard(model):
    """FSDP2 in place: each block a unit, then embedding, last norm and head. Make the optimizer after it.

    The root's unit stays gathered from `hidden` until the backward pass has ended: the chunked head (model.logprobs), which
    comes after the forward method, finds its weights whole and gathers them once, not once per chunk.
    """
    if world() == 1:
        return model
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method  # a second to import

    for block in model.layers:
        fully_shard(block, mesh=device_mesh())
    fully_shard(model, mesh=device_mesh(), reshard_after_forward=False)
    register_fsdp_forward_method(model, "hidden")
    for unit in (*model.layers, model):  # losses are divided by global counts already: sum, do not average
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)  # by a plain sum; gloo knows no scaled one
    return model


def is_sharded(model) -> bool:
    return hasattr(model, "unshard")


def own_weights(model) -> dict[str, torch.Tensor]:
    """Name -> parameter as the optimizer has it: this rank's shard of each. After a forward pass without a backward one the
    root still has whole ones in their place, which no update reaches."""
    if is_sharded(model):
        model.reshard()
    return dict(model.named_parameters())


def whole(x):
    """A sharded tensor's full value, on every rank; all ranks have to ask for it. Anything else is what it is."""
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def part(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Of a full tensor what this rank has of `like`. Needs no other rank."""
    if not hasattr(like, "full_tensor"):
        return x
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(x.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def full_weights(model) -> dict[str, torch.Tensor]:
    """The whole model on rank 0's CPU, gathered one parameter at a time; other ranks take part and get nothing."""
    own_weights(model)
    gathered = ((name, whole(p.detach())) for name, p in model.state_dict().items())
    return {name: p.cpu() for name, p in gathered if rank() == 0}


@torch.no_grad()
def put_weights(model, weights: dict[str, torch.Tensor]) -> None:
    """Full tensors, or shards like the model's, into the model, in place."""
    own_weights(model)
    for name, p in model.state_dict().items():
        p.copy_(weights[name] if hasattr(weights[name], "full_tensor") else part(weights[name], p))


def full_state(optimizer: torch.optim.Optimizer) -> dict:
    """An optimizer's state_dict with whole moments on rank 0's CPU: it fits any number of ranks."""
    state = optimizer.state_dict()
    moments = {}
    for i, of_one in state["state"].items():
        gathered = {name: whole(x) for name, x in of_one.items()}
        moments[i] = {name: x.cpu() for name, x in gathered.items()} if rank() == 0 else {}
    return {**state, "state": moments}


def put_state(optimizer: torch.optim.Optimizer, saved: dict) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    of_one = lambda p, state: {name: part(x, p) if x.shape == p.shape else x for name, x in state.items()}  # the step count is one number
    optimizer.load_state_dict({**saved, "state": {i: of_one(parameters[i], state) for i, state in saved["state"].items()}})


def sync_and_clip(model: torch.nn.Module, max_norm: float) -> float:
    """Cut the global norm of the gradients to max_norm, return the norm before the cut. The backward pass has summed them."""
    parameters = [p for p in own_weights(model).values() if p.requires_grad]
    for p in parameters:
        if p.grad is None:  # a batch with nothing to learn from, on all ranks
            p.grad = torch.zeros_like(p)
    return whole(torch.nn.utils.clip_grad_norm_(parameters, max_norm)).item()


def clipped_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, max_norm: float) -> float:
    """Clip the gradients, step, clear them -> their norm. A norm that is not finite skips the step."""
    norm = sync_and_clip(model, max_norm)
    if math.isfinite(norm):  # the same number on every rank
        optimizer.step()
    optimizer.zero_grad()
    return norm
