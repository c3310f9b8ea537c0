"""Child processes that answer in place of an upstream, each on a private Unix socket.

`supervisor` keeps one alive, `process` is one as the daemon sees it, `place` where it has its
things, and `life` what runs in it, beside what it is there for.
"""
