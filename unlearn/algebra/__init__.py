"""The one equation of every closed-form editor, the second moments of keys that it needs, and Muon. Torch only."""
