"""The outside world, one file a piece. Only `daemon.py` names them."""
