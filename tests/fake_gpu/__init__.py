"""A GPU that is not there, for shapes at size: tensors on "cuda" that have no numbers.

    python -m tests.fake_gpu                        all scenes, full size, as a table
    python -m tests.fake_gpu decode --preset 1B     one of them
    python -m tests.fake_gpu pretrain --preset 4B --gpus 8 --layers 4

Where tests/pretend_gpu computes small models, this one computes nothing: whatever is on "cuda" has
a shape, a type and strides, and a model of 4B weights takes a step in seconds. What it shows:

  - torch.compile goes its whole way, down to Triton kernels that are assembled for an H100: graph
    breaks, and each time that something is compiled again
  - where the host asks the device for a number, or waits for a copy
  - which kernels run, how many bytes each reads and writes, and the peak of live memory

It takes g++ and triton. It says nothing about time, about numbers, or about what an allocator
loses between the tensors. What the host asks of the device is answered with ones.

    device.py     the tensors, torch.cuda, and what waits
    compiler.py   torch.compile for a GPU that is not there
    meter.py      kernels, bytes, live memory
    operators.py  operators that only a GPU has kernels of its own for
    scenes.py     a step of training, an RL update, decoding: the program's own functions at size
    table.py      the scenes as rows and as a table
    bandwidth.py  from the kernels of a decode step to the share of the bandwidth that is expected
"""
