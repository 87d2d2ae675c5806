"""The only room that loads models, finds their tokens and weights, and changes them for a while."""
