"""The outside world, one file a piece. Only the composition root (`daemon/`) names them."""
