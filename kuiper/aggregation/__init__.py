"""Aggregation rules: of rows (n, d) and f declared Byzantine ones, one row (d,).

    rule = make({"ctma": {"base": "geometric_median"}}, f=5, pre=["nnm"])
    theta = rule(rows)
    rule.selected, rule.weights, rule.influence(byzantine=[20, 21])

Every rule is a pure function too, `multi_krum(rows, f, m=1)`, under its name in the file of its family.
Adding one is a function in a file here, a yaml in config/groups/aggregator, and a row in the table of
tests/laws/rules.py.
"""

from kuiper.aggregation.average import average, average_finite
from kuiper.aggregation.caf import caf, dnc
from kuiper.aggregation.clipping import arc, centered_clipping, clip
from kuiper.aggregation.clusters import clipped_clustering, fltrust, sign_majority, signguard
from kuiper.aggregation.conditions import upper_bound
from kuiper.aggregation.geometric_median import auto_gm, geometric_median
from kuiper.aggregation.krum import bulyan, multi_krum
from kuiper.aggregation.median import condense, meamed, median
from kuiper.aggregation.mixing import bucketing, nnm
from kuiper.aggregation.nearest import aksel, cge, ctma, monna
from kuiper.aggregation.rule import Rule, make, names, pre_names
from kuiper.aggregation.subsets import mda, mva, smea
from kuiper.aggregation.trimmed_mean import phocas, trimmed_mean

__all__ = [
    "Rule", "aksel", "arc", "auto_gm", "average", "average_finite", "bucketing", "bulyan", "caf",
    "centered_clipping", "cge", "clip", "clipped_clustering", "condense", "ctma", "dnc", "fltrust",
    "geometric_median", "make", "mda", "meamed", "median", "monna", "multi_krum", "mva", "names", "nnm",
    "phocas", "pre_names", "sign_majority", "signguard", "smea", "trimmed_mean", "upper_bound",
]  # fmt: skip
