"""Verdicts on runs: gates, and the results of repeats that they count."""
