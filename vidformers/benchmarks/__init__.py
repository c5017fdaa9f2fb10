"""What `tools/benchmark.py` measures: a module a sub-command, and what they share."""
