"""The program: python -m tests.fake_gpu. See the package's docstring."""

import argparse
import json
import warnings

from tests.fake_gpu import device

# The scenes of the table; every one of them takes seconds, or a minute where it is compiled.
TABLE = []
for preset in ("1B", "4B"):
    for gpus in (1, 8):
        for compile in (False, True):
            for work in ("pretrain", "grpo"):
                TABLE.append(dict(work=work, preset=preset, gpus=gpus, compile=compile))
for slots in (256, 512):
    for compile in (False, True):
        for top_p in (1.0, 0.95):
            how = dict(slots=slots, compile=compile, top_p=top_p)
            TABLE.append(dict(work="decode", preset="1B", **how))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fake_gpu")
    parser.add_argument("work", nargs="?", help="pretrain, grpo or decode; all of them by default")
    parser.add_argument("--preset", help="1B or 4B")
    parser.add_argument("--gpus", type=int)
    parser.add_argument("--layers", type=int, default=0, help="fewer than the preset has")
    parser.add_argument("--eager", action="store_true", help="nothing that is compiled")
    parser.add_argument("--scenes", help="instead of all this: JSON, a list of scenes")
    args = parser.parse_args()
    start()
    from tests.fake_gpu import table

    if args.scenes:
        for given in json.loads(args.scenes):
            print(json.dumps(table.row_of(given)), flush=True)
        return
    table.show([given for given in TABLE if is_asked_for(given, args)], args)


def is_asked_for(given: dict, args) -> bool:
    return (
        args.work in (None, given["work"])
        and args.preset in (None, given["preset"])
        and args.gpus in (None, given.get("gpus", 1))
        and not (args.eager and given["compile"])
    )


def start() -> None:
    """From here on there is a GPU."""
    warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
    device.install(lambda: scenes.Free.bytes())
    from tests.fake_gpu import compiler, meter, operators, scenes

    meter.install()
    compiler.install()
    operators.install()


if __name__ == "__main__":
    main()
