"""How well the package does what it exists for, measured.

``python -m benchmarks`` runs all and writes RESULTS.md, ``python -m benchmarks.NAME`` one. Each is
a module whose ``main(argv)`` is `command.run` of a function that gives a `figures.Result`.
"""
