"""Our decoder against transformers' Olmo2ForCausalLM: hidden states, logits, gradients, sampling, files; all in fp32.

pip install -r tests/requirements.txt      # transformers; without it these tests are skipped
"""

import json
import os
import random

import pytest
import torch
from conftest import quick, run, tiny
from torch.nn.functional import cross_entropy

import convert
import model as M
from data.tokenizer import get_tokenizer, to_json
from plumbing.batches import pack, response_logprobs
from plumbing.checkpoint import load_checkpoint, read_facts, save_checkpoint
from sampler import sample

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install -r tests/requirements.txt"
)
BOTH = pytest.mark.parametrize("prepare", [lambda m: m, quick], ids=["plain", "fast"])
BASE = dict(
    vocab_size=320, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
    max_position_embeddings=512, rms_norm_eps=1e-6, tie_word_embeddings=False, pad_token_id=None, bos_token_id=None, eos_token_id=5,
    attn_implementation="eager",
)  # fmt: skip
CONFIGS = {  # changes, rope_theta, lengths of the sequences
    "mha": ({}, 500_000.0, [3, 17, 40]),
    "gqa": ({"num_key_value_heads": 2}, 500_000.0, [1, 64]),
    "one key-value head": ({"num_key_value_heads": 1, "rms_norm_eps": 1e-5}, 10_000.0, [29, 5]),
    "odd sizes": (
        {
            "hidden_size": 90,
            "intermediate_size": 77,
            "num_attention_heads": 15,
            "num_key_value_heads": 5,
            "vocab_size": 313,
        },
        777.0,
        [31, 2, 9],
    ),
    "one layer": (
        {
            "num_hidden_layers": 1,
            "hidden_size": 32,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
        },
        500_000.0,
        [50],
    ),
    "deep": (
        {"num_hidden_layers": 12, "hidden_size": 48, "intermediate_size": 100},
        500_000.0,
        [20, 33],
    ),
    "long": (
        {"max_position_embeddings": 4096, "hidden_size": 128, "num_key_value_heads": 2},
        500_000.0,
        [4096],
    ),
}


def reference(name: str, seed: int = 0):
    """transformers' model with weights away from their initial ones, so that a swapped norm or a lost eps shows."""
    changes, theta, lengths = CONFIGS[name]
    rope = (
        {"rope_parameters": {"rope_type": "default", "rope_theta": theta}}
        if transformers.__version__ >= "5"
        else {"rope_theta": theta}
    )
    hf = transformers.Olmo2ForCausalLM(
        transformers.Olmo2Config(**{**BASE, **changes, **rope})
    ).eval()
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in hf.parameters():
            if p.ndim == 1:
                p.uniform_(0.5, 1.5, generator=g)
            else:
                p.normal_(std=p.shape[1] ** -0.5, generator=g)
    rng = random.Random(seed)
    return hf, [[rng.randrange(hf.config.vocab_size) for _ in range(n)] for n in lengths]


def brought_in(hf, folder) -> M.Transformer:
    """Through the files, as a user would: save_pretrained, then convert.py from-hf."""
    hf.save_pretrained(folder / "hf")
    (folder / "hf" / "tokenizer.json").write_text(json.dumps(small_tokenizer()))
    convert.main(["from-hf", str(folder / "hf"), "--out", str(folder / "ours.pt")])
    return load_checkpoint(str(folder / "ours.pt"))[0]


def small_tokenizer() -> dict:
    """Bytes and two special tokens: fits any vocabulary of 258 rows or more."""
    tokenizer = to_json(get_tokenizer("toy"))
    words = {token: i for token, i in tokenizer["model"]["vocab"].items() if i < 256}
    tokenizer["model"] |= {"vocab": words, "merges": []}
    for i, token in enumerate(tokenizer["added_tokens"]):
        token["id"] = 256 + i
    return tokenizer


def unmasked(model: M.Transformer) -> M.Transformer:
    """All rows of the head count here, as transformers counts them; we leave out those past the tokenizer's."""
    object.__setattr__(model.config, "vocab_size", model.config.padded_vocab_size)
    return model


@BOTH
@pytest.mark.parametrize("name", CONFIGS)
def test_hidden_states_logits_and_gradients(name, tmp_path, prepare):
    hf, sequences = reference(name)
    ours = prepare(unmasked(brought_in(hf, tmp_path)))
    blocks = []
    for block in ours.layers:
        block.register_forward_hook(lambda module, args, out: blocks.append(out))
    for tokens in sequences:
        blocks.clear()
        ids = torch.tensor([tokens])
        theirs = hf(ids, output_hidden_states=True)
        with torch.no_grad():
            logits = ours(ids)
            final = ours.norm(blocks[-1])
        assert (logits - theirs.logits).abs().max() < 1e-4 and theirs.logits.abs().max() > 1
        states = theirs.hidden_states  # the embedding, then after each block; the last one normed
        for mine, other in zip([*blocks[:-1], final], states[1:], strict=True):
            assert (mine - other[0]).abs().max() < 1e-4

    # one loss over all sequences, packed here, one by one there
    n = sum(len(tokens) - 1 for tokens in sequences) or 1
    hf.zero_grad()
    for tokens in sequences:
        ids = torch.tensor([tokens])
        (cross_entropy(hf(ids).logits[0, :-1], ids[0, 1:], reduction="sum") / n).backward()
    packed = pack([tokens[:1] for tokens in sequences], [tokens[1:] for tokens in sequences])
    (-response_logprobs(ours, packed)[0].sum() / n).backward()
    gradients = dict(ours.named_parameters())
    for key, p in hf.named_parameters():
        grad = gradients[key.removeprefix("model.")].grad
        assert (grad - p.grad).abs().max() < 1e-4 * p.grad.abs().max(), key


@BOTH
def test_a_batch_is_what_each_is_alone(tmp_path, prepare):
    hf, _ = reference("gqa")
    ours = prepare(unmasked(brought_in(hf, tmp_path)))
    rng = random.Random(1)
    sequences = [[rng.randrange(320) for _ in range(n)] for n in (1, 30, 7, 64)]
    with torch.no_grad():
        packed = ours.logits(
            ours.hidden(torch.tensor(sum(sequences, [])), [len(s) for s in sequences])
        ).split([len(s) for s in sequences])
        for tokens, logits in zip(sequences, packed):
            assert (logits - hf(torch.tensor([tokens])).logits[0]).abs().max() < 1e-4


@BOTH
@pytest.mark.parametrize("name", ["gqa", "odd sizes"])
def test_cached_decoding_is_their_full_forward(name, tmp_path, prepare):
    """Prompts of mixed lengths, greedy: ids equal to transformers' full forward token by token, log-probs < 1e-4."""
    hf, _ = reference(name)
    ours = prepare(unmasked(brought_in(hf, tmp_path)))
    rng = random.Random(2)
    prompts = [[rng.randrange(313) for _ in range(n)] for n in (1, 2, 33, 9, 50)]
    for prompt, (rollout,) in zip(
        prompts, sample(ours, prompts, max_new_tokens=40, temperature=0, eos=5, slots=3)
    ):
        sequence = torch.tensor([prompt + rollout.tokens])
        with torch.no_grad():
            logits = hf(sequence).logits[0, len(prompt) - 1 : -1]  # (new, vocab)
        assert logits.argmax(-1).tolist() == rollout.tokens
        logp = logits.log_softmax(-1).gather(1, sequence[0, len(prompt) :, None])[:, 0]
        if rollout.logprobs[0] != 0:  # greedy decoding may report certainty
            assert (logp - torch.tensor(rollout.logprobs)).abs().max() < 1e-4
        theirs = hf.generate(
            torch.tensor([prompt]), max_new_tokens=40, do_sample=False, pad_token_id=0
        )[0, len(prompt) :].tolist()
        assert theirs == rollout.tokens


@BOTH
def test_sampled_logprobs_are_theirs(tmp_path, prepare):
    hf, _ = reference("mha")
    ours = prepare(unmasked(brought_in(hf, tmp_path)))
    prompts = [[1, 2, 3], [7], list(range(40))]
    for prompt, group in zip(
        prompts, sample(ours, prompts, 4, 30, temperature=0.7, eos=5, slots=5)
    ):
        for rollout in group:
            sequence = torch.tensor([prompt + rollout.tokens])
            with torch.no_grad():
                logits = hf(sequence).logits[0, len(prompt) - 1 : -1] / 0.7
            logp = logits.log_softmax(-1).gather(1, sequence[0, len(prompt) :, None])[:, 0]
            assert (logp - torch.tensor(rollout.logprobs)).abs().max() < 1e-4


def test_what_goes_out_is_loaded_by_transformers(tmp_path):
    """A trained toy checkpoint: AutoModel gives its logits (theta, eps, sizes from the config), AutoTokenizer its ids."""
    encoding = get_tokenizer("toy")
    ours = tiny(encoding.n_vocab, n_kv_heads=2, rope_theta=77.0, norm_eps=3e-6).requires_grad_(
        False
    )
    save_checkpoint(str(tmp_path / "4B.pt"), ours, {"tokenizer": "toy"})
    convert.main(["to-hf", str(tmp_path / "4B.pt"), str(tmp_path / "hf")])
    hf = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert hf.dtype == torch.float32 and type(hf).__name__ == "Olmo2ForCausalLM"
    assert (hf.config.eos_token_id, hf.config.pad_token_id) == (
        encoding.eot_token,
        encoding.eot_token + 1,
    )
    tokens = torch.tensor([encoding.encode_ordinary("say hana has 11 cards . buys 2 .")])
    with torch.no_grad():
        assert (hf(tokens).logits[..., : encoding.n_vocab] - ours(tokens)).abs().max() < 1e-4
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, len(tokenizer)) == (
        encoding.eot_token,
        encoding.eot_token + 1,
        encoding.n_vocab,
    )
    for text in ("say hana has 11 cards . buys 2 .", " so \\boxed{ 13, 5}\n", "naïve 東京 🙂"):
        ids = tokenizer(text)["input_ids"]
        assert ids == encoding.encode_ordinary(text) and tokenizer.decode(ids) == text
    assert tokenizer("a <|endoftext|>")["input_ids"][-1] == encoding.eot_token


def test_a_sharded_directory_of_theirs_is_the_same(tmp_path):
    hf, _ = reference("gqa")
    whole = brought_in(hf, tmp_path / "whole").state_dict()
    hf.save_pretrained(tmp_path / "parts" / "hf", max_shard_size="200KB")
    assert len(list((tmp_path / "parts" / "hf").glob("*.safetensors"))) > 2
    parts = brought_in_again(tmp_path / "parts").state_dict()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def brought_in_again(folder) -> M.Transformer:
    (folder / "hf" / "tokenizer.json").write_text(json.dumps(small_tokenizer()))
    convert.main(["from-hf", str(folder / "hf"), "--out", str(folder / "ours.pt")])
    return load_checkpoint(str(folder / "ours.pt"))[0]


def test_the_round_trip_through_transformers_keeps_every_bit(tmp_path):
    """ours -> Hugging Face -> loaded and saved by transformers -> ours."""
    hf, _ = reference("odd sizes")
    first = brought_in(hf, tmp_path)
    convert.main(["to-hf", str(tmp_path / "ours.pt"), str(tmp_path / "out")])
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").save_pretrained(
        tmp_path / "again" / "hf"
    )
    second = brought_in_again(tmp_path / "again")
    assert first.config == second.config
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_a_random_directory_runs_every_stage(tmp_path):
    """grpo, sft, parallel and evaluate from a converted checkpoint, with no flag but --ckpt, --data and sizes."""
    hf, _ = reference("gqa")
    brought_in(hf, tmp_path)
    data = tmp_path / "problems.jsonl"
    rows = [
        {
            "question": f"What is {a} + {b} ?",
            "answer": str(a + b),
            "solutions": [f"{a} + {b} = {a + b}\n\\boxed{{{a + b}}}"],
        }
        for a in range(5)
        for b in range(5)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = ["--ckpt", tmp_path / "ours.pt", "--data", data, "--steps", "2"]
    rl = ["--prompts", "4", "--n", "4", "--max_response", "12"]
    run("grpo.py", *sizes, *rl)
    run("sft.py", *sizes, "--batch", "4")
    run("parallel.py", *sizes, *rl, "--sft_batch", "4")
    run(
        "evaluate.py",
        "--ckpt",
        tmp_path / "ours.rl.pt",
        "--task",
        data,
        "--problems",
        "6",
        "--n",
        "2",
        "--k",
        "1,2",
        "--max_response",
        "12",
    )
    made = {name for name in os.listdir(tmp_path) if name.endswith((".pt", "results.jsonl"))}
    assert made == {"ours.pt", "ours.rl.pt", "ours.sft.pt", "ours.parallel.pt", "results.jsonl"}
    assert read_facts(str(tmp_path / "ours.rl.pt"))["step"] == 2
