"""A problem and its tests, readers for public formats, conditional statements, splits and leakage.

Nothing here runs a program or imports torch.
"""
