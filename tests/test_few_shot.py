"""Worked examples before a problem: as many as fit, from which file, and all tasks read before the first one runs."""

import json
from dataclasses import replace

import pytest
from conftest import tiny
from test_evaluate import CONFIG

from data import UserError
from data.problems import load_problems, prompt_text
from data.tokenizer import get_tokenizer
from plumbing import few_shot
from plumbing.few_shot import ask, build_prompts, open_tasks

TOY = get_tokenizer("toy")


def n_tokens(text):
    return len(TOY.encode_ordinary(text))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def uneven(tmp_path):
    """Problems whose solutions are a few tokens long, and one of 300."""
    rows = []
    for i in range(9):
        n = 300 if i == 4 else 5
        rows.append(
            {"question": f"say {i}", "answer": i, "solutions": ["so " * n + f"\\boxed{{{i}}}"]}
        )
    return write(tmp_path / "uneven.jsonl", rows)


def test_a_prompt_that_does_not_fit_takes_fewer_examples(uneven, capsys):
    problems = load_problems(uneven)
    config = replace(CONFIG, shots=8)
    full = build_prompts(problems, config, uneven)
    room = n_tokens(full[4]) + 10  # what fits without the long example
    prompts = build_prompts(problems, config, uneven, TOY, room)
    assert prompts[4] == full[4]  # its own solution is no example
    n_shots = [prompt.count("\\boxed{}") - 1 for prompt in prompts]
    assert n_shots[4] == 8 and max(n_shots[:4] + n_shots[5:]) < 8
    for problem, prompt, whole in zip(problems, prompts, full):
        assert n_tokens(prompt) <= room and prompt.endswith(prompt_text(problem))
        assert whole.startswith(
            prompt.removesuffix(prompt_text(problem))
        )  # the last ones are left out
    assert "8 of 9 prompts have fewer than 8 examples, so that they fit" in capsys.readouterr().out
    assert build_prompts(problems, config, uneven, TOY, n_tokens(max(full, key=n_tokens))) == full
    assert "fewer" not in capsys.readouterr().out


def test_the_authors_style_takes_fewer_as_well(uneven):
    problems = load_problems(uneven)[:3]
    config = replace(CONFIG, shots=4, style="authors", examples=uneven)
    full = build_prompts(problems, config, uneven)
    room = min(map(n_tokens, full)) - 1
    prompts = build_prompts(problems, config, uneven, TOY, room)
    assert all(n_tokens(prompt) <= room for prompt in prompts)
    assert [p.count("Question:") for p in full] == [5] * 3
    assert all(p.count("Question:") < 5 for p in prompts)


def test_a_problem_that_does_not_fit_alone_is_refused(tmp_path):
    rows = [{"question": "say 3", "answer": 3}, {"question": "so " * 200, "answer": 3}]
    path = write(tmp_path / "long.jsonl", rows)
    config = replace(CONFIG, shots=0, max_response=30)
    with pytest.raises(
        UserError, match="the longest prompt . --max_response is .* the model's limit is 128"
    ):
        ask(config, path, tiny(TOY.n_vocab, max_seq_len=128), TOY)
    asked = ask(replace(config, problems=1), path, tiny(TOY.n_vocab, max_seq_len=128), TOY)
    assert asked.texts == [prompt_text(asked.problems[0])] and asked.prompts == [
        TOY.encode_ordinary(asked.texts[0])
    ]


def test_examples_from_the_file_of_the_problems_are_said(uneven, tmp_path, capsys):
    problems = load_problems(uneven)
    build_prompts(problems, replace(CONFIG, shots=2), uneven)
    said = capsys.readouterr().out
    assert f"--shots 2: examples of {uneven} train: 9 problems, 9 solutions" in said
    assert (
        f"the examples are other problems of {uneven} itself; give others with --examples" in said
    )
    build_prompts(problems, replace(CONFIG, shots=2, examples="toy"), uneven)
    assert "itself" not in capsys.readouterr().out
    build_prompts(problems, replace(CONFIG, shots=2), "toy")
    assert "itself" not in capsys.readouterr().out
    build_prompts(problems, CONFIG, uneven)
    assert not capsys.readouterr().out


FACTS = dict(corpus="somebody/olmo2")


def wrong_files(tmp_path):
    """Task -> what is wrong with it."""
    benchmarks = tmp_path / "benchmarks"
    benchmarks.mkdir()
    (benchmarks / "piqa.jsonl").write_text('{"goal": "g", "sol1": "a", "sol2": ["b"], "label": 0}')
    bad = write(tmp_path / "bad.jsonl", [{"question": "a", "answer": 1}, {"question": 5}])
    return str(benchmarks), {
        "piqa": "piqa.jsonl, line 1 is not a labelled row of piqa: field sol2 is a list, must be text",
        "lambada": "lambada.jsonl is missing",
        "general": "lambada.jsonl is missing",
        bad: "line 2: question or answer is empty or not text: field question is a number",
    }


def test_every_task_is_read_before_the_first_runs(tmp_path):
    folder, wrong = wrong_files(tmp_path)
    model = tiny(TOY.n_vocab)
    for task, said in wrong.items():
        config = replace(CONFIG, benchmarks=folder, task=f"toy,{task}")
        with pytest.raises((UserError, OSError)) as error:
            open_tasks(config, ["toy", task], model, TOY, FACTS)
        assert said in str(error.value)


def test_what_is_opened_is_what_would_be_read_later(tmp_path):
    model = tiny(TOY.n_vocab)
    config = replace(CONFIG, problems=3, shots=2)
    opened = open_tasks(config, ["toy", "general"], model, TOY, dict(corpus="toy"))
    problems = load_problems("toy", "test")[:3]
    assert opened["toy"].problems == problems
    assert opened["toy"].texts == build_prompts(problems, config, "toy")
    items, texts = opened["general"]
    assert len({item.skill for item in items}) == 6 and texts
    assert few_shot.load_items("general", dict(corpus="toy"), config) == (items, texts)
