"""Between chat completions and Messages: what one of them says, said in the other. Pure."""
