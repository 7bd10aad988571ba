"""One module per family of training methods; each builds the trainer that `gtft.training.fit` runs."""
