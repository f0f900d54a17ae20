"""How well the package does what it exists for, measured: ``python -m benchmarks.NAME``."""
