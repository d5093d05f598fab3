"""Whatever is marked gpu runs on a GPU that is not there (tests/pretend_gpu), and faults that a real one punishes are seen.

The first two tests start that run, in two processes of their own, and look at what it reached. All others are the pretended GPU's
own, and run there: what it sees, and what of our code would fail on it if it were wrong."""

import ast
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import ROOT, quick, tiny
from test_gpu import made_groups
from test_sampler import EOS, prompts, tokens_of

import grpo
from fast import packed
from fast.nucleus import nucleus_of_few
from fast.paged import PagedCache
from fast.sampling import FastSampler
from plumbing.likelihood import score_continuations
from plumbing.packs import packs_of_groups
from plumbing.transfer import send
from sampler import sample
from tests.pretend_gpu import blocks, guard

PRETENDED = "tests.pretend_gpu.device" in sys.modules  # this is the process with such a GPU
if PRETENDED:
    from tests.pretend_gpu.device import CaptureError, State
    from tests.pretend_gpu.graphs import Graph
    from tests.pretend_gpu.kernels import Kernel

here = pytest.mark.skipif(not PRETENDED, reason="on the pretended GPU alone")


def there(test):
    """Marks a test of the pretended GPU itself."""
    return pytest.mark.gpu(here(test))


# What the run need not reach, by the first line of each block, and why. No blocks of their own, so not looked for here: the
# process group's "nccl" (plumbing/ranks.py), which needs two GPUs, and the dtype of transformers' model (tools/peer.py).
NOT_REACHED = {"return None": "packed.py: a torch that has no attention over packed sequences"}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What the tests marked gpu say, and the GPU blocks that they reached."""
    if PRETENDED or torch.cuda.is_available():
        pytest.skip("there is a GPU")
    if guard.what_is_missing():
        pytest.skip(guard.what_is_missing())
    marked = [
        path
        for path in sorted(Path(ROOT, "tests").glob("test_*.py"))
        if "mark.gpu" in path.read_text()
    ]
    slow = [path for path in marked if path.stem == "test_gpu"]
    others = [path for path in marked if path not in slow]
    folder = tmp_path_factory.mktemp("pretended")

    def run(name, files):
        command = [sys.executable, "-m", "tests.pretend_gpu", "--reached", folder / name]
        command += ["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-m", "gpu", *files]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            list(map(str, command)), cwd=ROOT, env=env, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
        return done.stdout, (folder / name).read_text().split()

    guard.build()  # once, for both
    with ThreadPoolExecutor(2) as threads:
        parts = list(threads.map(run, ("one", "two"), (slow, others)))
    return parts


def test_what_is_marked_gpu_passes_on_the_pretended_one(outcome):
    for said, _ in outcome:
        assert re.search(r"\d+ passed", said) and "skipped" not in said, said


def test_all_lines_that_only_a_gpu_reaches_are_reached(outcome):
    """A new `if x.is_cuda` needs a test marked gpu, or a reason above."""
    reached = {place for _, places in outcome for place in places}
    left = {place: text for place, text in blocks.all_blocks().items() if place not in reached}
    assert {text for text in left.values()} == NOT_REACHED.keys(), left


def test_blocks_are_found_wherever_they_stand():
    source = (
        "if x.is_cuda:\n    a\n    for _ in y:\n        b\nelse:\n    c\n"
        "if kind == 'cpu':\n    d\nelse:\n    e\n"
        "def norm(x):\n    'Text.'\n    with z:\n        f\n    try:\n        g\n    except E:\n        h\n"
        "def other(x):\n    i\n"
    )
    found = blocks.gpu_blocks(ast.parse(source), "fast/head.py")
    assert {blocks.first_line(block) for block in found} == {2, 4, 10, 13, 14, 16, 18}


# ---------------------------------------------------------------------------------- what it sees


@there
def test_two_devices_in_one_kernel():
    x = torch.arange(4.0, device="cuda")
    assert x.is_cuda and x.cpu().tolist() == [0, 1, 2, 3] and not torch.zeros(1).is_cuda
    with pytest.raises(RuntimeError, match="at least two devices"):
        x + torch.zeros(4)
    with pytest.raises(RuntimeError, match="at least two devices"):
        torch.cat([x, torch.zeros(4)])
    assert (x + torch.tensor(1.0)).tolist() == [1, 2, 3, 4]  # a single number may be the host's


@there
@pytest.mark.parametrize(
    "what",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 1).any()),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x[x > 1],
        lambda x: (x > 1).nonzero(),
        lambda x: x[torch.tensor([0])],
        lambda x: torch.tensor([1, 2], device="cuda"),
        lambda x: torch.cuda.synchronize(),
        lambda x: torch.cuda.Event().synchronize(),
    ],
    ids="item bool tolist cpu mask nonzero index tensor synchronize event".split(),
)
def test_what_waits_may_not_be_recorded(what):
    x = torch.arange(4.0, device="cuda")
    before = sum(State.waits.values())
    what(x)
    assert sum(State.waits.values()) == before + 1
    with pytest.raises(CaptureError), torch.cuda.graph(torch.cuda.CUDAGraph()):
        what(x)


@there
def test_a_replay_runs_kernels_and_no_python():
    graph = torch.cuda.CUDAGraph()
    x, y = torch.arange(4.0, device="cuda"), torch.zeros(4, device="cuda")
    factor = 2.0
    with torch.cuda.graph(graph):
        y += (x.exp().log() * factor)[1:].sum()
    assert not y.any()  # what is recorded has not run
    factor = 3.0  # comes too late
    graph.replay()
    assert torch.allclose(y.cpu(), torch.full((4,), 12.0))
    x.fill_(1.0)
    graph.replay()
    assert torch.allclose(y.cpu(), torch.full((4,), 18.0))
    x = torch.zeros(4, device="cuda")  # another tensor: the graph keeps to the first
    graph.replay()
    assert torch.allclose(y.cpu(), torch.full((4,), 24.0))


@there
def test_copies_to_and_from_pinned_memory_take_their_time():
    x = torch.arange(4.0, device="cuda")
    pinned = torch.zeros(4, pin_memory=True)
    pinned.copy_(x, non_blocking=True)
    assert not torch.equal(pinned, torch.arange(4.0))  # not yet
    early = torch.cuda.Event()
    early.record()
    later = torch.ones(4).pin_memory()
    later.copy_(x, non_blocking=True)
    early.synchronize()
    assert torch.equal(pinned, torch.arange(4.0)) and not torch.equal(later, pinned)
    torch.cuda.synchronize()
    assert torch.equal(later, pinned)
    x.copy_(pinned, non_blocking=True)
    pinned += 1  # while the device may still read it
    with pytest.raises(AssertionError, match="a pinned buffer changed"):
        torch.cuda.synchronize()


@there
def test_memory_that_nobody_has_written():
    assert torch.empty(3, device="cuda").isnan().all()
    assert torch.arange(3.0, device="cuda").new_empty(2).isnan().all()
    assert (torch.empty(3, dtype=torch.int64, device="cuda") == 0x55).all()


@there
def test_sums_in_bf16_round_at_every_step():
    """So torch's own gradient of index_select loses the small parts, which fast/packed.py's does not."""
    x = torch.zeros(2, 3, dtype=torch.bfloat16, device="cuda", requires_grad=True)
    parts = torch.full((256, 3), 2.0**-8, dtype=torch.bfloat16, device="cuda")
    parts[0] = 1.0
    x.index_select(0, torch.tensor([1] * 256, device="cuda")).backward(parts)
    assert x.grad.tolist() == [[0] * 3, [1] * 3]


@there
def test_its_attention_has_the_formulas_gradient():
    """Packed, causal to the last key, in bf16: against torch's own in fp32, sequence by sequence."""
    g = torch.Generator().manual_seed(0)
    lengths_q, lengths_k = [3, 1, 5], [4, 1, 9]
    wide = [torch.randn(n, 2, 8, generator=g) for n in (9, 14, 14)]
    rounded = [x.bfloat16() for x in wide]
    weight = torch.randn(9, 2, 8, generator=g).bfloat16()
    q, k, v = (x.cuda().requires_grad_() for x in rounded)
    ends = [packed.ends_of_each(lengths, "cuda") for lengths in (lengths_q, lengths_k)]
    out = packed.packed_attention(q, k, v, *ends, 5, 9)
    out.backward(weight.cuda())
    plain = [x.float().requires_grad_() for x in rounded]
    parts = []
    for q1, k1, v1 in zip(
        plain[0].split(lengths_q), plain[1].split(lengths_k), plain[2].split(lengths_k)
    ):
        scores = torch.einsum("qhd,khd->hqk", q1, k1) / 8**0.5
        later = torch.ones(len(q1), len(k1)).triu(len(k1) - len(q1) + 1).bool()
        parts.append(
            torch.einsum("hqk,khd->qhd", scores.masked_fill(later, -torch.inf).softmax(-1), v1)
        )
    wanted = torch.cat(parts)
    wanted.backward(weight.float())
    pairs = [(out, wanted)] + [(a.grad, b.grad) for a, b in zip((q, k, v), plain)]
    for got, right in pairs:
        assert (got.cpu().float() - right).abs().max() < 2**-7 * right.abs().max()


# ---------------------------------------------------------------------------------- our code on it

ASKED = prompts(5, 30)
HOW = dict(eos=EOS, seed=3)


@pytest.fixture
def wanted():
    """The CPU's tokens."""
    return tokens_of(sample(tiny().requires_grad_(False), ASKED, 2, 14, **HOW))


@pytest.fixture
def sampler():
    """In pages and graphs, in fp32."""
    made = FastSampler(quick(tiny().requires_grad_(False).cuda()), 8, bf16=False)
    yield made
    State.queue.clear()  # of a fault that a test has planted


def drawn(sampler, *how):
    return tokens_of(sampler.sample(ASKED, 2, 14, *how, **HOW))


@there
def test_the_right_sampler_draws_the_cpus_tokens(sampler, wanted):
    replays = Graph.replays
    launches = Kernel.launches
    assert drawn(sampler) == wanted and drawn(sampler) == wanted
    assert Graph.replays >= replays + 2 * 14 and Kernel.launches >= launches + 2 * 2 * 14


@there
def test_so_it_does_with_the_kernel_itself(sampler, monkeypatch):
    """The Triton kernel in its interpreter, recorded and replayed; few slots, since that is slow."""
    monkeypatch.setattr(Kernel, "interpreted", True)
    monkeypatch.setattr(Kernel, "launches", 0)
    wanted = tokens_of(sample(tiny().requires_grad_(False), ASKED[:2], 1, 4, **HOW))
    assert tokens_of(sampler.sample(ASKED[:2], 1, 4, **HOW)) == wanted and Kernel.launches


@there
def test_the_host_waits_once_in_a_round_of_decoding(sampler, monkeypatch):
    """For the event, three steps before the last; nothing else within `decode`, once the graphs are there."""
    drawn(sampler)
    waits = []
    decode = FastSampler.decode

    def counted(self, schedule):
        before = State.waits.copy()
        ended = decode(self, schedule)
        waits.append(State.waits - before)
        return ended

    monkeypatch.setattr(FastSampler, "decode", counted)
    drawn(sampler)
    assert waits and all(sum(of_one.values()) == 1 for of_one in waits)
    assert all("an event's synchronize" in place for of_one in waits for place in of_one)


def waits_of(work):
    """What the host waited for in work(): "file.py:line what" -> how often."""
    before = State.waits.copy()
    work()
    return State.waits - before


@there
@pytest.mark.parametrize("pages", [None, 12])
def test_the_host_waits_for_nothing_else_while_it_samples(pages):
    """Admission, prompts that are read, rollouts sent back, slots moved together: an event in each round, and at the end tokens,
    log-probs and lengths."""
    sampler = FastSampler(quick(tiny().requires_grad_(False).cuda()), 8, bf16=True, pages=pages)
    ask = lambda: sampler.sample(prompts(7, 30), 3, 20, eos=EOS, seed=3)
    ask()
    rounds, decode = [], sampler.decode
    sampler.decode = lambda schedule: (rounds.append(1), decode(schedule))[1]
    waits = waits_of(ask)
    of_events = {place: n for place, n in waits.items() if "event" in place}
    assert list(of_events.values()) == [len(rounds)] and len(rounds) > 7
    assert all(place.startswith("sampling.py") for place in waits), waits
    assert sum(waits.values()) == len(rounds) + 3, waits


@there
def test_the_host_waits_once_in_a_mini_batch():
    """For its sums, whatever the packs; the tokens, the masks and what attention needs are sent ahead."""
    config = grpo.Config(
        ckpt="", prompts=3, n=4, mini_batches=1, micro_tokens=40, kl=0.1, loss="micro-mean", tis=2
    )
    model, reference = quick(tiny().cuda()), quick(tiny().requires_grad_(False).cuda())
    groups = made_groups()
    groups.old_logp = [[torch.tensor(r.logprobs) for r in group] for group in groups.rollouts]
    assert len(packs_of_groups(groups, [0, 1, 2], config)) > 2
    waits = waits_of(lambda: grpo.policy_backward(model, reference, groups, [0, 1, 2], config))
    assert sum(waits.values()) == 1 and next(iter(waits)).startswith("metrics.py"), waits


@there
def test_the_host_waits_twice_in_a_pass_of_scoring():
    """For all log-probs and verdicts of the pass, not for those of each request."""
    model = quick(tiny().requires_grad_(False).cuda())
    requests = [([1, 2, 3], [4, 5]), ([1, 2, 3], [6]), ([7], [8, 9, 10])]
    waits = waits_of(lambda: score_continuations(model, requests, micro_tokens=100))
    assert sum(waits.values()) == 2, waits


@there
def test_fault_a_buffer_for_all_that_is_sent(sampler, monkeypatch):
    """The next numbers would be written over those that the device has not read yet."""
    buffer = torch.zeros(4096, dtype=torch.uint8, pin_memory=True)

    def into_the_buffer(x):
        place = buffer[: x.nbytes].view(x.dtype).view(x.shape)
        return place.copy_(x)

    assert send([1, 2], "cuda").tolist() == [1, 2] and send([1, 2], "cpu").tolist() == [1, 2]
    monkeypatch.setattr(torch.Tensor, "pin_memory", into_the_buffer)
    with pytest.raises(AssertionError, match=r"a pinned buffer changed .* begun at transfer\.py"):
        drawn(sampler)


@there
def test_fault_a_cpu_tensor_in_the_decode_step(sampler, monkeypatch):
    prepare = FastSampler.prepare

    def leave_one_behind(self, *sizes):
        prepare(self, *sizes)
        self.state.budget = self.state.budget.cpu()

    monkeypatch.setattr(FastSampler, "prepare", leave_one_behind)
    with pytest.raises(RuntimeError, match="at least two devices"):
        drawn(sampler)


@there
def test_fault_a_question_while_a_graph_is_recorded(sampler):
    sampler.nucleus = nucleus_of_few  # asks whether the few suffice
    with pytest.raises(CaptureError, match=r"nucleus\.py"):
        drawn(sampler, 0.6, 0.95)


@there
def test_fault_a_pinned_table_that_changes_too_early(sampler, monkeypatch):
    publish = PagedCache.publish

    def publish_and_go_on(self):
        publish(self)
        self.new_table[0, 0] += 1

    monkeypatch.setattr(PagedCache, "publish", publish_and_go_on)
    with pytest.raises(AssertionError, match=r"a pinned buffer changed .* begun at paged\.py"):
        drawn(sampler)


@there
def test_fault_flags_that_are_read_before_they_are_there(sampler, wanted, monkeypatch):
    """Without its wait the host takes slots for ended that are not, never sees others end, and changes the table of pages while it
    is copied."""
    rounds = []
    decode = FastSampler.decode

    def counted(self, schedule):
        rounds.append(1)
        if len(rounds) > 20:
            raise TimeoutError
        return decode(self, schedule)

    monkeypatch.setattr(FastSampler, "decode", counted)
    assert drawn(sampler) == wanted
    rounds.clear()
    monkeypatch.setattr(torch.cuda.Event, "synchronize", lambda self: None)
    try:
        right = drawn(sampler) == wanted
    except (TimeoutError, AssertionError) as fault:
        right = not (isinstance(fault, TimeoutError) or "a pinned buffer changed" in str(fault))
    assert not right


@there
def test_fault_a_wrong_page(sampler, wanted, monkeypatch):
    set_pages = PagedCache.set_pages

    def set_wrong_pages(self, slot, pages):
        set_pages(self, slot, pages)
        if len(pages) > 1:
            self.new_table[slot, 1] = pages[0]

    monkeypatch.setattr(PagedCache, "set_pages", set_wrong_pages)
    assert drawn(sampler) != wanted


@there
def test_fault_the_partial_page_is_not_copied(sampler, wanted, monkeypatch):
    monkeypatch.setattr(PagedCache, "begin", lambda self, slots: self.copies.clear())
    assert drawn(sampler) != wanted


@there
def test_fault_a_graph_of_another_way_to_draw(sampler):
    wanted = tokens_of(sample(tiny().requires_grad_(False), ASKED, 2, 14, 0.0, 1.0, **HOW))
    assert drawn(sampler, 0.0, 1.0) == wanted
    drawn(sampler)
    for key, graph in list(sampler.graphs.items()):
        if key[1] == 1.0:
            sampler.graphs[key[0], 0.0, 1.0, key[3]] = graph
    assert drawn(sampler, 0.0, 1.0) != wanted


@there
def test_fault_new_weights_that_are_not_put_in_place(sampler):
    """Graphs read the memory that they were recorded with."""
    other = tiny().requires_grad_(False)
    other.init_weights(7)
    wanted = tokens_of(sample(other, ASKED, 2, 14, **HOW))
    drawn(sampler)
    sampler.model = quick(other.cuda())
    assert drawn(sampler) != wanted
    sampler.graphs = {}
    assert drawn(sampler) == wanted
