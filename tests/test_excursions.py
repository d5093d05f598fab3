"""The study's table and its scheduler, with small commands in place of the real ones."""

import json
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
from plumbing.checkpoint import read_facts, save_checkpoint
from plumbing.files import append_row, read_rows
from plumbing.presets import CHECKPOINTS, TASKS
from study import figures
from study.experiments import CORE
from study.own_experiments import read_own
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


def checkpoint_of(row, path, model):
    """A checkpoint with the facts of a row; the key of the row names its weights from now on."""
    save_checkpoint(str(path), model, row["facts"])
    row["key"]["weights"] = read_facts(str(path))["weights"]


def committed_study(out, model):
    """The committed rows of seed 0, each with a checkpoint of its name (of a tiny model)."""
    shutil.copytree(os.path.join(ROOT, "results", "toy", "seed0"), out)
    rows = read_rows(str(out / "results.jsonl"))
    for row in rows:
        checkpoint_of(row, out / f"{row['name']}.pt", model)
    write_rows(out, rows)
    return rows


def write_rows(out, rows):
    (out / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def evaluations(*flags):
    """Name -> whether it is done, of the evaluations of a study."""
    args, _ = excursions.read_flags(list(flags))
    experiment = excursions.read_experiment(args)
    study = excursions.read_study(args, experiment)
    jobs = excursions.all_jobs(study, experiment, excursions.stems_for(study, experiment))
    return {job.checkpoint: job.done() for job in jobs if job.kind == "evaluation"}


def test_an_evaluation_is_done_when_its_own_rows_are_there(tmp_path, tiny_model):
    """A row of other weights, or one that was asked in another way, does not count."""
    out = tmp_path / "o"
    rows = committed_study(out, tiny_model)
    assert all(evaluations("--out", str(out)).values())
    assert not any(evaluations("--out", str(out), "--setting", "written").values())

    def done_after(change):
        changed = json.loads(json.dumps(rows))
        for row in changed:
            if row["name"] == "3.6M.rl" and row["task"] == "toy":
                change(row["key"])
        write_rows(out, changed)
        done = evaluations("--out", str(out))
        assert all(value for name, value in done.items() if name != "3.6M.rl")
        return done["3.6M.rl"]

    assert done_after(lambda key: None)
    for change in (
        {"problems": 5},
        {"n": 8},
        {"k": "1"},
        {"shots": 2},
        {"seed": 1},
        {"weights": "other"},
        {"id": "other"},
        {"task": "toy-hard"},
    ):
        assert not done_after(lambda key: key.update(change)), change

    write_rows(out, [row for row in rows if row["task"] != "general"])
    assert not any(evaluations("--out", str(out)).values())


def test_a_finished_study_is_only_reported(tmp_path, tiny_model):
    """The committed rows of seed 0, and checkpoints with their facts."""
    out = tmp_path / "o"
    committed_study(out, tiny_model)
    for line in dry_run("--out", str(out)):
        assert line.endswith("# done")
    done = excursions_py("--out", str(out))
    assert done.returncode == 0, done.stderr
    assert f"all done before; nothing to do. Report: {out}/report.md" in done.stdout
    assert "Results on toy" in (out / "report.md").read_text()


def test_a_quick_evaluation_does_not_replace_the_studys(tmp_path, tiny_model):
    """In the report the row counts that the study's command asks for, wherever it stands."""
    out = tmp_path / "o"
    rows = committed_study(out, tiny_model)
    excursions_py("--out", str(out))
    before = (out / "report.md").read_text()
    quick = json.loads(
        json.dumps(next(r for r in rows if (r["name"], r["task"]) == ("3.6M.rl", "toy")))
    )
    quick["key"] |= {"problems": 5, "n": 8}
    quick["problems"] = [[*row[:2], 8, 0, 0] for row in quick["problems"][:5]]
    append_row(str(out / "results.jsonl"), quick)
    for commands in (True, False):  # without commands.json the key that most rows have counts
        figures.write_report([str(out)], str(out))
        after = (out / "report.md").read_text()
        left_out = "Left out, evaluated in another way than the study asks for: 3.6M.rl on toy.\n\n"
        assert left_out in after and after.replace(left_out, "") == before
        if commands:
            (out / "commands.json").unlink()


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--seeds", "0"], "--seeds 0: give 1 to 1000"),
        (["--seeds", "99999999999"], "--seeds 99999999999: give 1 to 1000"),
        (["--workers", "-1"], "--workers -1: give 0 to 1000"),
        (["--nproc", "0"], "--nproc 0: give 1 to 1000"),
        (["--sedes", "3"], "unrecognized argument --sedes, did you mean --seeds?"),
        (["--only", "figure22"], "invalid choice: 'figure22'"),
    ],
)
def test_odd_flags_end_at_once(flags, words):
    done = excursions_py(*flags)
    assert done.returncode and words in done.stderr and done.stderr.count("\n") == 1
    assert not done.stdout


def test_a_folder_that_is_none_and_a_damaged_table_are_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = excursions_py("--out", str(tmp_path / "file"))
    assert done.returncode and str(tmp_path / "file") in done.stderr
    assert done.stderr.startswith("excursions.py: ") and done.stderr.count("\n") == 1
    for text in ("{", "[]", '{"a": 1}', "[" * 100_000, "\x00"):
        (tmp_path / "commands.json").write_text(text)
        done = excursions_py("--out", str(tmp_path))
        assert done.stderr.startswith(f"excursions.py: {tmp_path}/commands.json ")
        assert done.stderr.endswith("; delete it, and the same command goes on\n")
        assert done.stderr.count("\n") == 1


def test_a_study_that_was_killed_after_its_last_checkpoint_goes_on(tmp_path):
    """Pre-training may go on after the last checkpoint that it keeps."""
    job = Job("pretrain", [], str(tmp_path), "pretrain", makes=str(tmp_path / "a.pt"))
    assert not job.done()
    (tmp_path / "a.pt").touch()
    assert job.done()
    (tmp_path / "pretrain.json").write_text('{"config": {}, "ended": false}')
    assert not job.done()
    (tmp_path / "pretrain.json").write_text('{"config": {}, "ended": true}')
    assert job.done()


def test_plain_reaches_every_command(tmp_path):
    quick = dry_run("--out", str(tmp_path / "o"))
    plain = dry_run("--out", str(tmp_path / "o"), "--plain")
    assert plain == [line + " --plain" for line in quick]


def test_without_a_report_there_is_no_torch(tmp_path):
    """A new folder's table is printed at once; only checkpoints that are there need torch."""
    code = (
        f"import sys, excursions; excursions.main(['--dry_run', '--out', {str(tmp_path)!r}])\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_table_is_what_the_stages_do():
    """The recipes of a figure are commands of the table, and every evaluation asks its preset's."""
    for preset, tasks in TASKS.items():
        assert evaluate.PRESETS[preset]["task"] == tasks
        keep = pretrain.PRESETS[preset].get("keep", pretrain.Config.keep)
        assert keep == CHECKPOINTS[preset]
    assert ["base", *sorted(CORE)] == sorted(RECIPES)
    for recipes in RECIPES_OF_FIGURE.values():
        assert set(recipes) <= {"base", *CORE}


def test_a_quick_ablation_has_its_section_at_the_quick_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(excursions, "run", lambda jobs, *rest: [])
    monkeypatch.setattr(excursions, "make_report", lambda study: "")
    words = ["--quick", "--vary", "grpo.normalize=std,mean", "--on", "3.6M.rl"]
    excursions.main([*words, "--out", str(tmp_path / "o")])
    (own,) = read_own(str(tmp_path / "o")).values()
    assert own.stems == "30K,60K" and "rl-normalize-mean" in own.recipes


def test_files_of_the_callers_folder_are_found_from_the_scripts_folder(tmp_path):
    """In every flag that takes one, alone, in a list, with a function; and no folder or script."""
    row = {"question": "What is 1 + 1?", "answer": "2"}
    for name in ("mine.jsonl", "grpo.py"):
        (tmp_path / name).write_text(json.dumps(row))
    (tmp_path / "half.py").write_text("def score(problem, response):\n    return 0.5\n")
    (tmp_path / "toy").mkdir()
    command = [sys.executable, os.path.join(ROOT, "excursions.py"), "--dry_run"]
    command += ["--task", "toy,mine.jsonl", "--data", "mine.jsonl"]
    command += ["--recipe", "half: grpo.py --reward half.py:score", "--out", "o"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rl = [line for line in done.stdout.splitlines() if "--reward" in line][0]
    assert rl.startswith("python grpo.py ")
    assert f"--reward {tmp_path}/half.py:score" in rl and f"--data {tmp_path}/mine.jsonl" in rl
    assert f"--task toy,{tmp_path}/mine.jsonl" in done.stdout
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("flags", [("--task", "toy,none.jsonl"), ("--data", "none.jsonl")])
def test_a_file_of_problems_that_is_missing_is_said_before_work(flags, tmp_path):
    done = excursions_py(*flags, "--out", str(tmp_path / "o"))
    assert done.returncode and done.stderr.count("\n") == 1
    assert f"{flags[0]}: none.jsonl is missing" in done.stderr and not (tmp_path / "o").exists()
