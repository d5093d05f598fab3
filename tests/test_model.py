"""The decoder against a reference written out from OLMo2's formulas, packing, the chunked head, checkpoints."""

from dataclasses import replace

import pytest
import torch
from conftest import quick, tiny

import model as M
from plumbing.checkpoint import load_checkpoint, read_facts, save_checkpoint
from plumbing.hashes import weights_hash

# Values and gradients are tested on the plain program and on fast/.
BOTH = pytest.mark.parametrize("prepare", [lambda m: m, quick], ids=["plain", "fast"])


def reference_logits(m: M.Transformer, tokens: list[int]) -> torch.Tensor:
    """One sequence through OLMo2, with loops and float64; shares no code with model.py."""
    c, w = m.config, {k: v.double() for k, v in m.state_dict().items()}
    norm = lambda x, g: x / (x.pow(2).mean(-1, keepdim=True) + c.norm_eps).sqrt() * g
    T, D = len(tokens), c.d_model // c.n_heads

    def turn(x, position):  # x (D,): pairs (i, i + D/2)
        out = x.clone()
        for i in range(D // 2):
            angle = torch.tensor(position * c.rope_theta ** (-2 * i / D), dtype=torch.float64)
            out[i] = x[i] * angle.cos() - x[i + D // 2] * angle.sin()
            out[i + D // 2] = x[i + D // 2] * angle.cos() + x[i] * angle.sin()
        return out

    x = w["embed_tokens.weight"][tokens]
    for layer in range(c.n_layers):
        p = f"layers.{layer}."
        q = norm(x @ w[p + "self_attn.q_proj.weight"].T, w[p + "self_attn.q_norm.weight"]).view(
            T, c.n_heads, D
        )
        k = norm(x @ w[p + "self_attn.k_proj.weight"].T, w[p + "self_attn.k_norm.weight"]).view(
            T, c.n_kv_heads, D
        )
        v = (x @ w[p + "self_attn.v_proj.weight"].T).view(T, c.n_kv_heads, D)
        out = torch.zeros(T, c.n_heads, D, dtype=torch.float64)
        for h in range(c.n_heads):
            kv = h // (c.n_heads // c.n_kv_heads)
            for t in range(T):
                scores = torch.stack(
                    [turn(q[t, h], t) @ turn(k[s, kv], s) / D**0.5 for s in range(t + 1)]
                )
                out[t, h] = scores.softmax(0) @ v[: t + 1, kv]
        x = x + norm(
            out.flatten(1) @ w[p + "self_attn.o_proj.weight"].T,
            w[p + "post_attention_layernorm.weight"],
        )
        gate, up = x @ w[p + "mlp.gate_proj.weight"].T, x @ w[p + "mlp.up_proj.weight"].T
        x = x + norm(
            (gate * gate.sigmoid() * up) @ w[p + "mlp.down_proj.weight"].T,
            w[p + "post_feedforward_layernorm.weight"],
        )
    return (norm(x, w["norm.weight"]) @ w["lm_head.weight"].T)[:, : c.vocab_size]


@BOTH
@pytest.mark.parametrize("changes", [{}, {"n_kv_heads": 2}, {"n_kv_heads": 1, "rope_theta": 1e4}])
def test_logits_follow_the_formulas(changes, prepare):
    m = prepare(replace_config(**changes))
    for name, p in m.named_parameters():  # gains away from 1, so that a swapped norm shows
        if p.ndim == 1:
            torch.nn.init.uniform_(p, 0.5, 1.5, generator=torch.Generator().manual_seed(len(name)))
    tokens = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    assert (m(torch.tensor([tokens]))[0].double() - reference_logits(m, tokens)).abs().max() < 1e-4


def replace_config(**changes):
    config = replace(tiny().config, **changes)
    m = M.Transformer(config)
    m.init_weights(0)
    return m.requires_grad_(False)


@BOTH
def test_packed_is_separate(prepare):
    tiny_model = prepare(tiny())
    sequences = [[1, 2, 3], [7], [4, 5, 6, 7, 8, 9, 10], [11, 12]]
    weights = torch.linspace(-1, 1, 32)
    separate = torch.cat([tiny_model.hidden(torch.tensor(s), [len(s)]) for s in sequences])
    (separate @ weights).sum().backward()
    gradients = [p.grad.clone() for p in tiny_model.parameters() if p.grad is not None]
    tiny_model.zero_grad()
    packed = tiny_model.hidden(torch.tensor(sum(sequences, [])), [len(s) for s in sequences])
    (packed @ weights).sum().backward()
    assert (packed - separate).abs().max() < 1e-5
    for a, b in zip(gradients, [p.grad for p in tiny_model.parameters() if p.grad is not None]):
        assert torch.allclose(a, b, atol=1e-5)


@BOTH
def test_the_future_is_not_seen(prepare):
    tiny_model = prepare(tiny())
    a = tiny_model(torch.tensor([[1, 2, 3, 4, 5]]))
    b = tiny_model(torch.tensor([[1, 2, 3, 9, 9]]))
    assert torch.equal(a[:, :3], b[:, :3]) and not torch.allclose(a[:, 3], b[:, 3])


@BOTH
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk", [7, 1000])
def test_chunked_head_is_the_whole_one(prepare, temperature, chunk):
    tiny_model = prepare(tiny())
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(33, 32, generator=g, requires_grad=True)
    targets = torch.randint(0, 50, (33,), generator=g)
    up_logp, up_lse = torch.randn(33, generator=g), torch.randn(33, generator=g)
    weight = tiny_model.lm_head.weight
    logits = (hidden @ weight[:50].T) / temperature
    logp, lse = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0], logits.logsumexp(-1)
    expected = torch.autograd.grad((logp * up_logp + lse * up_lse).sum(), [hidden, weight])
    ours_logp, ours_lse, entropy = tiny_model.logprobs(hidden, targets, temperature, chunk)
    got = torch.autograd.grad((ours_logp * up_logp + ours_lse * up_lse).sum(), [hidden, weight])
    assert torch.allclose(ours_logp, logp, atol=1e-5) and torch.allclose(ours_lse, lse, atol=1e-5)
    assert torch.allclose(
        entropy, torch.distributions.Categorical(logits=logits).entropy(), atol=1e-5
    )
    for a, b in zip(got, expected):
        assert torch.allclose(a, b, atol=1e-5)
    assert got[1][50:].abs().max() == 0  # rows that only pad the vocabulary are never trained


@pytest.mark.parametrize(
    "preset, expected", [("1B", 1_484_916_736), ("1B-60B", 1_484_916_736), ("4B", 4_014_246_912)]
)
def test_parameter_counts(preset, expected):
    with torch.device("meta"):
        m = M.Transformer(M.PRESETS[preset])
    assert m.num_parameters() == expected


def test_initialisation_is_a_function_of_the_seed():
    a, b, c = tiny(), tiny(), tiny()
    c.init_weights(2)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))
    assert not torch.equal(a.embed_tokens.weight, c.embed_tokens.weight)
    assert a.embed_tokens.weight.abs().max() <= 3 * a.config.embed_std


def test_checkpoint_round_trip(tmp_path, tiny_model):
    path = str(tmp_path / "deep" / "4B.pt")
    save_checkpoint(path, tiny_model, {"tokens": 4, "recipe": "base"})
    loaded, facts = load_checkpoint(path)
    written = {"tokens": 4, "recipe": "base", "weights": weights_hash(tiny_model.state_dict())}
    assert facts == written and loaded.config == tiny_model.config
    for (name, a), b in zip(tiny_model.state_dict().items(), loaded.state_dict().values()):
        assert torch.equal(a, b), name
    assert all(p.requires_grad for p in loaded.parameters())
    assert read_facts(path)["model"]["d_model"] == 32
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["4B.pt"]  # nothing left aside


def test_damaged_and_missing_checkpoints_say_so(tmp_path, tiny_model):
    path = str(tmp_path / "4B.pt")
    with pytest.raises(FileNotFoundError, match="missing"):
        load_checkpoint(path)
    save_checkpoint(path, tiny_model, {})
    whole = open(path, "rb").read()
    for content in (whole[: len(whole) // 2], b"", b"not a checkpoint"):
        open(path, "wb").write(content)
        with pytest.raises(OSError, match="4B.pt is damaged or not a checkpoint"):
            load_checkpoint(path)
    torch.save({"weights": 1}, path)
    with pytest.raises(OSError, match="not a checkpoint of this project"):
        load_checkpoint(path)
