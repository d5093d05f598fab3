"""Rewards of one's own that are none: (source of reward.py, whether it is a sound one)."""

REWARDS = {
    "none": ("def score(response, problem):\n    return None\n", False),
    "text": ("def score(response, problem):\n    return '1'\n", False),
    "nan": ("def score(response, problem):\n    return float('nan')\n", False),
    "infinite": ("def score(response, problem):\n    return 1e400\n", False),
    "beyond float32": ("def score(response, problem):\n    return 1e39\n", False),
    "complex": ("def score(response, problem):\n    return 1j\n", False),
    "list": ("def score(response, problem):\n    return [1.0]\n", False),
    "bool": ("def score(response, problem):\n    return len(response) > 3\n", True),
    "int": ("def score(response, problem):\n    return 10**400\n", False),
    "numpy": ("import numpy\ndef score(response, problem):\n    return numpy.float32(0.5)\n", True),
    "tensor": ("import torch\ndef score(response, problem):\n    return torch.tensor(0.5)\n", True),
    "async": ("async def score(response, problem):\n    return 1.0\n", False),
    "generator": ("def score(response, problem):\n    yield 1.0\n", False),
    "builtin": ("score = len\n", False),
    "builtin of two": ("score = isinstance\n", False),
    "class": ("class score:\n    def __init__(self, response, problem):\n        pass\n", False),
    "no function": ("score = 3\n", False),
    "another name": ("def reward(response, problem):\n    return 1.0\n", False),
    "one argument": ("def score(response):\n    return 1.0\n", False),
    "keywords": ("def score(*, response, problem):\n    return 1.0\n", False),
    "star": ("def score(*both):\n    return 1.0\n", True),
    "raises": ("def score(response, problem):\n    raise ValueError('two\\nlines')\n", False),
    "exits": ("import sys\ndef score(response, problem):\n    sys.exit(0)\n", False),
    "exits at import": ("import sys\nsys.exit(0)\n", False),
    "quits at import": ("quit()\n", False),
    "raises at import": ("raise RuntimeError('no')\n", False),
    "imports nothing": ("import no_such_module\n", False),
    "recursion": ("def score(response, problem):\n    return score(response, problem)\n", False),
    "stops": ("def score(response, problem):\n    raise StopIteration\n", False),
    "unspeakable": (
        "class E(Exception):\n    def __str__(self):\n        raise E\n"
        "def score(response, problem):\n    raise E\n",
        False,
    ),
    "later none": (
        "calls = []\ndef score(response, problem):\n    calls.append(1)\n"
        "    return 1.0 if len(calls) < 3 else None\n",
        False,
    ),
    "later raises": (
        "calls = []\ndef score(response, problem):\n    calls.append(1)\n"
        "    return 1.0 / (3 - len(calls))\n",
        False,
    ),
    "later exits": (
        "import sys\ncalls = []\ndef score(response, problem):\n    calls.append(1)\n"
        "    return 1.0 if len(calls) < 3 else sys.exit()\n",
        False,
    ),
    "not text": (b"\xff\xfe\x00", False),
    "empty": ("", False),
    "prints": ("def score(response, problem):\n    print('seen')\n    return 0.5\n", True),
    "changes directory": (
        "import os\ndef score(response, problem):\n    os.chdir('/')\n    return 0.5\n",
        True,
    ),
}
