"""From file lists to batches of crops, log-mel spectrograms and noise."""
