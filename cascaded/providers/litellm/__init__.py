"""Whatever LiteLLM reaches, through a process of its own.

Its import takes seconds and 150 MB, so it never happens in the daemon. `provider` answers calls,
and `worker` is what runs in the process.
"""
