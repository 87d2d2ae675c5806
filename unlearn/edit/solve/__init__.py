"""Solved for, in closed form: values are found, and written layer by layer (docs/equation.md)."""
