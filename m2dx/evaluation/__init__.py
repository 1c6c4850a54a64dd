"""Scores of frozen encoders on labelled tasks."""
