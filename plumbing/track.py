"""--wandb PROJECT: the lines of the log also go to Weights & Biases. Imported only then.

The log beside the result stays the truth: this is a copy of it, for those who watch many runs on
one page. Without an account, `WANDB_MODE=offline` keeps the copy in the folder wandb/.
"""

import importlib.util
import os
import uuid
from contextlib import contextmanager
from numbers import Real

from data import UserError
from data.files import write_text

PROJECT = ""  # of this process, and
FLAGS: dict = {}  # the flags of its run, both set by `prepare`


def prepare(project: str, flags: dict) -> None:
    """Before work starts. UserError: no package, no account, or a name that is refused."""
    global PROJECT, FLAGS
    PROJECT = project
    FLAGS = flags
    if not project:
        return
    if importlib.util.find_spec("wandb") is None:
        raise UserError(f"--wandb {project} needs a package: pip install wandb")
    import wandb

    with errors_in_one_line():
        wandb.Settings(project=project)
        if wandb.setup().settings.mode not in ("online", "shared", "run"):
            return
        known = wandb.login(prompt=False)  # a question would stop a run that nobody watches
    if not known:
        advice = "run `wandb login` first, or set WANDB_MODE=offline"
        raise UserError(f"--wandb {project}: no account is known here; {advice}")


@contextmanager
def errors_in_one_line():
    """What the package refuses (a name, a key, a mode, no network) becomes a UserError."""
    import wandb

    try:
        yield
    except (wandb.errors.Error, ValueError) as error:  # its settings raise ValueError
        reason = " ".join(str(error).split())
        advice = "WANDB_MODE=offline keeps the copy here"
        raise UserError(f"--wandb {PROJECT}: {reason[:200]}; {advice}") from None


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
    with errors_in_one_line():
        return wandb.init(
            project=PROJECT, name=os.path.basename(name), id=id, resume="allow", config=FLAGS
        )


def send(run, step: int, values: dict) -> None:
    """The numbers of a line of the log; decoded samples stay in the log alone."""
    numbers = {name: value for name, value in values.items() if isinstance(value, Real)}
    run.log(numbers, step=step)
