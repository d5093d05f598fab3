"""Tests run from the repository's root on small models; fp32, one thread, no network."""

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402

import model as M  # noqa: E402

torch.set_num_threads(1)


def tiny(vocab_size=50, **changes):
    """A model of a few thousand weights, sharp enough that argmax and sampling are not all ties."""
    config = replace(
        M.PRESETS["toy"], vocab_size=vocab_size, padded_vocab_size=vocab_size + 14, d_model=32, n_layers=2,
        d_ff=48, head_std=0.3, **{"n_heads": 4, "n_kv_heads": 4, **changes},
    )  # fmt: skip
    model = M.Transformer(config)
    model.init_weights(1)
    return model


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: needs a CUDA device; skipped without one")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def tiny_model():
    return tiny()


@pytest.fixture
def toy_model():
    """A fresh tiny model with the toy tokenizer's vocabulary."""
    from data.tokenizer import get_tokenizer

    return tiny(get_tokenizer("toy").n_vocab)


def quick(model, **flags):
    """The model with fast/ installed, as the commands have it."""
    import fast

    fast.install(model, **flags)
    return model


def command(script, *args, ranks=1):
    """script: "grpo.py", or "-m tools.difficulty"."""
    start = [sys.executable]
    if ranks > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    return [*start, *script.split(), *map(str, args)]


def run(script, *args, ranks=1, ok=True):
    done = subprocess.run(
        command(script, *args, ranks=ranks), cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert (done.returncode == 0) == ok, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@contextmanager
def fake_hub(answer, cache):
    """A local server in the hub's place -> the environment in which a command asks it.

    answer(method, path) -> (status, body, headers); a body that is not bytes goes out as JSON.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body, headers = answer(self.command, unquote(self.path.split("?")[0]))
            if not isinstance(body, bytes):
                body, headers = (
                    json.dumps(body).encode(),
                    {**headers, "Content-Type": "application/json"},
                )
            self.send_response(status)
            for key, value in {"Content-Length": len(body), **headers}.items():
                self.send_header(key, str(value))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET
        log_message = lambda *args: None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_XET": "1",
    }
    server.shutdown()
