"""The problems that ship: a seeded generator that composes them from a stock of parts, and its output.

Nothing here is part of the library. `python -m examples.generate` writes `examples/problems.jsonl`.
"""
