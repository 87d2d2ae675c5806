"""The embedded model: tokenizer, training, its card, and the lm-eval tasks of its world."""
