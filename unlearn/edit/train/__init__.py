"""Trained: inside the null space, or as a baseline to compare with."""
