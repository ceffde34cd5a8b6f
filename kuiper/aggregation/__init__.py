"""Aggregation rules: pure functions of (rows (n, d), f) that give one row (d,).

Adding one is a function in a file here, a yaml in config/groups/aggregator, and a row in the table of
tests/laws/test_rules.py.
"""

from kuiper.aggregation.average import average
from kuiper.aggregation.krum import multi_krum
from kuiper.aggregation.median import median
from kuiper.aggregation.trimmed_mean import trimmed_mean

__all__ = ["average", "median", "multi_krum", "trimmed_mean"]
