"""The Kubeflow contract of every step: typed inputs and outputs around one call of the library.

One folder a step: `component.py`, and generated from it `component.yaml` and the tables of `README.md`.
"""
