"""What the scenes have shown, as a table, and as rows for the tests."""

import torch._dynamo

from tests.fake_gpu import bandwidth
from tests.fake_gpu.operators import PagedKernel
from tests.fake_gpu.scenes import Scene


def row_of(given: dict) -> dict:
    """A scene, run: what it has shown, without its kernels one by one."""
    scene = Scene(**given).run()
    places = {}
    for part, of_part in scene.waits.items():
        places[part] = [[*place, times] for place, times in sorted(of_part.items())]
    row = {
        **given,
        "name": scene.name(),
        "peak": scene.peak,
        "planned": scene.planned,
        "waits": places,
        "breaks": scene.breaks,
        "variants": scene.variants,
        "limit": torch._dynamo.config.recompile_limit,
        "later": scene.later,
        "kernels": len(scene.kernels),
        "bytes": sum(kernel.moved for kernel in scene.kernels),
    }
    if scene.work == "decode":
        tensor_cores = "STAGES" in PagedKernel.asked_for
        row |= bandwidth.expected(scene.shape, scene.slots, scene.kernels, tensor_cores)
    return row


def show(given: list[dict], args) -> None:
    print(
        f"{'scene':<46}{'kernels':>8}{'GB':>9}{'peak GiB':>9}{'plan':>8}"
        f"{'variants':>9}{'later':>6}{'breaks':>7}{'waits':>6}"
    )
    for one in given:
        row = row_of({**one, "layers": args.layers})
        most = max(row["variants"].values(), default=0)
        waits = sum(place[-1] for part in row["waits"].values() for place in part)
        print(
            f"{row['name']:<46}{row['kernels']:>8,}{row['bytes'] / 1e9:>9.2f}{row['peak']:>9.2f}"
            f"{row['planned']:>8.2f}{most:>9}{row['later']:>6}{len(row['breaks']):>7}{waits:>6}",
            flush=True,
        )
