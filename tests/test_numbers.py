"""Numbers in documents come from committed rows: those that are marked are what the rows give, and
a wrong one is noticed.
"""

import re
from pathlib import Path

import pytest
from conftest import ROOT
from test_figures import full_study

from data import UserError
from study.rows import Study
from tools import numbers

PAGES = [Path(ROOT, "README.md"), *sorted(Path(ROOT, "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_numbers_are_those_of_the_rows(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = page.read_text(encoding="utf-8")
    if "<!--" not in text:
        return
    assert len(numbers.MARKED.findall(text)) == len(re.findall(r"\d\]?<!--", text)), (
        "a mark that is not understood"
    )
    _, wrong = numbers.corrected(text, numbers.committed_study(text))
    assert not wrong


def test_how_a_number_is_written(tmp_path):
    for seed in (0, 1):
        full_study(tmp_path / f"s{seed}", shift=seed)
    study = Study([str(tmp_path / f"s{seed}") for seed in (0, 1)])
    # Recipe 3 against recipe 0: 3 of 32 samples more of every problem.
    rule = "pass@1(3.6M.rl) - pass@1(3.6M)"
    assert (
        numbers.written(study, "1", rule) == "9.4" and numbers.written(study, "2+", rule) == "+9.38"
    )
    assert (
        numbers.written(study, "1+[]", rule) == "+9.4 [+9.4, +9.4]"
        and numbers.written(study, "n", rule) == "2"
    )
    text = f"It rises by 9.0<!--1 {rule}--> points, in 2<!--n pass@1(3.6M)--> seeds."
    right, wrong = numbers.corrected(text, study)
    assert right.startswith("It rises by 9.4<!--1 pass@1(3.6M.rl)") and right.endswith(
        "in 2<!--n pass@1(3.6M)--> seeds."
    )
    assert wrong == ["9.0 should be 9.4: pass@1(3.6M.rl) - pass@1(3.6M)"]
    with pytest.raises(UserError, match="% is for a border alone"):
        numbers.written(study, "1%", rule)
    with pytest.raises(UserError, match="there are no rows for pass@1"):
        numbers.corrected("1.0<!--1 pass@1(3.6M.nothing)-->", study)
