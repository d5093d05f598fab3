"""The study's table and its scheduler, with small commands in place of the real ones."""

import os
import shutil
import subprocess
import sys
import time

import pytest
from conftest import ROOT

import evaluate
import excursions
import pretrain
from plumbing.files import append_row, read_rows
from plumbing.presets import CHECKPOINTS, TASKS
from study.recipes import RECIPES, RECIPES_OF_FIGURE
from study.runner import Job, claim, run, same_commands


def excursions_py(*flags):
    command = [sys.executable, "excursions.py", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def dry_run(*flags):
    done = excursions_py("--dry_run", *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_table_has_every_recipe_at_every_checkpoint(tmp_path):
    lines = dry_run("--out", str(tmp_path / "o"))
    # pre-training; evaluations; recipes; the written reward at the first
    assert len(lines) == 1 + 3 * 7 + 3 * 6 + 2
    assert sum("pretrain.py" in line for line in lines) == 1
    assert sum("--setting written" in line for line in lines) == 1
    assert len(dry_run("--seeds", "2", "--out", str(tmp_path / "o"))) == 2 * len(lines)
    only = dry_run("--only", "figure9", "--out", str(tmp_path / "o"))
    assert len(only) == 1 + 3 * (1 + 2 * 4)
    assert not any("gold" in line or "--solutions all" in line for line in only)


def run_in(tmp_path, tasks):
    """Two commands at a time -> the tasks that failed."""
    with claim(str(tmp_path)) as lock:
        return run(tasks, str(tmp_path), 2, lock)


def touch(tmp_path, name, needs=(), code=""):
    script = f"{code or 'pass'}; open({str(tmp_path / name)!r}, 'x').close(); print('made {name}')"
    needs = [str(tmp_path / need) for need in needs]
    command = [sys.executable, "-c", script]
    return Job(name, command, str(tmp_path), makes=str(tmp_path / name), needs=needs)


def test_commands_wait_for_what_they_need_and_are_skipped_when_done(tmp_path, capsys):
    tasks = [
        touch(tmp_path, "c", needs=["a", "b"]),
        touch(tmp_path, "a"),
        touch(tmp_path, "b", needs=["a"]),
    ]
    assert run_in(tmp_path, tasks) == []
    said = capsys.readouterr().out
    assert said.index("made a") < said.index("made b") < said.index("made c")
    assert run_in(tmp_path, tasks) == [] and "made" not in capsys.readouterr().out


def test_a_failure_is_named_and_stops_only_what_needs_it(tmp_path, capsys):
    tasks = [
        touch(tmp_path, "a", code="1 / 0"),
        touch(tmp_path, "b", needs=["a"]),
        touch(tmp_path, "c"),
    ]
    failed = run_in(tmp_path, tasks)
    assert [t.name for t in failed] == ["a", "b"] and os.path.exists(tmp_path / "c")
    assert "a: 0 s, FAILED" in capsys.readouterr().out.replace("1 s, FAILED", "0 s, FAILED")


def test_sigterm_reaches_the_running_command_and_ends_the_study(tmp_path):
    """To the real study: pre-training saves and leaves, and goes on from there with the next study."""
    line = [sys.executable, "excursions.py", "--out", str(tmp_path / "o"), "--workers", "1"]
    study = subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while study.poll() is None and len(read_rows(tmp_path / "o" / "pretrain.log.jsonl")) < 3:
        time.sleep(0.02)
    study.terminate()
    _, said = study.communicate(timeout=240)
    log = (tmp_path / "o" / "logs" / "o.pretrain.txt").read_text()
    assert study.returncode == 143, log
    assert said == "excursions.py: stopped by SIGTERM; the same command goes on\n"
    assert "stopped by SIGTERM after step" in log.splitlines()[-1]
    assert (tmp_path / "o" / "pretrain.resume" / "state.pt").exists()


def test_two_studies_are_not_mixed(tmp_path):
    task = touch(tmp_path, "a")
    same_commands([task], str(tmp_path))
    same_commands([task], str(tmp_path))
    task.command[-1] += " #"
    with pytest.raises(SystemExit, match="give another --out"):
        same_commands([task], str(tmp_path))


def test_wrong_flags_are_one_line():
    done = excursions_py("--preset", "huge")
    assert done.returncode and done.stderr.startswith("excursions.py: ")
    assert done.stderr.count("\n") == 1


def test_an_evaluation_is_done_when_all_its_rows_are_there(tmp_path):
    job = Job("3.6M.rl evaluation", [], str(tmp_path), checkpoint="3.6M.rl")
    job.evaluates = {"toy", "general"}
    for name, task, done in (
        ("3.6M.rl", "toy", False),
        ("3.6M", "general", False),
        ("3.6M.rl", "general", True),
    ):
        append_row(str(tmp_path / "results.jsonl"), {"name": name, "task": task})
        assert job.done() == done


def test_a_finished_study_is_only_reported(tmp_path):
    """The committed rows of seed 0, and files in the places of its checkpoints."""
    out = tmp_path / "o"
    shutil.copytree(os.path.join(ROOT, "results", "toy", "seed0"), out)
    for line in dry_run("--out", str(out)):
        assert line.endswith("# done") == ("evaluate.py" in line)
    for stem in CHECKPOINTS["toy"].split(","):
        for recipe in RECIPES:
            name = stem if recipe == "base" else f"{stem}.{recipe}"
            (out / f"{name}.pt").touch()
    done = excursions_py("--out", str(out))
    assert done.returncode == 0, done.stderr
    assert f"all done before; nothing to do. Report: {out}/report.md" in done.stdout
    assert "Results on toy" in (out / "report.md").read_text()


def test_plain_reaches_every_command(tmp_path):
    quick = dry_run("--out", str(tmp_path / "o"))
    plain = dry_run("--out", str(tmp_path / "o"), "--plain")
    assert plain == [line + " --plain" for line in quick]


def test_without_a_report_there_is_no_torch():
    code = (
        "import sys, excursions; excursions.main(['--dry_run'])\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_table_is_what_the_stages_do():
    """The recipes of a figure are commands of the table, and every evaluation asks its preset's."""
    for preset, tasks in TASKS.items():
        assert evaluate.PRESETS[preset]["task"] == tasks
        keep = pretrain.PRESETS[preset].get("keep", pretrain.Config.keep)
        assert keep == CHECKPOINTS[preset]
    assert ["base", *sorted(excursions.COMMANDS)] == sorted(RECIPES)
    for recipes in RECIPES_OF_FIGURE.values():
        assert set(recipes) <= {"base", *excursions.COMMANDS}
