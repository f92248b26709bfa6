"""Composition of the components into a pipeline, and the ways to compile and run it."""
