"""Report and figures from made-up rows: numbers recomputed by hand, every figure drawn, nothing needed that is not there."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

import evaluate
from data import UserError
from plumbing.files import read_rows
from plumbing.result_rows import read_results
from plumbing.row_check import CHECK, checksum
from plumbing.units import count
from study import drawing, figures, findings, paper, rows
from study.estimates import Estimate, Part, direction, summarise
from study.recipes import RECIPES as ALL_RECIPES
from study.recipes import RECIPES_OF_FIGURE

LEVELS = ["(1,2)", "(2,2)"]
STEMS = {"1.2M": 1_200_000, "3.6M": 3_600_000}
RECIPES = ["base", "sft", "sft-gold", "rl", "sft.rl", "sft-gold.rl", "parallel"]
N = 32


def problem_row(name, counts, task="toy", **changes):
    """A row as evaluate.py writes it; problem i has level i % 2, and every second right sample is verified."""
    stem = next(stem for stem in STEMS if name.startswith(stem))
    recipe = name[len(stem) + 1 :]
    problems = [[f"{i:04x}", LEVELS[i % 2], N, c, c // 2] for i, c in enumerate(counts)]
    row = {
        "name": name, "task": task, "kind": "pass@k", "recipe": "rl" if recipe == "rl-written" else recipe or "base", "tokens": STEMS[stem], "seed": 0,
        "preset": "toy", "setting": "written" if recipe == "rl-written" else "controlled" if recipe else None, "code": "abc",
        "key": {"split": "test", "n": N, "temperature": 0.6, "top_p": 0.95, "shots": 0},
        "distinct": 2.0, "format": 0.75, "truncated": 0.125, "length": 30.0, "verified_pass@1": 0.0, "problems": problems,
    }  # fmt: skip
    return row | changes


def general_row(name, mean, loss):
    row = problem_row(name, [], task="general")
    facts = {field: row[field] for field in ("name", "task", "recipe", "tokens", "seed")}
    return facts | {"kind": "general", "mean": mean, "heldout_loss": loss}


def write_rows(folder, rows, torn=False):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "results.jsonl"), "w") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)
        f.write('{"name": "3.6M.r' if torn else "")


def full_study(folder, shift=0):
    """All recipes at both checkpoints, and two RL logs: recipe i solves problem j in min(32, i + j + shift) samples."""
    rows = []
    for stem in STEMS:
        for i, recipe in enumerate([*RECIPES, *(["rl-written"] if stem == "1.2M" else [])]):
            name = stem if recipe == "base" else f"{stem}.{recipe}"
            counts = [min(N, i + j + shift) for j in range(8)]
            if recipe == "rl-written":
                counts = [0] * 8
            rows.append(problem_row(name, counts))
            loss = 1.0 + 0.01 * i + 0.002 * shift * i
            rows.append(general_row(name, 0.5 - 0.01 * i, loss))
    write_rows(folder, rows)
    for name in ("1.2M.rl", "3.6M.rl", "1.2M.rl-written"):
        with open(os.path.join(folder, f"{name}.log.jsonl"), "w") as f:
            for step in range(1, 13):
                row = dict(step=step, accuracy=step / 20, format=0.5, mixed=0.3)
                f.write(json.dumps(row | dict(length=20.0, entropy=1.0, groups=4.0)) + "\n")
    for name in ("1.2M.sft", "3.6M.sft"):  # SFT keeps a log too, without rollouts
        with open(os.path.join(folder, f"{name}.log.jsonl"), "w") as f:
            f.write(json.dumps(dict(step=1, loss=1.5, lr=1e-3)) + "\n")


def report_of(folders, out, **flags):
    with open(figures.write_report([str(f) for f in folders], str(out), **flags)) as f:
        return f.read()


def cells(written, *starts):
    """The cells of the first table row that begins with these."""
    start = "| " + " | ".join(starts) + " |"
    line = next(line for line in written.splitlines() if line.startswith(start))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def undrawn(monkeypatch):
    """Drawing takes seconds; for tests that read the report alone."""
    monkeypatch.setattr(figures, "place", lambda study, figure, out: "")
    monkeypatch.setattr(figures, "place_of_experiment", lambda *arguments: "")


def test_pass_at_k_is_the_evaluations():
    assert rows.pass_at_k is evaluate.pass_at_k


def test_read_rows(tmp_path):
    assert read_rows(str(tmp_path / "results.jsonl")) == []
    write_rows(tmp_path, [{"a": 1}, {"a": 2}], torn=True)
    assert read_rows(str(tmp_path / "results.jsonl")) == [{"a": 1}, {"a": 2}]


def test_all_figures_are_drawn(tmp_path):
    full_study(tmp_path)
    written = report_of([tmp_path], tmp_path)
    for figure in figures.FIGURES:
        data = (tmp_path / "figures" / f"{figure}.png").read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) > 20_000, figure
        assert f"(figures/{figure}.png)" in written
    assert "not drawn" not in written and "Not there" not in written


def test_table_of_one_seed(tmp_path, undrawn):
    counts = [0, 1, 4, 32]
    rows = [
        problem_row("3.6M", [9, 9, 9, 9]),
        problem_row("3.6M", counts),  # the later evaluation counts
        general_row("3.6M", 0.4, 1.25),
        problem_row("3.6M.rl", [32] * 4),
        general_row("3.6M.rl", 0.41, 1.375),
    ]
    write_rows(tmp_path, rows, torn=True)
    written = report_of([tmp_path], tmp_path)
    at_8 = [1 - math.comb(N - c, 8) / math.comb(N, 8) for c in counts]
    row = cells(written, "3.6M", "base")
    assert row[2] == "1" and row[6] == "0.75"
    assert row[7:] == ["0.12", "30.0", "2.0", "40.0", "1.250", "–"]
    values = [cell.split(" [")[0] for cell in row[3:6]]
    # (0 + 1 + 4 + 32) / 128; 3 of 4 ever solved
    assert values == ["28.9", f"{25 * sum(at_8):.1f}", "75.0"]
    low, high = map(float, row[3].split("[")[1].strip("]").split(","))
    assert 0 <= low < 28.9 < high <= 100
    assert cells(written, "3.6M", "rl")[3] == "100.0 [100.0, 100.0]"
    assert cells(written, "3.6M", "rl")[-1] == "+0.125"
    verified = written.split("Verified:")[1]
    cell = cells(verified, "3.6M", "base")[3]
    assert cell.split(" [")[0] == f"{100 * (0 + 0 + 2 + 16) / 128:.1f}"
    assert "4 problems x 32 samples, temperature 0.6, top_p 0.95" in written


def test_seeds_give_standard_errors_and_paired_differences(tmp_path, undrawn):
    folders = [tmp_path / "toy", tmp_path / "toy-seed1", tmp_path / "toy-seed2"]
    # Of 32, the same for both problems: pass@1 is 12.5, 25, 37.5 and 50, 75, 81.25.
    base = [4, 8, 12]
    rl = [16, 24, 26]
    for folder, a, b in zip(folders, base, rl):
        write_rows(folder, [problem_row("3.6M", [a, a]), problem_row("3.6M.rl", [b, b])])
    written = report_of(folders, tmp_path)
    assert cells(written, "3.6M", "base")[2:4] == ["3", f"25.0 ± {12.5 / math.sqrt(3):.1f}"]
    differences = [37.5, 50.0, 43.75]
    error = math.sqrt(sum((d - 43.75) ** 2 for d in differences) / 2 / 3)
    assert 43.75 > 4.30 * error
    row = cells(written, "rl - base")
    assert row[1] == f"higher: {43.75:+.1f} ± {error:.1f}, 3 of 3 seeds up"
    # pass@32 is 100 everywhere
    undecided = "undecided: +0.0 ± 0.0, 0 of 3 seeds up; the interval holds 0"
    assert row[2] == f"{undecided}, not even 200 seeds would decide"
    assert row[3] == "undecided"


def test_words_follow_the_interval():
    one = lambda mean, low, high: Estimate(mean, [mean], [Part(1.0, 9)], (low, high))
    two = lambda mean: Estimate(mean, [mean] * 2, [Part(1.0, 1)])  # standard error 1
    assert direction(one(2, 1, 3)) == "higher"
    assert direction(one(-2, -3, -1)) == "lower"
    assert direction(one(1, -1, 3)) == "undecided"
    assert direction(two(2)) == "undecided"  # two seeds: 12.7 standard errors
    assert direction(two(20)) == "higher"
    assert direction(Estimate(2, [2], [])) == "one seed"


def test_sharpening_and_collapse_are_named_from_rows(tmp_path, undrawn):
    rows = [
        problem_row("3.6M.sft", [2] * 40),
        problem_row("3.6M.sft.rl", [32] * 15 + [0] * 25),
        problem_row("1.2M", [1] * 40),
    ]
    rows += [problem_row("1.2M.rl-written", [0] * 40, format=1.0, length=5.0)]
    write_rows(tmp_path, rows)
    written = report_of([tmp_path], tmp_path)
    assert cells(written, "sft.rl - sft")[3] == "sharpening"
    assert "1.2M.rl-written against its base: collapse" in written
    assert "length (tokens) one seed: -25.0" in written
    assert "Not there: rl - base" in written
    rows[-1]["problems"] = [[*p[:3], 32, 0] for p in rows[-1]["problems"]]
    write_rows(tmp_path, rows)
    assert "1.2M.rl-written against its base: no collapse" in report_of([tmp_path], tmp_path)


def test_levels_and_bands(tmp_path, undrawn):
    counts = [0, 0, 1, 2, 6, 7, 32, 0]  # 0 %; 3.1 %; 6.25 and 18.75 %; 21.9 and 100 %
    halves = [c // 2 for c in counts]
    write_rows(tmp_path, [problem_row("3.6M", counts), problem_row("3.6M.rl", halves)])
    study = rows.Study([str(tmp_path)])
    found = rows.problems_by_band(study, "3.6M", "toy")
    bands = {band: sorted(i for i, _ in seeds[0]) for band, seeds in found.items()}
    assert bands == {"0-2 %": [0, 1, 7], "2-5 %": [2], "5-20 %": [3, 4], "20-100 %": [5, 6]}
    found = rows.problems_by_level(study, "3.6M", "toy")
    levels = {level: sorted(i for i, _ in seeds[0]) for level, seeds in found.items()}
    assert levels == {"(1,2)": [0, 2, 4, 6], "(2,2)": [1, 3, 5, 7]}
    written = report_of([tmp_path], tmp_path)
    by_kind, by_band = written.split("by how often the base solves it")
    assert "(1,2) (4) | (2,2) (4)" in by_kind
    assert "0-2 % (3) | 2-5 % (1) | 5-20 % (2) | 20-100 % (2)" in by_band
    mean = lambda places: f"{100 * np.mean([counts[i] // 2 / N for i in places]):.1f}"
    assert cells(by_band, "rl")[1:] == [
        f"{mean(p)} / {100 * np.mean([counts[i] // 2 > 0 for i in p]):.1f}" for p in bands.values()
    ]
    assert cells(by_kind.split("### toy by shape of problem")[1], "rl")[1].startswith(
        mean(levels["(1,2)"])
    )


@pytest.mark.parametrize(
    "keep", [{"3.6M.rl"}, {"1.2M", "1.2M.rl-written"}, {"1.2M.sft", "3.6M"}, set()]
)
def test_what_is_missing_is_said(tmp_path, keep):
    full_study(tmp_path)
    rows = [row for row in read_rows(str(tmp_path / "results.jsonl")) if row["name"] in keep]
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "figure13.png").write_text("of an earlier written")
    write_rows(tmp_path, rows)
    for log in tmp_path.glob("*.log.jsonl"):
        log.unlink()
    written = report_of([tmp_path, tmp_path / "never-made"], tmp_path)
    assert "No evaluations in" in written
    if keep:
        assert "Not there" in written and "**figure13** is not drawn" in written
        assert not (tmp_path / "figures" / "figure13.png").exists()


def test_other_tasks_and_names_do_not_disturb(tmp_path, undrawn):
    full_study(tmp_path)
    before = report_of([tmp_path], tmp_path)
    rows = read_rows(str(tmp_path / "results.jsonl"))
    math_row = problem_row("3.6M.rl", [3] * 8, task="gsm8k")
    del math_row["verified_pass@1"]
    hard_row = problem_row("3.6M", [1] * 8, task="toy-hard")
    stranger = problem_row("3.6M.rl", [1]) | {"name": "my-try"}
    write_rows(tmp_path, [math_row, hard_row, *rows, stranger])
    after = report_of([tmp_path], tmp_path)
    assert "Left out, not named <tokens>.<recipe>: my-try" in after
    assert after.index("Results on toy\n") < after.index("Results on gsm8k")
    assert after.index("Results on gsm8k") < after.index("Results on toy-hard")
    section = lambda text, start, end: text[text.index(start) : text.index(end)]
    findings = section(before, "## Findings", "## Results on toy")
    assert findings == section(after, "## Findings", "## Results on toy")
    results = section(before, "## Results on toy\n", "## Figures")
    assert results == section(after, "## Results on toy\n", "## Results on gsm8k")
    assert "on gsm8k, in points" in report_of([tmp_path], tmp_path, task="gsm8k")


def test_cells_of_an_experiment_stand_in_its_section_alone(tmp_path, undrawn):
    full_study(tmp_path)
    edge = [dict(name="d0", recipe="base"), dict(name="d0.rl-inside", recipe="rl")]
    rows_of_edge = [
        problem_row("3.6M", [i, 9], task="toy-long", tokens=14_000_000) | names
        for i, names in enumerate(edge)
    ]
    random = problem_row("3.6M.rl-random", [32] * 8)  # of the controls
    by_hand = problem_row("3.6M.rl-mine", [1] * 8)  # of no experiment
    write_rows(
        tmp_path, [*read_rows(str(tmp_path / "results.jsonl")), *rows_of_edge, random, by_hand]
    )
    study = rows.Study([str(tmp_path)])
    assert (
        study.stems == ["1.2M", "3.6M"]
        and study.last == "3.6M"
        and study.stems_of("toy-long") == ["d0"]
    )
    assert study.cell("d0.rl-inside") == ("d0", "rl-inside")
    written = report_of([tmp_path], tmp_path)
    before, _, section = written.partition("## controls")
    assert "rl-random" not in before and "| 3.6M.rl-random" in section
    assert "From checkpoints after 1.2M, 3.6M tokens" in before and "Best pass@32: rl" not in before
    results = written.split("## Results on toy\n")[1].split("## Results on toy-long")
    assert (
        "| 3.6M | rl-mine |" in results[0]
        and "d0" not in results[0]
        and "rl-random" not in results[0]
    )
    assert "| d0 | rl-inside |" in results[1]


def test_fewer_samples_than_32(tmp_path, undrawn):
    rows = [problem_row(name, [1, 2]) for name in ("3.6M", "3.6M.rl")]
    for row in rows:
        row["problems"] = [[*p[:2], 8, *p[3:]] for p in row["problems"]]
    write_rows(tmp_path, rows)
    written = report_of([tmp_path], tmp_path)
    assert "| pass@8 | boxed |" in written and "Best pass@8" in written


def test_paper_values():
    assert paper.PAPER["figure2"]["rl"]["44B"] == {"pass@1": 55.8, "pass@8": 72.7, "pass@32": 80.4}
    assert "general" not in paper.PAPER["figure9"]["sft.rl"]["44B"]
    assert paper.paper_difference("rl", "base") == "+41.0 / +12.9"
    assert count("1.2M") == 1_200_000 and count("44B") == 44e9


def test_script(tmp_path):
    def run(*flags):
        command = [sys.executable, "-m", "study.figures", *map(str, flags)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    full_study(tmp_path / "toy")
    full_study(tmp_path / "toy-seed1", shift=1)
    done = run(tmp_path / "toy", tmp_path / "toy-seed1", "--out", tmp_path / "both")
    assert done.returncode == 0 and done.stdout.strip() == str(tmp_path / "both" / "report.md")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "results.jsonl").write_text("{not json\n")
    (tmp_path / "empty").mkdir()
    for flags in (
        [tmp_path / "nowhere"],
        [tmp_path / "empty"],
        [tmp_path / "broken"],
        [tmp_path / "toy", "--task", "gsm8k"],
        [tmp_path / "toy", "--what"],
    ):
        failed = run(*flags)
        assert failed.returncode == 1, failed.stderr
        assert failed.stderr.startswith("figures.py: "), failed.stderr
        assert failed.stderr.count("\n") == 1, failed.stderr


def test_matplotlib_is_imported_for_drawing_only():
    code = "import sys, study.figures; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_recipe_has_a_look_and_every_figure_its_recipes():
    assert list(drawing.STYLES) == ALL_RECIPES
    assert {name for name in figures.FIGURES if name.startswith("figure")} == set(RECIPES_OF_FIGURE)


def test_folders_that_differ_in_more_than_the_seed_are_refused(tmp_path):
    def folder(name, config, **changes):
        rows = []
        for recipe in ("", ".rl"):
            facts = {"config": config if recipe else {}}
            rows.append(problem_row(f"3.6M{recipe}", [1, 2], facts=facts, **changes))
        write_rows(tmp_path / name, rows)
        return str(tmp_path / name)

    same = dict(lr=1.0, seed=0)
    a = folder("a", same, id="1")
    b = folder("b", same | {"seed": 1}, id="2", seed=1)
    figures.write_report([a, b], str(tmp_path / "both"))

    def refused(folders, words):
        with pytest.raises(UserError, match=words):
            figures.write_report(folders, str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    refused([a, a], "hold the same run")
    refused([a, folder("copy", same, id="1")], "hold the same run")
    other = folder("other", same | {"lr": 2.0}, id="3")
    refused(
        [a, b, other],
        r"a and \S*other differ in more than the seed \(3.6M.rl on toy: lr 1.0 and 2.0",
    )
    refused([a, folder("setting", same, id="4", setting="run")], "setting None and run")
    key = {"split": "test", "n": 8, "temperature": 0.6, "top_p": 0.95, "shots": 0}
    refused([a, folder("asked", same, id="5", key=key)], "n 32 and 8")


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(problems=""), "row 2 is damaged .problems is ''"),
        (dict(problems=[[1, 2]]), "row 2 is damaged .problems holds .1, 2."),
        (dict(problems=[["a", "", 4, 5, 0]]), "row 2 is damaged"),
        (dict(tokens="many"), "row 2 is damaged .tokens is 'many'"),
        (dict(facts=3), "row 2 is damaged .facts is 3"),
        (dict(key=[]), "row 2 is damaged .key is"),
        (dict(length="long"), "row 2 is damaged .length is 'long'"),
        (dict(kind=None), "row 2 is damaged .kind is None"),
        (dict(kind="general"), "row 2 is damaged .it has no mean"),
    ],
)
def test_a_damaged_row_is_named(tmp_path, change, words):
    write_rows(tmp_path, [problem_row("3.6M", [1]), problem_row("3.6M.rl", [2], **change)])
    with pytest.raises((UserError, OSError), match=words) as error:
        figures.write_report([str(tmp_path)], str(tmp_path))
    assert "results.jsonl" in str(error.value) and "\n" not in str(error.value)


def test_a_row_may_lack_what_older_code_did_not_write(tmp_path):
    row = problem_row("3.6M", [1, 2])
    for name in ("seed", "preset", "key", "code", "setting"):
        del row[name]
    write_rows(tmp_path, [row])
    assert "Results on toy" in report_of([tmp_path], tmp_path)


@pytest.mark.parametrize("change", [dict(step=None), dict(accuracy="x"), dict(length=[])])
def test_a_damaged_log_is_named(tmp_path, change):
    full_study(tmp_path)
    path = tmp_path / "3.6M.rl.log.jsonl"
    rows = read_rows(str(path))
    rows[4] |= change
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="3.6M.rl.log.jsonl, row 5 is damaged"):
        report_of([tmp_path], tmp_path)


def test_a_number_that_was_changed_is_noticed(tmp_path):
    """A row has a checksum; rows of older code have none."""
    row = problem_row("3.6M", [1, 2], facts={"config": {}})
    whole = row | {"facts": row["facts"] | {CHECK: checksum(row)}}
    write_rows(tmp_path, [whole])
    assert read_results(str(tmp_path / "results.jsonl")) == [whole]
    for change in (
        {"length": 31.0},
        {"problems": row["problems"][::-1]},
        {"facts": {CHECK: "0" * 16}},
    ):
        write_rows(tmp_path, [whole, whole | change])
        with pytest.raises(UserError, match="row 2 is damaged .its numbers are not those"):
            read_results(str(tmp_path / "results.jsonl"))


@pytest.mark.parametrize("command", ["made", "evaluate.py --n x", "evaluate.py 'a", ""])
def test_a_command_that_is_none_is_named(tmp_path, command):
    write_rows(tmp_path, [problem_row("3.6M", [1])])
    commands = {f"{tmp_path} 3.6M evaluation": command}
    (tmp_path / "commands.json").write_text(json.dumps(commands))
    with pytest.raises(UserError, match="commands.json is damaged") as error:
        figures.write_report([str(tmp_path)], str(tmp_path))
    assert "\n" not in str(error.value)


def test_every_pair_of_the_findings_is_read_in_words():
    up = summarise({0: {"a": 10.0}, 1: {"a": 10.5}, 2: {"a": 9.5}})
    down = summarise({0: {"a": -10.0}, 1: {"a": -10.5}, 2: {"a": -9.5}})
    unclear = summarise({0: {"a": 1.0}, 1: {"a": -1.0}, 2: {"a": 0.5}})
    assert findings.what_rl_did(up, up) == "expansion"
    assert findings.what_rl_did(up, down) == "sharpening"
    assert findings.what_rl_did(up, unclear) == "undecided"
    assert findings.which_is_better(up, up, "pass@32") == "better at both"
    assert findings.which_is_better(down, down, "pass@32") == "worse at both"
    assert findings.which_is_better(down, up, "pass@32") == "worse at pass@1, better at pass@32"
    assert findings.which_is_better(unclear, up, "pass@8") == "better at pass@8"
    assert findings.which_is_better(down, unclear, "pass@8") == "worse at pass@1"
    assert findings.which_is_better(unclear, unclear, "pass@8") == "undecided"


def test_seeds_may_train_on_files_that_each_has_made(tmp_path, undrawn):
    """Each seed sorts the problems by its own base; a file of elsewhere must be the same."""
    for where, said in (("{}", ""), ("elsewhere", "differ in more than the seed")):
        for seed, folder in enumerate(("run", "run-seed1")):
            (tmp_path / folder).mkdir(exist_ok=True)
            data = f"out/{where.format(folder)}/3.6M.easy.jsonl"
            config = {"data": data, "content of data": f"hash{seed}", "seed": seed}
            facts = {"config": config, "id": f"{where}{seed}"}
            write_rows(tmp_path / folder, [problem_row("3.6M.rl", [1, 2]) | {"facts": facts}])
        folders = [tmp_path / "run", tmp_path / "run-seed1"]
        if said:
            with pytest.raises(UserError, match=said):
                report_of(folders, tmp_path)
        else:
            assert "3.6M" in report_of(folders, tmp_path)
