"""What is remembered, over an injected store and clock."""
