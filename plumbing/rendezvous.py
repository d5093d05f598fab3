"""A store of their own for the ranks of this start, also when torchrun has started ranks again.

The ranks find each other through a key-value store that torchrun keeps. When torchrun restarts the
ranks it keeps the same store (seen in torch 2.13), and in it the network addresses of the processes
that were killed. A rank that reads such an address waits for ever.

So all keys of one start get a prefix that is new. Nothing in the environment is the same on all
nodes and yet new at each start, so rank 0 makes up the prefix and hands it out:

    rank r:  writes asks/r = a random name of its own, then waits for answer/<that name>
    rank 0:  answers every name it finds under asks/ with the prefix
    rank r:  writes <prefix>/has/r, so that rank 0 knows it can stop

A name under asks/ may still be that of a dead process. Answering it harms nobody; the living rank r
overwrites asks/r with its own name, and rank 0 looks again until every rank has the prefix.
"""

import time
import uuid

import torch.distributed as dist


def store_of_this_start(store: dist.Store, rank: int, world: int, timeout: int) -> dist.Store:
    """The part of torchrun's store that only the processes of this start share.

    Raises RuntimeError where ranks are missing after `timeout` seconds.
    """
    if rank > 0:
        name = uuid.uuid4().hex
        store.set(f"asks/{rank}", name)
        prefix = store.get(f"answer/{name}").decode()  # get waits until there is a value
        store.set(f"{prefix}/has/{rank}", "")
        return dist.PrefixStore(prefix, store)

    prefix = uuid.uuid4().hex
    missing = set(range(1, world))
    end = time.time() + timeout
    while missing:
        for other in sorted(missing):
            if store.check([f"asks/{other}"]):
                name = store.get(f"asks/{other}").decode()
                store.set(f"answer/{name}", prefix)
            if store.check([f"{prefix}/has/{other}"]):
                missing.remove(other)
        if time.time() > end:
            late = f"ranks {sorted(missing)} did not start within {timeout} s (DIST_TIMEOUT)"
            raise RuntimeError(late)
        time.sleep(0.01)
    return dist.PrefixStore(prefix, store)
