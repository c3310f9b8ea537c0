"""Earlier answers, over an injected store and clock."""
