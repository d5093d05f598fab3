"""Python runs this at its start where this folder is in PYTHONPATH: the process has the pretended GPU."""

from tests.pretend_gpu import device

device.install()
