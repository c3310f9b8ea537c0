"""Models that run on this machine, without a key: each in a child process on a socket of its own.

`provider` answers calls, and `child` is what runs in the process.
"""
