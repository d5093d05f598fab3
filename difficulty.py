"""Which training problems are easy and which are hard for a checkpoint (the paper's appendix D), as problem files.

    python evaluate.py --ckpt out/toy/3.6M.pt --split_by_difficulty         # 3.6M.easy.jsonl, .medium.jsonl, .hard.jsonl
    python grpo.py --ckpt out/toy/3.6M.pt --data out/toy/3.6M.hard.jsonl --n 64 --out out/toy/3.6M.hard.rl.pt

Every training problem is sampled 64 times at temperature 1, without top_p, and graded. Of 64, hard is at most 8 right, easy
16 or more. The authors' files were 0 to 2, 2 to 8 and 16 or more, the paper merges the first two; each row carries its
count, for any other cut.

Scored problems are kept in `<name>.difficulty.part.jsonl` until all are, so the same command goes on after a kill;
the three files are written aside, then renamed, then `<name>.difficulty.json` says what they were made from.
"""

import json
import os

import common
from common import check, print0
from data.grader import grade
from data.problems import Problem, answer_kind, counted, load_problems, prompt_text
from sampler import Sampler

CHUNK = 8_192  # samples between two saves, over all ranks


def band(right: int, n: int) -> str:
    """easy, medium or hard, by the share of right samples: band(8, 64) == "hard", band(16, 64) == "easy"."""
    return "hard" if 64 * right <= 8 * n else "easy" if 64 * right >= 16 * n else "medium"


def count_right(sampler: Sampler, encoding, problems: list[Problem], keys: list[int], config) -> list[int]:
    """How many of difficulty_samples samples of each problem are right; every rank takes its share, all get all."""
    mine = range(common.rank(), len(problems), common.world())
    groups = sampler.sample(
        [encoding.encode_ordinary(prompt_text(problems[i])) for i in mine], config.difficulty_samples, config.max_response, 1.0,
        eos=encoding.eot_token, seed=config.seed, problem_ids=[keys[i] for i in mine],
    ) if len(mine) else []  # fmt: skip
    text = lambda r: encoding.decode([t for t in r.tokens if t != encoding.eot_token])
    right = lambda p, r: grade(text(r), p.answer, config.kind or answer_kind(p), config.rule)
    counts = {i: sum(right(problems[i], r) for r in group) for i, group in zip(mine, groups)}
    everywhere = {i: count for share in common.gather_objects(counts) for i, count in share.items()}
    return [everywhere[i] for i in range(len(problems))]


def write_aside(path: str, text: str) -> None:
    with open(path + ".tmp", "w") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    os.replace(path + ".tmp", path)


def split(model, encoding, facts: dict, task: str, config) -> None:
    """Score the training problems of `task` and write the three files beside the checkpoint."""
    stem = config.ckpt.removesuffix(".pt")
    part, about = f"{stem}.difficulty.part.jsonl", f"{stem}.difficulty.json"
    names = {name: f"{stem}.{name}.jsonl" for name in ("easy", "medium", "hard")}
    fields = ("difficulty_samples", "problems", "max_response", "kind", "rule", "seed")
    key = {"id": facts["id"], "data": task, **{f: getattr(config, f) for f in fields}}
    if all(map(os.path.exists, [about, *names.values()])) and not config.again:
        with open(about) as f:
            made_from = json.load(f)["key"]
        changed = ", ".join(f"{k} was {made_from.get(k)} and is now {v}" for k, v in key.items() if made_from.get(k) != v)
        check(not changed, f"{names['easy']} and its like exist and differ ({changed}); delete {about} to make them again, or give --again")
        print0(f"{', '.join(names.values())} are there already; nothing to do (--again repeats it)")
        return
    problems = load_problems(task, "train")
    print0(counted(task, "train", problems) + f"; {config.difficulty_samples} samples each, at temperature 1")
    problems = problems[: config.problems or None]
    longest = max(len(encoding.encode_ordinary(prompt_text(p))) for p in problems)
    common.check_length(model, longest + config.max_response, "the longest prompt + --max_response")
    keys = common.problem_keys(problems)
    rows = common.read_rows(part)
    counts = [count for row in rows[1:] for count in row["right"]] if rows and rows[0] == key else []
    common.barrier()  # all have read it
    if common.rank() == 0 and not counts:
        write_aside(part, json.dumps(key) + "\n")
    if counts:
        print0(f"going on after {len(counts):,} problems of {part}")
    size, sampler = max(1, CHUNK // config.difficulty_samples), Sampler(model, config.slots, memory=config.kv_memory)
    while len(counts) < len(problems):
        at = slice(len(counts), len(counts) + size)
        new = count_right(sampler, encoding, problems[at], keys[at], config)
        counts += new
        if common.rank() == 0:
            common.append_row(part, {"right": new})
        print0(f"{len(counts):,} of {len(problems):,} problems")
    if common.rank() == 0:
        write_files(problems, counts, names, config.difficulty_samples)
        sizes = {name: sum(band(c, config.difficulty_samples) == name for c in counts) for name in names}
        write_aside(about, json.dumps({"key": key, "problems": sizes, "right": counts}) + "\n")
        os.remove(part)
        print(", ".join(f"wrote {names[name]}: {n:,} problems" for name, n in sizes.items()))
    common.barrier()


def write_files(problems: list[Problem], counts: list[int], names: dict[str, str], n: int) -> None:
    """Each problem's row into its band's file; worked solutions are read one problem at a time, since all may be 15 GB."""
    files = {name: open(path + ".tmp", "w") for name, path in names.items()}
    for p, right in zip(problems, counts):
        row = {"id": p.id, "question": p.question, "answer": p.answer, "solutions": list(p.solutions), "source": p.source, "level": p.level}
        files[band(right, n)].write(json.dumps(row | {"right": right, "n": n}) + "\n")
    for name, path in names.items():
        files[name].flush()
        os.fsync(files[name].fileno())
        files[name].close()
        os.replace(path + ".tmp", path)
