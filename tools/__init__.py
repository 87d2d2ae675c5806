"""What makes the shipped files: the embedded model, its evals and the demo scorer. Not part of the wheel."""
