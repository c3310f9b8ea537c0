"""Between chat completions and OpenAI's Responses."""
