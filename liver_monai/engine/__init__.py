"""What runs: training, inference, evaluation."""
