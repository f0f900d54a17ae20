"""Verdicts on runs: gates and comparisons, the results that they count, and their statistics."""
