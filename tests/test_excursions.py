"""The study's table and its scheduler, with small commands in place of the real ones."""

import os
import subprocess
import sys
import time
from argparse import Namespace

import pytest
from conftest import ROOT

import excursions
from report import read_rows


def dry_run(*flags):
    done = subprocess.run([sys.executable, "excursions.py", "--dry_run", *flags], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_table_has_every_recipe_at_every_checkpoint(tmp_path):
    lines = dry_run("--out", str(tmp_path / "o"))
    assert len(lines) == 1 + 3 * 7 + 3 * 6 + 2  # pre-training; evaluations; recipes; the written reward at the first
    assert sum("pretrain.py" in line for line in lines) == 1 and sum("--setting written" in line for line in lines) == 1
    assert len(dry_run("--seeds", "2", "--out", str(tmp_path / "o"))) == 2 * len(lines)
    only = dry_run("--only", "figure9", "--out", str(tmp_path / "o"))
    assert len(only) == 1 + 3 * (1 + 2 * 4) and not any("gold" in line or "--solutions all" in line for line in only)


def args(tmp_path, workers=2):
    return Namespace(out=str(tmp_path), workers=workers)


def touch(tmp_path, name, needs=(), code=""):
    script = f"{code or 'pass'}; open({str(tmp_path / name)!r}, 'x').close(); print('made {name}')"
    return excursions.Task(name, [sys.executable, "-c", script], makes=str(tmp_path / name), needs=[str(tmp_path / n) for n in needs], folder=str(tmp_path))


def test_commands_wait_for_what_they_need_and_are_skipped_when_done(tmp_path, capsys):
    tasks = [touch(tmp_path, "c", needs=["a", "b"]), touch(tmp_path, "a"), touch(tmp_path, "b", needs=["a"])]
    lock = excursions.claim(str(tmp_path))
    assert excursions.run(tasks, args(tmp_path), lock) == []
    said = capsys.readouterr().out
    assert said.index("made a") < said.index("made b") < said.index("made c")
    assert excursions.run(tasks, args(tmp_path), lock) == [] and "made" not in capsys.readouterr().out


def test_a_failure_is_named_and_stops_only_what_needs_it(tmp_path, capsys):
    tasks = [touch(tmp_path, "a", code="1 / 0"), touch(tmp_path, "b", needs=["a"]), touch(tmp_path, "c")]
    failed = excursions.run(tasks, args(tmp_path), excursions.claim(str(tmp_path)))
    assert [t.name for t in failed] == ["a", "b"] and os.path.exists(tmp_path / "c")
    assert "a: 0 s, FAILED" in capsys.readouterr().out.replace("1 s, FAILED", "0 s, FAILED")


def test_sigterm_reaches_the_running_command_and_ends_the_study(tmp_path):
    """To the real study: pre-training saves and leaves, and goes on from there with the next study."""
    line = [sys.executable, "excursions.py", "--out", str(tmp_path / "o"), "--workers", "1"]
    study = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while study.poll() is None and len(read_rows(tmp_path / "o" / "pretrain.log.jsonl")) < 3:
        time.sleep(0.02)
    study.terminate()
    _, said = study.communicate(timeout=240)
    assert study.returncode == 143 and said == "excursions.py: stopped by SIGTERM; the same command goes on\n"
    assert "stopped by SIGTERM after step" in (tmp_path / "o" / "logs" / "o.pretrain.txt").read_text().splitlines()[-1]
    assert (tmp_path / "o" / "pretrain.resume" / "state.pt").exists()


def test_two_studies_are_not_mixed(tmp_path):
    task = touch(tmp_path, "a")
    excursions.same_commands([task], args(tmp_path))
    excursions.same_commands([task], args(tmp_path))
    task.command[-1] += " #"
    with pytest.raises(SystemExit, match="give another --out"):
        excursions.same_commands([task], args(tmp_path))


def test_wrong_flags_are_one_line():
    done = subprocess.run([sys.executable, "excursions.py", "--preset", "huge"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and done.stderr.startswith("excursions.py: ") and done.stderr.count("\n") == 1
