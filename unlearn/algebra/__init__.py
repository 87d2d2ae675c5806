"""The one equation of every closed-form editor, and the second moments of keys that it needs. Torch only."""
