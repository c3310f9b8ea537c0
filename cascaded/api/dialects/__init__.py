"""The languages that callers speak, one file each."""
