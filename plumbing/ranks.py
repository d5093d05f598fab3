"""Many processes as one: torchrun's group, and what ranks tell each other.

One process is the special case in which there is nobody to tell: every function here then returns
at once. A collective has to be called by all ranks, in the same order.
"""

import contextlib
import os
import pickle
import resource
from datetime import timedelta

import torch
import torch.distributed as dist

from data import UserError
from plumbing import watchdog
from plumbing.rendezvous import store_of_this_start
from plumbing.units import is_whole
from plumbing.watchdog import waits


def rank() -> int:
    """The number of this process, 0 .. world() - 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def device() -> torch.device:
    """This process's GPU, or the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


def autocast():
    """bf16 matrix products on a GPU; nothing on a CPU. Weights and sums are fp32 everywhere.

    A pass multiplies with each weight once, so their bf16 copies are not cached. The sampler has
    the same choice, since torch's compiler makes other code for another one.
    """
    if device().type == "cuda":
        return torch.autocast("cuda", torch.bfloat16, cache_enabled=False)
    return contextlib.nullcontext()


def print0(*args) -> None:
    """Print on rank 0 only."""
    if rank() == 0:
        print(*args, flush=True)


# ------------------------------------------------------------------------------------ start


def start_processes() -> None:
    """Join torchrun's group where there is one: nccl between GPUs, gloo on a CPU.

    DIST_TIMEOUT in the environment: the seconds that ranks wait for each other before all give up.
    It must be more than the slowest rank's sampling takes.
    """
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(device())
    if "RANK" in os.environ:
        join_group(cuda, timeout_seconds())
    numbers = "bf16 autocast over fp32 weights" if cuda else "fp32"
    print0(f"{world()} process(es) on {device().type}, {numbers}")


def timeout_seconds() -> int:
    text = os.environ.get("DIST_TIMEOUT", "7200")
    if not is_whole(text) or int(text) < 1:
        raise UserError(f"DIST_TIMEOUT={text} is not a number of seconds")
    return int(text)


def join_group(cuda: bool, timeout: int) -> None:
    store, its_rank, size = next(dist.rendezvous("env://"))
    store = store_of_this_start(store, its_rank, size, timeout)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        store=dist.PrefixStore("group", store),
        rank=its_rank,
        world_size=size,
        timeout=timedelta(seconds=timeout),
        device_id=device() if cuda else None,
    )
    watchdog.watch(dist.PrefixStore("phase", store), its_rank, size, timeout)


# ------------------------------------------------------------------------------------ collectives


@waits
def barrier() -> None:
    """Wait until every rank has come here."""
    if dist.is_initialized():
        dist.barrier()


@waits
def all_reduce(values: list[float], operation) -> list[float]:
    """Combine each of the numbers over all ranks, in fp64. Every rank gives equally many."""
    if not dist.is_initialized():
        return list(map(float, values))
    tensor = torch.tensor(values, dtype=torch.float64, device=device())
    dist.all_reduce(tensor, op=operation)
    return tensor.tolist()


def all_sum(value: float) -> float:
    """The sum of a number over the ranks."""
    return all_reduce([value], dist.ReduceOp.SUM)[0]


def all_max(value: float) -> float:
    """The largest value that a number has on any rank."""
    return all_reduce([value], dist.ReduceOp.MAX)[0]


def all_min(value: float) -> float:
    """The smallest value that a number has on any rank."""
    return all_reduce([value], dist.ReduceOp.MIN)[0]


def all_sums(values: dict[str, float]) -> dict[str, float]:
    """The sum over the ranks under each name. All ranks have the same names in the same order."""
    return dict(zip(values, all_reduce(list(values.values()), dist.ReduceOp.SUM)))


def all_maxima(values: dict[str, float]) -> dict[str, float]:
    """The largest value on any rank under each name. Names as in all_sums."""
    return dict(zip(values, all_reduce(list(values.values()), dist.ReduceOp.MAX)))


@waits
def gather_objects(value) -> list:
    """Every rank's Python object, in the order of ranks, on every rank."""
    if not dist.is_initialized():
        return [value]
    values = [None] * world()
    dist.all_gather_object(values, value)
    return values


def merge_dicts(mine: dict) -> dict:
    """The entries of every rank's dict in one dict, on every rank. Ranks have different keys."""
    merged = {}
    for of_one in gather_objects(mine):
        merged.update(of_one)
    return merged


@waits
def exchange(parcels: list) -> list:
    """parcels[r] goes to rank r; returns what each rank has sent here, in the order of ranks.

    The parcels are Python objects. They travel as bytes, after a first exchange of their lengths.
    """
    if not dist.is_initialized():
        return parcels
    data = []
    for parcel in parcels:
        data.append(torch.frombuffer(bytearray(pickle.dumps(parcel)), dtype=torch.uint8))
    sizes = torch.tensor([len(d) for d in data], device=device())  # (world,) bytes
    sizes_in = torch.empty_like(sizes)  # (world,)
    dist.all_to_all_single(sizes_in, sizes)
    received = torch.empty(int(sizes_in.sum()), dtype=torch.uint8, device=device())
    sent = torch.cat(data).to(device())
    dist.all_to_all_single(received, sent, sizes_in.tolist(), sizes.tolist())
    parts = received.cpu().split(sizes_in.tolist())
    return [pickle.loads(part.numpy().tobytes()) for part in parts]


# ------------------------------------------------------------------------------------ shares


def pad_to_longest_rank(work: list) -> list:
    """This rank's micro-batches, filled up with None to the number that the busiest rank has.

    A pass through a sharded model is a sequence of collectives, so all ranks make equally many.
    """
    if world() == 1:
        return work
    longest = int(all_max(len(work)))
    return work + [None] * (longest - len(work))


def deal(costs: list[float], n: int) -> list[int]:
    """Which of n ranks takes each item, so that the ranks' sums of costs are about equal.

    The dearest item goes first, and each to the rank that has least so far.
    deal([5, 1, 4, 2], 2) == [0, 0, 1, 1]
    """
    load = [0.0] * n
    rank_of = [0] * len(costs)
    dearest_first = sorted(range(len(costs)), key=lambda i: (-costs[i], i))
    for i in dearest_first:
        rank_of[i] = load.index(min(load))
        load[rank_of[i]] += costs[i]
    return rank_of


def peak_memory() -> float:
    """The most GiB that any rank has held: on its GPU, or in its process where there is none."""
    if torch.cuda.is_available():
        held = torch.cuda.max_memory_allocated()
    else:
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return all_max(held / 2**30)
