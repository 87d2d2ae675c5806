"""Better settings, looked for on validation prompts."""
