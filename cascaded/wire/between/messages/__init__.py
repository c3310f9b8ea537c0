"""Between chat completions and Anthropic's Messages."""
