"""Benchmarks: ``python -m wavecomp.benchmarks NAME`` prints a table and writes every single run as JSON."""
