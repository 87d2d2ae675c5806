"""What is asked of a model, filled in before the edit: answers, neighbours, look-alikes, prompt variants, targets."""
