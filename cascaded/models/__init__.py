"""Weights of the models that run on this machine: which they are, where they lie, how they come.

A wing of its own because two floors need it: the daemon (to start a model) and the command line
(`cascaded models`), which may not see adapters. It imports the ground and the standard library.
"""
