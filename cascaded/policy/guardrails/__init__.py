"""Guardrails: what is looked for in prompts and answers, and what happens then. Pure."""
