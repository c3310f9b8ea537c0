"""The shapes that travel, and their translation to our types. Pure."""
