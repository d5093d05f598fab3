"""How real models say and box an answer, how they take one back, and the twins of all that."""

import grader_cases_boxed
import grader_cases_forms
import grader_cases_said
import pytest

from data.grader import grade

ALL = []
for table in (grader_cases_said.CASES, grader_cases_boxed.CASES):
    for title, cases in table.items():
        ALL += [(title, *case) for case in cases]


@pytest.mark.parametrize(("title", "response", "answer", "kind", "verdict"), ALL)
def test_said(title, response, answer, kind, verdict):
    assert grade(response, answer, kind) is verdict


@pytest.mark.parametrize("title", grader_cases_forms.BOXED)
def test_forms(title):
    wrong = []
    for content, answer, verdict in grader_cases_forms.BOXED[title]:
        if grade(f"Thus the answer is \\boxed{{{content}}}.", answer, "math") is not verdict:
            wrong.append((content, answer, verdict))
    assert not wrong


@pytest.mark.parametrize(("response", "answer", "kind", "verdict"), grader_cases_forms.WHOLE)
def test_whole_responses(response, answer, kind, verdict):
    assert grade(response, answer, kind) is verdict
