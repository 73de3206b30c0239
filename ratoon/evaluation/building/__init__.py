"""Benchmarks made from held-out documents without a language model."""
