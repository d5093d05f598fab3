"""The six public benchmarks, item by item against lm-evaluation-harness; the toy world's skills; wrong files.

pip install -r tests/requirements.txt      # transformers and lm_eval; without them the comparison is skipped
"""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import quick, run, tiny

import convert
import evaluate
from data import UserError
from data.benchmarks import (
    BENCHMARKS,
    Item,
    item_of_row,
    load_benchmark,
    load_general,
    without_wikihow_marks,
)
from data.tokenizer import get_tokenizer
from plumbing import likelihood
from plumbing.checkpoint import load_checkpoint, save_checkpoint
from plumbing.files import read_rows

SHARED = Path(__file__).parents[2] / "shared/data"
DOLMA2 = SHARED / "tokenizer/allenai_dolma2.json"
N = 200  # items of each benchmark
# Contexts are shared in fast/ alone, so what is scored is tested on the plain program and on fast/.
BOTH = pytest.mark.parametrize("prepare", [lambda m: m, quick], ids=["plain", "fast"])
LONGEST = 96  # tokens the model reads: some contexts lose their beginning


def rows_of_hub(name: str) -> list[dict]:
    """Real items in the schema of the hub's data sets."""
    lines = lambda path: [
        json.loads(line)
        for line in (
            gzip.open(path, "rt") if path.suffix == ".gz" else open(path, encoding="utf-8")
        )
    ]
    if name == "lambada":
        return [
            {"text": f"{row['context']} {row['continuation']}"}
            for row in lines(SHARED / "general/lambada_openai.jsonl")
        ]
    if name == "piqa":
        labels = (SHARED / "general/piqa_valid-labels.lst").read_text().split()
        return [
            {**row, "label": int(label)}
            for row, label in zip(lines(SHARED / "general/piqa_valid.jsonl"), labels, strict=True)
        ]
    file = {"hellaswag": "hellaswag_rc_5shot", "arc_easy": "arc_easy_test_rc_5shot"}[name]
    docs = list(
        {
            row["doc_id"]: row["doc"]
            for row in lines(SHARED / f"olmes/{file}.requests.jsonl.gz")
            if row["doc_id"] < 1_000_000
        }.values()
    )
    if name == "arc_easy":
        question = lambda doc: doc["query"].removeprefix("Question: ").removesuffix("\nAnswer:")
        labels = lambda doc, i: list("ABCDE" if i % 3 else "12345")[
            : len(doc["choices"])
        ]  # letters or digits, as in the set
        return [
            {
                "id": doc["id"],
                "question": question(doc),
                "choices": {"text": doc["choices"], "label": labels(doc, i)},
                "answerKey": labels(doc, i)[doc["gold"]],
            }
            for i, doc in enumerate(docs)
        ]
    rows = []
    for i, doc in enumerate(docs):
        activity, context = doc["query"].split(": ", 1)
        context = (
            f"[header] {context} [title]  Then [step]  it goes  on." if i % 4 == 0 else context
        )  # WikiHow's traces, cleaned off before
        endings = [f"[substeps] {e} [title] And so on" if i % 4 == 0 else e for e in doc["choices"]]
        ctx_b = "" if i % 2 else "the Man in the SHIRT"
        rows.append(
            {
                "ind": i,
                "activity_label": activity,
                "ctx_a": context,
                "ctx_b": ctx_b,
                "ctx": "",
                "endings": endings,
                "label": str(doc["gold"]),
            }
        )
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The first N items of four benchmarks as <name>.jsonl, where the real files are."""
    if not SHARED.exists():
        pytest.skip(f"{SHARED} is not here")
    folder = tmp_path_factory.mktemp("benchmarks")
    fits = lambda row: (
        len(max([row.get("sol1", ""), row.get("sol2", ""), *row.get("endings", [])], key=len))
        < 3 * LONGEST
    )  # the harness refuses others
    for name in ("lambada", "piqa", "hellaswag", "arc_easy"):
        with open(folder / f"{name}.jsonl", "w", encoding="utf-8") as f:
            f.writelines(
                json.dumps(row) + "\n" for row in list(filter(fits, rows_of_hub(name)))[:N]
            )
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A random model in transformers' format and the same one brought in: sharp enough that choices differ."""
    transformers = pytest.importorskip(
        "transformers",
        reason="transformers is not installed: pip install -r tests/requirements.txt",
    )
    if not DOLMA2.exists():
        pytest.skip(f"{DOLMA2} is not here")
    path = tmp_path_factory.mktemp("model")
    rows = 100_352  # with padding rows, as OLMo 2
    config = dict(
        vocab_size=rows,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    hf = transformers.Olmo2ForCausalLM(
        transformers.Olmo2Config(
            **config,
            max_position_embeddings=LONGEST,
            rms_norm_eps=1e-6,
            eos_token_id=100_257,
            pad_token_id=100_277,
        )
    ).eval()
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in hf.parameters():
            p.normal_(std=0.1, generator=g) if p.ndim == 2 else p.uniform_(0.5, 1.5, generator=g)
    hf.save_pretrained(path / "hf")
    (path / "hf" / "tokenizer.json").write_bytes(DOLMA2.read_bytes())
    convert.main(["from-hf", str(path / "hf"), "--out", str(path / "ours.pt")])
    convert.main(["to-hf", str(path / "ours.pt"), str(path / "out")])
    return hf, transformers.AutoTokenizer.from_pretrained(path / "out"), str(path / "ours.pt")


@pytest.fixture(scope="module")
def theirs(both, folder):
    """The harness's own samples of four tasks, read from the local files through its own task files."""
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # no longer: other tests' commands ask a hub of their own
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("TQDM_DISABLE", "1")
        found, names = run_harness(both, folder)
    return {
        name: (found["results"][task], sorted(found["samples"][task], key=lambda s: s["doc_id"]))
        for task, name in names.items()
    }


def run_harness(both, folder):
    missing = "lm_eval or its accelerate is not installed: pip install -r tests/requirements.txt"
    lm_eval = pytest.importorskip("lm_eval", reason=missing)
    HFLM = pytest.importorskip("lm_eval.models.huggingface", reason=missing).HFLM

    names = {
        "lambada_openai": "lambada",
        "piqa": "piqa",
        "hellaswag": "hellaswag",
        "arc_easy": "arc_easy",
    }
    where = Path(lm_eval.__file__).parent / "tasks"
    tasks = []
    for task, name in names.items():  # its own task file, with our file for the data
        file = {part: str(folder / f"{name}.jsonl") for part in ("train", "validation", "test")}
        own = next(where.rglob(f"{task}.yaml"))
        tasks.append(str(folder / f"{task}.yaml"))
        Path(tasks[-1]).write_text(
            json.dumps(
                {
                    "include": str(own),
                    "dataset_path": "json",
                    "dataset_name": None,
                    "dataset_kwargs": {"data_files": file},
                }
            )
        )
    model = HFLM(
        pretrained=both[0], tokenizer=both[1], batch_size=8, device="cpu", max_length=LONGEST
    )
    found = lm_eval.simple_evaluate(model, tasks=tasks, log_samples=True, bootstrap_iters=0)
    return found, names


@BOTH
@pytest.mark.parametrize("name", ["lambada", "piqa", "hellaswag", "arc_easy"])
def test_every_log_likelihood_and_verdict_is_the_harness(name, both, folder, theirs, prepare):
    model, facts = load_checkpoint(both[2])
    prepare(model.requires_grad_(False))
    encoding = get_tokenizer(facts["tokenizer"])
    items, (results, samples) = load_benchmark(name, str(folder)), theirs[name]
    requests = [
        likelihood.encode_pair(encoding, item.context, choice, LONGEST)
        for item in items
        for choice in item.choices
    ]
    scores = iter(likelihood.score_continuations(model, requests, 4096, padding=True))
    long = 0
    assert len(items) == len(samples) == N
    for item, sample in zip(items, samples):
        mine = [next(scores) for _ in item.choices]
        long += len(encoding.encode_ordinary(item.context + item.choices[0])) > LONGEST
        asked = (
            [list(pair.values()) for pair in sample["arguments"].values()]
            if isinstance(sample["arguments"], dict)
            else sample["arguments"]
        )
        assert [tuple(pair) for pair in asked] == [
            (item.context, choice) for choice in item.choices
        ]
        logps = [float(response[0]) for response in flat(sample["filtered_resps"])]
        # 1e-4, and two units in fp32's last place: the harness sums in fp32, and 70 tokens of a random model are -800
        assert np.allclose(logps, [logp for logp, _ in mine], rtol=2.5e-7, atol=1e-4), (logps, mine)
        verdict = likelihood.score_item(item, mine)
        assert verdict["acc"] == bool(sample["acc"]) and (
            name == "lambada" or verdict["acc_norm"] == bool(sample["acc_norm"])
        )
    config = evaluate.Config(ckpt="", preset="toy", benchmarks=str(folder), progress=False)
    row = likelihood.evaluate_general(model, encoding, name, facts, config)["items"][name]
    assert row["acc"] == pytest.approx(results["acc,none"], abs=1e-9) and row["n"] == N
    if name == "lambada":
        assert row["perplexity"] == pytest.approx(results["perplexity,none"], rel=1e-4)
    else:
        assert row["acc_norm"] == pytest.approx(results["acc_norm,none"], abs=1e-9)
    assert long > 0 or name in ("piqa", "arc_easy")


def flat(responses):
    return responses if isinstance(responses[0], (list, tuple)) else [responses]


# --- rows and files -----------------------------------------------------------------------------------------------


def test_items_of_each_schema(tmp_path):
    rows = {
        "lambada": {"text": "She said, I don't care about\n\n\"signs"},
        "hellaswag": {
            "activity_label": "Home",
            "ctx_a": "[header] How to cook [title] Boil  water.",
            "ctx_b": "then ADD",
            "endings": [" a [step] b", "c  d", "[x] e", "f"],
            "label": "2",
        },
        "arc_easy": {
            "id": "1",
            "question": "Why?",
            "choices": {"text": ["a", "b", "c"], "label": ["1", "2", "3"]},
            "answerKey": "2",
        },
        "arc_challenge": {
            "id": "2",
            "question": "Who?",
            "choices": {"text": ["a", "b", "c", "d", "e"], "label": list("ABCDE")},
            "answerKey": "E",
        },
        "piqa": {"goal": "Open", "sol1": "push ", "sol2": "pull", "label": 0},
        "openbookqa": {
            "id": "3",
            "question_stem": "The sun is",
            "choices": {"text": ["cold", "hot"], "label": ["A", "B"]},
            "answerKey": " B",
        },
    }
    expected = {
        "lambada": (
            "She said, I don't care",
            (' about\n\n"signs',),
            0,
        ),  # split at the last blank only
        "hellaswag": (
            "Home: How to cook. Boil water. Then add",
            (" a b", " c d", "  e", " f"),
            2,
        ),  # a bracket at the start leaves a blank
        "arc_easy": ("Question: Why?\nAnswer:", (" a", " b", " c"), 1),
        "arc_challenge": ("Question: Who?\nAnswer:", (" a", " b", " c", " d", " e"), 4),
        "piqa": ("Question: Open\nAnswer:", (" push ", " pull"), 0),
        "openbookqa": ("The sun is", (" cold", " hot"), 1),
    }
    for name, row in rows.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
        (item,) = load_benchmark(name, str(tmp_path))
        assert (item.context, item.choices, item.gold) == expected[name], name
    items, texts = load_general("somebody/olmo2", str(tmp_path))
    assert [item.skill for item in items] == list(BENCHMARKS) and texts == []
    (tmp_path / "lambada.jsonl").write_text(
        json.dumps({"context": "I don't care about", "continuation": "signs"}) + "\n"
    )
    assert load_benchmark("lambada", str(tmp_path))[0].choices == (" signs",)
    assert (
        without_wikihow_marks("a [title] b") == "a. b" and without_wikihow_marks("x   y") == "x  y"
    )  # a single pass


@pytest.mark.parametrize("row, message", [
    ({"goal": "g", "solution": "s"}, "line 1 is not a labelled row of piqa (KeyError('sol1')); it has goal, solution"),
    ({"goal": "g", "sol1": "a", "sol2": "b", "label": ""}, "line 1 is not a labelled row of piqa"),
    ({"goal": "g", "sol1": "a", "sol2": "b", "label": -1}, "the label -1 is none of 2 choices; piqa needs its labelled split"),
    ([1], "it has list"),
    ("{", "line 1 is not JSON"),
    ("", "piqa.jsonl holds no rows of piqa"),
])  # fmt: skip
def test_wrong_rows_are_one_clear_line(tmp_path, row, message):
    (tmp_path / "piqa.jsonl").write_text(row if isinstance(row, str) else json.dumps(row))
    with pytest.raises(UserError) as caught:
        load_benchmark("piqa", str(tmp_path))
    assert message in str(caught.value) and "\n" not in str(caught.value)


CHOICES = {"text": ["a", "b"], "label": ["A", "B"]}
ROWS = {
    "lambada": {"text": "she said yes"},
    "hellaswag": {"activity_label": "Home", "ctx_a": "Boil.", "ctx_b": "then", "endings": ["a", "b"], "label": "1"},
    "arc_easy": {"question": "Why?", "choices": CHOICES, "answerKey": "B"},
    "piqa": {"goal": "Open", "sol1": "push", "sol2": "pull", "label": 0},
    "openbookqa": {"question_stem": "The sun is", "choices": CHOICES, "answerKey": "B"},
}  # fmt: skip


@pytest.mark.parametrize("name, change, said", [
    ("lambada", {"text": 5}, "field text is a number, must be text"),
    ("lambada", {"text": "word"}, "its text is a single word"),
    ("lambada", {"text": None, "context": "a b", "continuation": None}, "KeyError('continuation')"),
    ("hellaswag", {"ctx_a": None}, "KeyError('ctx_a')"),
    ("hellaswag", {"activity_label": ["Home"]}, "field activity_label is a list, must be text"),
    ("hellaswag", {"endings": "abcd"}, "field endings is text, must be a list of two or more texts"),
    ("hellaswag", {"endings": {"a": 1, "b": 2}}, "field endings is an object, must be a list"),
    ("hellaswag", {"endings": ["a", None]}, "field endings holds null, must hold texts"),
    ("hellaswag", {"endings": ["a"]}, "field endings is a list, must be a list of two or more texts"),
    ("hellaswag", {"label": "1.5"}, "field label is '1.5', must be a whole number"),
    ("hellaswag", {"label": 2}, "the label 2 is none of 2 choices"),
    ("arc_easy", {"question": None}, "KeyError('question')"),
    ("arc_easy", {"choices": ["a", "b"]}, "field choices is a list, must hold lists text and label"),
    ("arc_easy", {"choices": {"text": "ab", "label": "AB"}}, "field text is text, must be a list"),
    ("arc_easy", {"choices": {**CHOICES, "label": ["A"]}}, "field label is a list, must be a list of two or more"),
    ("arc_easy", {"choices": {**CHOICES, "label": ["A", "B", "C"]}}, "answerKey 'B' is no label of 2 choices"),
    ("arc_easy", {"answerKey": "F"}, "answerKey 'F' is no label of 2 choices"),
    ("arc_easy", {"answerKey": ["B"]}, "field answerKey is a list, must be text or a number"),
    ("piqa", {"sol1": ["push"]}, "field sol1 is a list, must be text"),
    ("piqa", {"label": True}, "field label is true, must be text or a number"),
    ("piqa", {"label": [1]}, "field label is a list, must be text or a number"),
    ("piqa", {"label": None}, "field label is None, must be a whole number"),
    ("openbookqa", {"question_stem": None}, "KeyError('question_stem')"),
])  # fmt: skip
def test_a_field_of_a_wrong_type_is_one_line(tmp_path, name, change, said):
    path = tmp_path / f"{name}.jsonl"
    path.write_text(json.dumps(ROWS[name]) + "\n\n" + json.dumps({**ROWS[name], **change}))
    with pytest.raises(UserError) as caught:
        load_benchmark(name, str(tmp_path))
    line = str(caught.value)
    assert line.startswith(f"{path}, line 3") and said in line and "\n" not in line


def test_labels_may_be_numbers_or_text(tmp_path):
    for label in (1, "1", " 1 ", 1.0):
        (tmp_path / "piqa.jsonl").write_text(json.dumps({**ROWS["piqa"], "label": label}))
        assert load_benchmark("piqa", str(tmp_path))[0].gold == 1
    row = {**ROWS["arc_easy"], "choices": {"text": ["a", "b"], "label": [1, 2]}, "answerKey": 2}
    (tmp_path / "arc_easy.jsonl").write_text(json.dumps(row))
    assert load_benchmark("arc_easy", str(tmp_path))[0].gold == 1


@pytest.mark.parametrize("line, said", [
    ("[" * 100_000, "is nested too deeply"),
    ('{"goal": ' + "1" * 5_000 + "}", "holds a number of too many digits"),
    ("\ufeff{", "is not JSON"),
])  # fmt: skip
def test_lines_that_are_no_rows(tmp_path, line, said):
    path = tmp_path / "piqa.jsonl"
    path.write_text(json.dumps(ROWS["piqa"]) + "\n" + line)
    with pytest.raises(UserError) as caught:
        load_benchmark("piqa", str(tmp_path))
    assert f"{path}, line 2 {said}" in str(caught.value) and "\n" not in str(caught.value)


def test_odd_values_give_items_or_one_line():
    odd = [None, True, 0, -1, 7, 1.5, float("nan"), float("inf"), "", " ", "\ud800", "a\x00", "x" * 10_000, "[" * 50_000,
           [], [None], ["a", "b"], [["a"], "b"], {}, {"text": []}, {"text": ["a", "b"], "label": None}, b"x", object(),
           {"text": ["a", "b"], "label": ["A", ["B"]]}, 10**30, np.arange(3)]  # fmt: skip
    n_items = 0
    for name, row in ROWS.items():
        for field in row:
            for value in odd:
                try:
                    item = item_of_row(name, {**row, field: value}, "odd.jsonl, line 1")
                except UserError as error:
                    said = str(error)
                    assert (
                        said.startswith("odd.jsonl, line 1")
                        and "\n" not in said
                        and len(said) < 400
                    )
                    said.encode()
                    continue
                n_items += 1
                assert 0 <= item.gold < len(item.choices)
                "".join([item.context, *item.choices]).encode()
        assert isinstance(item_of_row(name, row, "whole"), Item)
    assert n_items > 40


def test_the_file_with_a_blank_at_the_end():
    """As in the harness, the last word is what follows the last blank, be it nothing."""
    path = SHARED.parent / "cases/lambada_trailing.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert item_of_row("lambada", rows[0], "").choices == (" ",)
    assert item_of_row("lambada", rows[2], "").choices == (" bread\n",)
    with pytest.raises(UserError, match="its text is a single word"):
        item_of_row("lambada", rows[1], "line 2")


def test_unknown_benchmark_and_missing_file(tmp_path):
    with pytest.raises(
        UserError, match="unknown benchmark 'mmlu'; choose one of lambada, hellaswag"
    ):
        load_benchmark("mmlu")
    with pytest.raises(FileNotFoundError, match="piqa.jsonl is missing"):
        load_benchmark("piqa", str(tmp_path))


def test_counts_where_the_files_are_here():
    if not SHARED.exists():
        pytest.skip(f"{SHARED} is not here")
    assert (
        len(rows_of_hub("lambada")) == BENCHMARKS["lambada"].n_items
        and len(rows_of_hub("piqa")) == BENCHMARKS["piqa"].n_items
    )
    assert len(rows_of_hub("arc_easy")) == BENCHMARKS["arc_easy"].n_items


# --- scoring ------------------------------------------------------------------------------------------------------


def test_the_token_boundary_rule():
    encoding = get_tokenizer("toy")
    both = lambda context, continuation, longest=100: tuple(
        map(encoding.decode, likelihood.encode_pair(encoding, context, continuation, longest))
    )
    assert both("say hana has", " 11") == ("say hana has", " 11")
    assert both("say hana has ", "11") == ("say hana has", " 11")  # a blank at the end moves
    assert both("", " 11") == ("<|endoftext|>", " 11")  # nothing to read: end of text
    assert both("say hana has 11 cards", " and 2", 4) == (
        " has 11 cards",
        " and 2",
    )  # loses its beginning; the last token is only predicted
    assert [len(part) for part in likelihood.encode_pair(encoding, "say", " 11" * 9, 4)] == [1, 4]


def test_acc_norm_counts_characters_and_ties_go_to_the_first():
    item = Item("piqa", "c", (" ab", " abcdef", " éééé"), 1)
    verdict = likelihood.score_item(item, [(-4.0, False), (-5.0, False), (-6.0, False)])
    assert verdict == {
        "acc": False,
        "acc_norm": True,
        "logp": -5.0,
    }  # per character -2, -0.83, -1.5 (bytes would say -0.75 for the last)
    tied = Item("piqa", "c", (" ab", " cd"), 1)
    assert not likelihood.score_item(tied, [(-4.0, False), (-4.0, False)])["acc"]
    assert likelihood.score_item(Item("lambada", "c", (" a",), 0), [(-1.0, True)]) == {
        "acc": True,
        "acc_norm": True,
        "logp": -1.0,
    }


@BOTH
def test_shared_contexts_change_nothing(prepare):
    model = prepare(tiny().requires_grad_(False))
    g = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randint(0, 50, (n,), generator=g).tolist()
    contexts = [draw(n) for n in (20, 9, 3, 12)]
    requests = [(context, draw(1 + j % 5)) for context in contexts for j in range(4)]
    for micro_tokens in (1, 60, 10_000):
        for (context, continuation), (logp, greedy) in zip(
            requests, likelihood.score_continuations(model, requests, micro_tokens)
        ):
            logits = model(torch.tensor([context + continuation]))[
                0, len(context) - 1 : -1
            ].log_softmax(-1)
            assert logp == pytest.approx(
                float(logits.gather(-1, torch.tensor(continuation)[:, None]).sum()), abs=1e-4
            )
            assert greedy == (logits.argmax(-1).tolist() == continuation)


def test_general_of_a_brought_in_checkpoint_on_one_rank_and_on_two(tmp_path):
    """A folder of the six files, through the command; the row of two ranks is that of one, bit for bit."""
    words = "the a red blue dog cat ran sat on under house tree sun moon one two".split()
    rng = np.random.default_rng(0)
    say = lambda n: " ".join(rng.choice(words, n))
    for name in BENCHMARKS:
        with open(tmp_path / f"{name}.jsonl", "w") as f:
            for i in range(12):
                choices = {"text": [say(1 + j) for j in range(4)], "label": list("ABCD")}
                row = {
                    "text": say(12),
                    "activity_label": say(2),
                    "ctx_a": say(9),
                    "ctx_b": say(3),
                    "endings": choices["text"],
                    "label": i % 2,
                    "question": say(10),
                }
                row |= {
                    "question_stem": say(12),
                    "choices": choices,
                    "answerKey": "ABCD"[i % 4],
                    "goal": say(9),
                    "sol1": say(3),
                    "sol2": say(4),
                }
                f.write(json.dumps(row) + "\n")
    facts = dict(
        id="x",
        base_id="x",
        recipe="base",
        tokens=4000,
        preset="toy",
        seed=0,
        code="",
        config={},
        tokenizer="toy",
        corpus="some/olmo2",
    )
    save_checkpoint(str(tmp_path / "4K.pt"), tiny(get_tokenizer("toy").n_vocab), facts)
    flags = [
        "--ckpt",
        tmp_path / "4K.pt",
        "--task",
        "general,piqa",
        "--benchmarks",
        tmp_path,
        "--problems",
        "9",
        "--micro_tokens",
        "300",
    ]
    said = run("evaluate.py", *flags, "--out", tmp_path / "one.jsonl")
    run("evaluate.py", *flags, "--out", tmp_path / "two.jsonl", ranks=2)
    one, two = (read_rows(str(tmp_path / f"{ranks}.jsonl")) for ranks in ("one", "two"))
    assert [row["task"] for row in one] == ["general", "piqa"] and "general: mean" in said
    for a, b in zip(one, two, strict=True):
        assert all(a[key] == b[key] for key in a.keys() - {"seconds"})
    general, piqa = one
    assert list(general["skills"]) == list(BENCHMARKS) and general["mean"] == pytest.approx(
        np.mean(list(general["skills"].values()))
    )
    assert all(s["n"] == 9 and len(s["right"]) == 9 for s in general["items"].values())
    assert (
        general["items"]["lambada"]["metric"] == "acc"
        and general["items"]["lambada"]["perplexity"] > 1
    )
    assert piqa["items"]["piqa"] == general["items"]["piqa"]
    assert "nothing to do" in run("evaluate.py", *flags, "--out", tmp_path / "one.jsonl")
    assert "unknown task 'mmlu'; choose toy" in run(
        "evaluate.py", *flags[:2], "--task", "mmlu", ok=False
    )
