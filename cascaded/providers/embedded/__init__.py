"""Models that run on this machine, without a key: each in a child process on a socket of its own.

`provider` answers calls, `supervisor` keeps a child alive, `process` is one child as the daemon
sees it, and `child` is what runs in it.
"""
