"""Faults: what strangers, disks and power cuts do to the commands, and what comes of it.

    python -m tests.faults                       # a short round of everything, two minutes
    python -m tests.faults --kills 20            # 20 of each stage
    python -m tests.faults --mutations 2000      # over all formats
    python -m tests.faults --rounds 10 --workers 2
    python -m tests.faults --mutations 1 --only manifest --seed 7     # one trial again

--kills      Each stage is stopped: by kill -9, SIGTERM or Ctrl-C, between any two operations on
             files, within a write, at some size of a file, or after some time. Then the same
             command runs to its end. Weights, facts, logs and result rows have to be those of a run
             that nothing disturbed, and no other file may be there.
--disks      Each stage meets a full disk in any of its writes. One line names the file, no .tmp
             stays, and the same command finishes when there is space. --tmpfs does it with a real
             disk that is too small.
--twins      Each stage is started twice at once, in one folder. The second waits or refuses.
--flags      Every flag of every stage gets values that make no sense. One line, or finite results.
--mutations  A file of any format is damaged, in its bytes or in one of its values, and a command
             that reads it runs. It says in one line which file is wrong, or does its work. Never a
             traceback, never for ever, never another result in silence (mutations.py says exactly
             what counts as that).

A trial is drawn from its part, its name and its seed, and is always the same; what is bad is printed
with the command that repeats it. The exit status is 1 if anything is bad.

How it works: this process imports the project once, makes models of 25,000 weights and a small
world to train in (small.py), and forks a child for each command (children.py), which then takes
tenths of a second. Faults are put into the child's operations on files (operations.py). It needs
Linux, and neither a network nor a GPU.
"""
