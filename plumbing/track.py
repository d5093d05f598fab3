"""--wandb PROJECT: the lines of the log also go to Weights & Biases. Imported only then.

The log beside the result stays the truth: this is a copy of it, for those who watch many runs on
one page. Without an account, `WANDB_MODE=offline` keeps the copy in the folder wandb/.
"""

import importlib.util
import os
import uuid
from numbers import Real

from data import UserError
from data.files import write_text

PROJECT = ""  # of this process, and
FLAGS: dict = {}  # the flags of its run, both set by `prepare`


def prepare(project: str, flags: dict) -> None:
    """Before work starts. Raises UserError where the package is not there."""
    global PROJECT, FLAGS
    if project and importlib.util.find_spec("wandb") is None:
        raise UserError(f"--wandb {project} needs a package: pip install wandb")
    PROJECT = project
    FLAGS = flags


def open_run(name: str, step: int):
    """A run of Weights & Biases for the log <name>.log.jsonl; None without --wandb.

    step: that the run resumes from. A resumed one goes on in the same run, whose id is in
    <name>.wandb.
    """
    if not PROJECT:
        return None
    import wandb

    path = f"{name}.wandb"
    if step == 0 or not os.path.exists(path):
        write_text(path, uuid.uuid4().hex[:12] + "\n")
    with open(path) as file:
        id = file.read().strip()
    return wandb.init(
        project=PROJECT, name=os.path.basename(name), id=id, resume="allow", config=FLAGS
    )


def send(run, step: int, values: dict) -> None:
    """The numbers of a line of the log; decoded samples stay in the log alone."""
    numbers = {name: value for name, value in values.items() if isinstance(value, Real)}
    run.log(numbers, step=step)
