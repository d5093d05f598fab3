"""--wandb in the real package's offline mode, without the package, and after a resume; the time
that is left.
"""

import importlib.util
import os
import subprocess
import sys

import pytest
import test_recipes
from conftest import ROOT

import sft
from data import UserError
from plumbing import track
from plumbing.files import read_rows
from plumbing.log import Log, time_text

base = test_recipes.base  # a small checkpoint and problems


class Recorder:
    """Stands for a run of wandb: what it is sent."""

    def __init__(self):
        self.lines = []

    def log(self, values, step):
        self.lines.append((step, values))


def test_numbers_go_along_and_samples_stay(tmp_path, monkeypatch):
    run = Recorder()
    monkeypatch.setattr(track, "open_run", lambda name, step: run)
    log = Log(str(tmp_path / "a.pt"), 0)
    log.write(1, loss=0.5, skipped=0, samples=[{"response": "x"}])
    Log(str(tmp_path / "a.pt"), 0, "rollouts").write(1, groups=[])  # no log of numbers
    assert run.lines == [(1, {"loss": 0.5, "skipped": 0})]
    assert read_rows(log.path)[0]["samples"] == [{"response": "x"}]


def test_without_the_package_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--wandb mine needs a package: pip install wandb"):
        track.prepare("mine", {})
    track.prepare("", {})  # nobody asked for it


needs_wandb = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="wandb is not installed: pip install wandb"
)


@needs_wandb
@pytest.mark.parametrize(
    "environment, project, line",
    [
        ({}, "mine", "mine: no account is known here; run `wandb login` first, or set WANDB_MODE"),
        ({"WANDB_MODE": "bogus"}, "mine", "mine: 1 validation error for Settings mode"),
        ({"WANDB_API_KEY": "short"}, "mine", "mine: WANDB_API_KEY invalid"),
        ({"WANDB_MODE": "offline"}, "a/b", "a/b: Invalid project name"),
    ],
)
def test_what_wandb_refuses_is_one_line(environment, project, line, base, tmp_path):
    folder, data = base
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    kept |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none"), "OMP_NUM_THREADS": "1"}
    paths = ["--ckpt", folder / "4K.pt", "--data", data, "--out", tmp_path / "a.pt"]
    words = [os.path.join(ROOT, "sft.py"), *paths, "--steps", 1, "--batch", 8, "--wandb", project]
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, env=kept | environment,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-3000:]
    assert done.stderr.splitlines()[-1].startswith(f"sft.py: --wandb {line}"), done.stderr
    assert not list(tmp_path.glob("a.*"))
    assert "examples" not in done.stdout  # said before work


@needs_wandb
def test_offline(base, tmp_path):
    """The real package, offline: a run of 4 steps, and one that goes on after 2 in the same run."""
    folder, data = base
    out = tmp_path / "a.pt"
    words = [
        os.path.join(ROOT, "sft.py"),
        "--ckpt",
        folder / "4K.pt",
        "--data",
        data,
        "--out",
        out,
        "--batch",
        8,
        "--wandb",
        "mine",
    ]
    done = subprocess.run(
        [sys.executable, *map(str, words), "--steps", "4", "--log_every", "1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env=os.environ | {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", "WANDB_SILENT": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    id = (tmp_path / "a.wandb").read_text().strip()
    assert run.name.endswith(id) and (run / f"run-{id}.wandb").stat().st_size > 500
    assert len(read_rows(str(tmp_path / "a.log.jsonl"))) == 4
    assert "wandb" not in read_facts_config(out)


def read_facts_config(path) -> dict:
    from plumbing.checkpoint import read_facts

    return read_facts(str(path))["config"]


def test_the_id_stays_after_a_resume(tmp_path, monkeypatch):
    fake = type(sys)("wandb")
    asked = []
    fake.init = lambda **how: asked.append(how)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(track, "PROJECT", "mine")
    name = str(tmp_path / "a")
    for step in (0, 2, 0):
        track.open_run(name, step)
    first, resumed, again = [how["id"] for how in asked]
    assert first == resumed != again and asked[0]["project"] == "mine" and asked[0]["name"] == "a"


def test_lines_say_how_much_time_is_left(tmp_path, base, capsys):
    log = Log(str(tmp_path / "a.pt"), 10)
    log.since -= 40  # 4 steps in 40 s
    assert log.left(14, 74) == " | 10 min left" and log.left(74, 74) == ""
    assert [time_text(s) for s in (45, 99.4, 130, 6000, 9000)] == [
        "45 s",
        "99 s",
        "2 min",
        "1.7 h",
        "2.5 h",
    ]
    folder, data = base
    config = test_recipes.flags(
        sft, folder / "4K.pt", tmp_path / "b.pt", data, "controlled", steps=4, batch=8, log_every=1
    )
    capsys.readouterr()
    sft.main(config)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert all(line.endswith(" s left") for line in lines[:3]) and not lines[3].endswith("left")
