"""The benchmark: one table, each figure beside something real that was measured in the same run. `python -m tests.bench --help`."""
