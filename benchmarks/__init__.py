"""Paired measurements, JSON out; nothing here is a test."""
