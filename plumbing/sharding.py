"""Weights spread over the ranks by FSDP2, and whole again for files and for sampling.

With one process nothing is wrapped or gathered. With more, `shard` spreads weights, gradients and
moments over the ranks of a node; each node has its own copy of the model (HSDP). The weights of a
block are gathered when that block is computed. A pass is therefore a sequence of collectives, and
every rank makes the same passes in the same order. What samples or evaluates does so from a plain
copy (`whole_copy`), and needs no other rank.

Weights, gradients and their sums are fp32, and bf16 is autocast's business as on one GPU: the
number of ranks changes the order in which gradients are added, and no other arithmetic.
"""

import functools
import os

import torch

from model import Transformer
from plumbing.ranks import device, rank, world


@functools.cache
def device_mesh():
    """One row of ranks; with several nodes a table (replicate, shard).

    Weights are then gathered within a node, and only sums of gradients cross nodes.
    """
    from torch.distributed.device_mesh import init_device_mesh

    here = int(os.environ.get("LOCAL_WORLD_SIZE", world()))  # ranks on this node
    if here < world() and world() % here == 0:
        shape = (world() // here, here)
        return init_device_mesh(device().type, shape, mesh_dim_names=("replicate", "shard"))
    return init_device_mesh(device().type, (world(),), mesh_dim_names=("shard",))


def shard(model: Transformer) -> Transformer:
    """Spread the model over the ranks, in place. Make the optimizer after it.

    Each block is a unit that is gathered by itself; embedding, last norm and head are the root's.
    The root stays gathered from `trunk` until the backward pass has ended: the head's log-probs
    are computed chunk by chunk after `trunk` has returned, and gather the head once, not for each
    chunk.
    """
    if world() == 1:
        return model
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method  # takes a second

    for block in model.layers:
        fully_shard(block, mesh=device_mesh())
    fully_shard(model, mesh=device_mesh(), reshard_after_forward=False)
    register_fsdp_forward_method(model, "trunk")  # every other way in calls it
    for unit in (*model.layers, model):
        # Losses are divided by global counts already: sum the gradients, do not average them. By a
        # plain sum, since gloo knows no scaled one.
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
    return model


def is_sharded(model) -> bool:
    """Whether `shard` has spread this model over several ranks."""
    return hasattr(model, "unshard")


def own_weights(model) -> dict[str, torch.Tensor]:
    """Name -> parameter as the optimizer has it: this rank's shard of each.

    After a forward pass without a backward pass the root still has whole tensors in their place,
    which no update reaches; `reshard` puts the shards back.
    """
    if is_sharded(model):
        model.reshard()
    return dict(model.named_parameters())


def whole(x):
    """The full value of a sharded tensor, on every rank; all ranks have to ask for it.

    Anything that is not sharded is returned as it is.
    """
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def part(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The part of a full tensor x that this rank has of `like`. Needs no other rank."""
    if not hasattr(like, "full_tensor"):
        return x
    from torch.distributed.tensor import distribute_tensor

    x = x.to(like.device)
    return distribute_tensor(x, like.device_mesh, like.placements, src_data_rank=None)


# ------------------------------------------------------------------------------------ a plain copy


def whole_copy(model: Transformer) -> Transformer:
    """A model that computes without other ranks: `model` itself, or a plain copy if it is sharded.

    All ranks have to ask for it. The copy learns nothing; `refresh` brings it up to date.
    """
    if not is_sharded(model):
        return model
    with torch.device("meta"):
        copy = Transformer(model.config)
    weights = {}
    for name, p in own_weights(model).items():
        weights[name] = whole(p.detach()).clone()  # with one rank a node `whole` copies nothing
    copy.load_state_dict(weights, assign=True)
    return copy.requires_grad_(False)


@torch.no_grad()
def refresh(copy: Transformer, model: Transformer) -> None:
    """Copy the weights of `model` into its whole_copy in place, one tensor after the other."""
    if copy is model:
        return
    for mine, theirs in zip(copy.parameters(), own_weights(model).values(), strict=True):
        mine.copy_(whole(theirs))


# ------------------------------------------------------------------------------------ for files


def full_weights(model) -> dict[str, torch.Tensor]:
    """The whole model on rank 0's CPU. The other ranks take part and get an empty dict.

    One parameter is gathered at a time, so that no GPU ever holds all of them.
    """
    own_weights(model)
    weights = {}
    for name, p in model.state_dict().items():
        full = whole(p.detach())
        if rank() == 0:
            weights[name] = full.cpu()
    return weights


@torch.no_grad()
def put_weights(model, weights: dict[str, torch.Tensor]) -> None:
    """Copy weights into the model in place: full tensors, or shards like the model's own."""
    own_weights(model)
    for name, p in model.state_dict().items():
        given = weights[name]
        if not hasattr(given, "full_tensor"):
            given = part(given, p)
        p.copy_(given)


def full_state(optimizer: torch.optim.Optimizer) -> dict:
    """The state_dict of an optimizer with whole moments on rank 0's CPU.

    It can be loaded with any number of ranks (put_state). The other ranks get one without moments.
    """
    state = optimizer.state_dict()
    moments = {}
    for i, of_one in state["state"].items():  # i numbers the parameters
        moments[i] = {}
        for name, x in of_one.items():
            full = whole(x)
            if rank() == 0:
                moments[i][name] = full.cpu()
    return {**state, "state": moments}


def put_state(optimizer: torch.optim.Optimizer, saved: dict) -> None:
    """Load what full_state has made, each rank its part."""
    parameters = []
    for group in optimizer.param_groups:
        parameters.extend(group["params"])
    moments = {}
    for i, of_one in saved["state"].items():
        moments[i] = {}
        for name, x in of_one.items():
            is_moment = x.shape == parameters[i].shape  # the step count is one number
            moments[i][name] = part(x, parameters[i]) if is_moment else x
    optimizer.load_state_dict({**saved, "state": moments})
