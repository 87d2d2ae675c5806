"""Attacks on a model that is said to have forgotten: what an adversary with its weights gets back.

Each attack is a row of `table.ATTACKS`: a function of a model state and a `Scene` that gives back an `Attacked`, and
what it is. It may change the state inside `scene.restored`, and never sees the unedited weights.
"""
