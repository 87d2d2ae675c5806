"""Inputs by somebody who means harm, or whose disk does: each ends in a verdict or a sentence, and loses nothing."""
