"""The tables of report.md. findings.py writes its findings, and figures.py puts it together."""

from study.recipes import WRITTEN
from study.rows import Study, problems_by_band, problems_by_level

MISSING = "–"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = []
    for cells in [header, ["---"] * len(header), *rows]:
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def task_section(study: Study, task: str) -> list[str]:
    """Everything about one task: results, verified results, and groups of problems."""
    ks = study.ks(task)
    both = f"pass@1 / pass@{ks[-1]}"
    parts = [f"## Results on {task}\n", what_was_run(study, task), result_table(study, task)]
    verified = verified_table(study, task)
    if verified:
        parts += [
            "Verified: the answer is right and so is every equation written on the way.\n",
            verified,
        ]
    levels = group_tables(study, task, problems_by_level)
    if levels:
        note = ""
        if task == "toy":
            note = "; shape (a,b): a operations on the first person, b on the second"
        parts += [
            f"### {task} by shape of problem\n",
            f"{both}, in brackets the number of problems{note}.\n",
            levels,
        ]
    bands = group_tables(study, task, problems_by_band)
    if bands:
        parts += [
            f"### {task} by how often the base solves it\n",
            f"{both} in bands of the pass@1 of the same checkpoint's base, fixed beforehand; in "
            "brackets the number of problems, per seed where it differs. The samples that choose "
            "the band are also the base's values: the base looks too low in the low bands and too "
            "high in the top one (never solved means a pass@k of 0). So compare recipes with each "
            "other here, and with the base by shape of problem.\n",
            bands,
        ]
    return parts


# ---------------------------------------------------------------------------------- what was run


def what_was_run(study: Study, task: str) -> str:
    rows = []
    for stem in study.stems_of(task):
        for recipe in study.main_recipes(task, stem):
            rows += study.rows[task, stem, recipe].values()
    rows_of_setting = [row for row in rows if not row["name"].endswith(f".{WRITTEN}")]
    preset = listed(row.get("preset") for row in rows)
    setting = listed(row.get("setting") for row in rows_of_setting)
    seeds = listed(row.get("seed") for row in rows)
    n_problems = listed(len(row["problems"]) for row in rows)
    code = listed(row.get("code") for row in rows)
    asked = {}
    for name in ("split", "n", "temperature", "top_p", "shots"):
        asked[name] = listed(row.get("key", {}).get(name) for row in rows)
    return (
        f"Preset {preset}, setting {setting} ({WRITTEN}: written), seeds {seeds}, "
        f"checkpoints after {', '.join(study.stems_of(task))} tokens of pre-training. "
        f"Task {task}, {asked['split']} split: {n_problems} problems x {asked['n']} samples, "
        f"temperature {asked['temperature']}, top_p {asked['top_p']}, "
        f"{asked['shots']} worked examples in the prompt. Code {code}.\n"
    )


def listed(values) -> str:
    """The different values, in order; "unknown" where there are none."""
    different = {str(value) for value in values if value is not None}
    return ", ".join(sorted(different)) or "unknown"


# ---------------------------------------------------------------------------------- results


def result_table(study: Study, task: str) -> str:
    columns = {f"pass@{k}": (f"pass@{k}", 1) for k in study.ks(task)}
    columns |= {
        "boxed": ("format", 2),
        "cut": ("truncated", 2),
        "length": ("length", 1),
        "distinct": ("distinct", 1),
        "general": ("general", 1),
        "held-out loss": ("heldout_loss", 3),
        "change from base": ("loss change", 3),
    }
    return table_of_columns(study, task, columns)


def verified_table(study: Study, task: str) -> str:
    columns = {f"verified pass@{k}": (f"verified@{k}", 1) for k in study.ks(task)}
    return table_of_columns(study, task, columns)


def table_of_columns(study: Study, task: str, columns: dict[str, tuple[str, int]]) -> str:
    """A row for each checkpoint and recipe. columns: header -> (quantity, digits).

    "" where not one of the quantities is known.
    """
    rows = []
    known = False
    for stem in study.stems_of(task):
        for recipe in study.main_recipes(task, stem):
            n_seeds = len(study.rows[task, stem, recipe])
            cells = []
            for quantity, digits in columns.values():
                cells.append(result_cell(study, task, stem, recipe, quantity, digits))
            known = known or set(cells) != {MISSING}
            rows.append([stem, recipe, str(n_seeds), *cells])
    if not known:
        return ""
    return table(["checkpoint", "recipe", "seeds", *columns], rows)


def result_cell(study: Study, task: str, stem: str, recipe: str, quantity: str, digits: int) -> str:
    if quantity != "loss change":
        estimate = study.estimate(stem, recipe, quantity, task)
        return estimate.text(digits) if estimate else MISSING
    change = study.difference(stem, recipe, "base", "heldout_loss")
    if recipe == "base" or change is None:
        return MISSING
    return change.text(digits, sign="+")


# ---------------------------------------------------------------------------------- groups


def group_tables(study: Study, task: str, grouping) -> str:
    """A table for each checkpoint: pass@1 / pass@k of each recipe in each group of problems.

    grouping(study, stem, task): group -> seed -> its problems.
    """
    tables = []
    for stem in study.stems_of(task):
        groups = grouping(study, stem, task)
        if groups:
            tables.append(group_table(study, task, stem, groups))
    return "\n".join(tables)


def group_table(study: Study, task: str, stem: str, groups: dict[str, dict[int, set]]) -> str:
    header = [f"at {stem}"]
    for name, problems_of_seed in groups.items():
        header.append(f"{name} ({sizes_of_group(problems_of_seed, groups)})")
    rows = []
    for recipe in study.main_recipes(task, stem):
        cells = [recipe]
        for problems_of_seed in groups.values():
            pair = []
            for k in (1, study.ks(task)[-1]):
                estimate = study.estimate(stem, recipe, f"pass@{k}", task, problems_of_seed)
                pair.append(f"{estimate.mean:.1f}" if estimate else MISSING)
            cells.append(" / ".join(pair))
        rows.append(cells)
    return table(header, rows)


def sizes_of_group(problems_of_seed: dict[int, set], groups: dict[str, dict[int, set]]) -> str:
    """How many problems a group has: one number where all seeds agree, else one for each seed."""
    seeds = set()
    for other in groups.values():
        seeds |= other.keys()
    sizes = []
    for seed in sorted(seeds):
        sizes.append(str(len(problems_of_seed.get(seed, ()))))
    if len(set(sizes)) == 1:
        return sizes[0]
    return ", ".join(sizes)
