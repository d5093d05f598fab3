"""The study: checkpoints x recipes x seeds as a table of commands, then figures and report.md.

    python excursions.py                          # toy scale: three checkpoints, seven recipes, about ten minutes on two cores
    python excursions.py --seeds 4                # with error bars
    python excursions.py --only figure9           # what one figure needs
    python excursions.py --dry_run                # the commands, without running them
    python excursions.py --preset 1B --plan       # what they would take: time, memory, disk, cost

What is done is skipped; interrupted, the same command goes on. Each command's output is in <out>/logs. Every line of
the table can be typed by hand. This file and figures.py need no torch.
"""

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

import figures
import report
from data import UserError

# the checkpoints M_t that recipes start from, by preset; the earliest toy one is too early on purpose
CHECKPOINTS = {
    "toy": ["1.5M", "2.4M", "3.6M"],
    "small": ["50M", "100M", "200M", "300M"],
    "1B": ["2B", "4B", "6B", "10B", "12B", "14B", "20B", "28B", "44B"],
    "1B-60B": ["10B", "20B", "30B", "34B", "44B", "56B"],
    "4B": ["10B", "28B"],
}
# recipe: (parent, script and flags); the order is the order of work
RECIPES = {
    "sft": ("", ["sft.py"]),
    "sft-gold": ("", ["sft.py", "--solutions", "all"]),
    "rl": ("", ["grpo.py"]),
    "parallel": ("", ["parallel.py"]),
    "sft.rl": (".sft", ["grpo.py"]),
    "sft-gold.rl": (".sft-gold", ["grpo.py"]),
}
# what evaluate.py asks by default, and with how many examples it asks base checkpoints: the rows of the toy world are too short for any
TASKS = {"toy": "toy,general", "small": "toy,general", "1B": "gsm8k,general", "1B-60B": "math,general", "4B": "math,general"}
BASE_SHOTS = {"1B": 8, "1B-60B": 8}  # the authors' 4B base was asked without, too
WRITTEN = "rl-written"  # direct RL as the paper's table has it, from the earliest checkpoint: the collapse
FIGURES = {  # the recipes each figure needs
    "figure2": ["sft", "sft.rl", "rl"],
    "figure3": ["sft-gold", "sft-gold.rl", "rl"],
    "figure6": ["sft", "sft.rl", "rl"],
    "figure7": ["sft", "sft-gold", "rl"],
    "figure9": ["sft", "sft.rl", "rl", "parallel"],
    "figure13": ["rl", WRITTEN],
}


@dataclass
class Task:
    """One command: what it writes, what it needs, and after which it may run."""

    name: str  # "3.6M.sft.rl", for people
    command: list[str]
    makes: str = ""  # a checkpoint; "" for an evaluation, which is done when its rows are in results.jsonl
    needs: list[str] = field(default_factory=list)  # checkpoints
    folder: str = ""  # the seed's folder
    checkpoint: str = ""  # of an evaluation
    rows: set = frozenset()  # the tasks whose rows it makes

    def done(self) -> bool:
        if self.makes:
            return os.path.exists(self.makes)
        rows = report.read_rows(os.path.join(self.folder, "results.jsonl"))
        return self.rows <= {row["task"] for row in rows if row["name"] == self.checkpoint}

    def ready(self) -> bool:
        return all(os.path.exists(path) for path in self.needs)


def seed_folder(out: str, seed: int) -> str:
    return out if seed == 0 else f"{out}-seed{seed}"


def tasks_of_seed(args, seed: int) -> list[Task]:
    """The table: pre-training, then every recipe at every checkpoint, each followed by its evaluation."""
    folder = seed_folder(args.out, seed)
    python = [sys.executable] if args.nproc == 1 else ["torchrun", "--standalone", f"--nproc_per_node={args.nproc}"]
    stems = CHECKPOINTS[args.preset]
    path = lambda name: os.path.join(folder, name + ".pt")
    common = ["--seed", str(seed)]
    recipes = [r for r in [*RECIPES, WRITTEN] if not args.only or r in FIGURES[args.only]]
    tasks = []
    if args.pretrain:
        command = [*python, "pretrain.py", "--preset", args.preset, "--out", folder, "--keep", ",".join(stems), *common]
        tasks.append(Task("pretrain", command, makes=path(stems[-1])))

    def evaluate(name):
        shots = ["--shots", str(BASE_SHOTS[args.preset])] if name in stems and args.preset in BASE_SHOTS else []
        command = [*python, "evaluate.py", "--ckpt", path(name), "--setting", args.setting, *shots, *common]
        return Task(f"{name} evaluation", command, needs=[path(name)], folder=folder, checkpoint=name, rows=set(TASKS[args.preset].split(",")))

    for i, stem in enumerate(stems):
        evaluations = [evaluate(stem)]  # after the recipes: being short, they fill the gaps that long ones leave
        for recipe in recipes:
            if recipe == WRITTEN:
                if i == 0:
                    name = f"{stem}.{WRITTEN}"
                    command = [*python, "grpo.py", "--ckpt", path(stem), "--setting", "written", "--out", path(name), *common]
                    tasks.append(Task(name, command, makes=path(name), needs=[path(stem)]))
                    evaluations.append(evaluate(name))
                continue
            parent, script = RECIPES[recipe]
            name = f"{stem}.{recipe}"
            command = [*python, script[0], "--ckpt", path(stem + parent), *script[1:], "--setting", args.setting, *common]
            tasks.append(Task(name, command, makes=path(name), needs=[path(stem + parent)]))
            evaluations.append(evaluate(name))
        tasks += evaluations
    for task in tasks:
        task.folder = folder
    return tasks


def run(tasks: list[Task], args, lock) -> list[Task]:
    """Work through the table with `workers` commands at a time, the first ready one first -> the tasks that failed.

    SIGTERM is passed on to the commands that run: a stage saves the step it is in and leaves, and so does the study.
    """
    logs = os.path.join(args.out, "logs")
    os.makedirs(logs, exist_ok=True)
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    if args.workers > 1:  # one-thread processes side by side do more than one process with all threads, at this size
        threads = max(1, (os.cpu_count() or 1) // args.workers)
        environment["OMP_NUM_THREADS"] = str(threads)
    waiting, running, failed = [t for t in tasks if not t.done()], {}, []
    total, started = len(waiting), time.time()
    asked = []  # to stop
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    try:
        while waiting or running:
            if asked:
                for process in running:
                    process.terminate()
                for process in running:
                    process.wait()
                print("excursions.py: stopped by SIGTERM; the same command goes on", file=sys.stderr)
                sys.exit(128 + signal.SIGTERM)
            for process, (task, log, since) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[process]
                log.close()
                finished = total - len(waiting) - len(running)
                so_far, took = time.time() - started, time.time() - since
                said = f"[{finished}/{total}, {so_far:4.0f} s] {os.path.basename(task.folder)} {task.name}: {took:.0f} s"
                if process.returncode:
                    failed.append(task)
                    print(f"{said}, FAILED; the end of {log.name}: {last_line(log.name)}", flush=True)
                else:
                    print(f"{said}  {last_line(log.name)}", flush=True)
            while len(running) < args.workers and (task := next((t for t in waiting if t.ready()), None)):
                waiting.remove(task)
                log = open(os.path.join(logs, f"{os.path.basename(task.folder)}.{task.name}.txt".replace(" ", ".")), "w")
                running[subprocess.Popen(task.command, stdout=log, stderr=subprocess.STDOUT, env=environment, pass_fds=[lock.fileno()])] = (task, log, time.time())
            if not running:  # nothing runs and nothing is ready: what is left waits for what failed
                failed += waiting
                break
            time.sleep(0.1)
    except KeyboardInterrupt:
        for process in running:  # they got the interrupt too, and go on from their last save next time
            process.wait()
        sys.exit("excursions.py: interrupted; the same command goes on")
    finally:
        signal.signal(signal.SIGTERM, before)
    return failed


def last_line(path: str) -> str:
    with open(path) as f:
        lines = f.read().strip().splitlines()
    return lines[-1] if lines else "(nothing)"


def claim(out: str):
    """Only one study at a time works in a folder; the lock is held by its commands too, also when it is killed."""
    os.makedirs(out, exist_ok=True)
    lock = open(os.path.join(out, ".lock"), "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"commands of another study still run in {out}; waiting for them to end", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def same_commands(tasks: list[Task], args) -> None:
    """Refuse to mix two studies in one folder: what is there must have been made by this table's commands."""
    path = os.path.join(args.out, "commands.json")
    known = json.load(open(path)) if os.path.exists(path) else {}
    now = {f"{t.folder} {t.name}": " ".join(t.command[1:]) for t in tasks}
    for key, command in now.items():
        if known.get(key, command) != command:
            sys.exit(f"excursions.py: {key} was made by `{known[key]}`, now it would be `{command}`; give another --out")
    with open(path + ".tmp", "w") as f:
        json.dump(known | now, f, indent=1)
    os.replace(path + ".tmp", path)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.error = lambda message: sys.exit(f"excursions.py: {message}; --help lists the flags")
    parser.add_argument("--preset", default="toy", choices=CHECKPOINTS, help="scale")
    parser.add_argument("--setting", default="controlled", choices=["written", "run", "controlled"], help="fidelity to the paper")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0 .. N-1, each with its own pre-training")
    parser.add_argument("--only", choices=FIGURES, help="run only what this figure needs")
    parser.add_argument("--out", default="", help="folder; default out/<preset>; further seeds get <out>-seed1, ...")
    parser.add_argument("--workers", type=int, default=0, help="commands at a time; default: one per core at toy scale, else 1")
    parser.add_argument("--nproc", type=int, default=1, help="processes per command, by torchrun")
    parser.add_argument("--no-pretrain", "--no_pretrain", dest="pretrain", action="store_false", help="the checkpoints are there, from convert.py say")
    parser.add_argument("--dry-run", "--dry_run", dest="dry_run", action="store_true", help="print the commands and stop")
    parser.add_argument("--plan", action="store_true", help="print what it would take and stop; with --gpus, --gpu, --price, ... (see README)")
    args, rest = parser.parse_known_args(argv)
    if args.plan:
        import plan  # needs torch

        try:
            machine, rest = plan.read_machine("excursions.py", rest, args.preset, args.nproc)
        except UserError as error:
            parser.error(error)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    os.chdir(os.path.dirname(os.path.abspath(__file__)))  # commands name the scripts as a user here would
    args.out = args.out or os.path.join("out", args.preset)
    args.workers = args.workers or (min(8, os.cpu_count() or 1) if args.preset == "toy" else 1)
    by_seed = [tasks_of_seed(args, seed) for seed in range(args.seeds)]
    tasks = sorted((t for ts in by_seed for t in ts), key=lambda t: t.name != "pretrain")  # every pre-training first
    if args.plan:
        return plan.print_study(tasks, args, machine)
    if args.dry_run:
        for task in tasks:
            start = "python" if task.command[0] == sys.executable else task.command[0]
            print(" ".join([start, *task.command[1:]]) + ("   # done" if task.done() else ""))
        return
    lock = claim(args.out)
    same_commands(tasks, args)
    left = sum(not t.done() for t in tasks)
    print(f"{len(tasks)} commands, {len(tasks) - left} done, {left} to do, {args.workers} at a time; outputs in {args.out}/logs", flush=True)
    failed = run(tasks, args, lock)
    written = figures.write_report([seed_folder(args.out, seed) for seed in range(args.seeds)], args.out)
    print(f"report: {written}" if left else f"all done before; nothing to do. Report: {written}")
    lock.close()
    if failed:
        sys.exit(f"excursions.py: {len(failed)} commands failed or could not start: {', '.join(t.name for t in failed)}; see {args.out}/logs")


if __name__ == "__main__":
    main(sys.argv[1:])
