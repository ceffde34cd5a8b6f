"""`rules` and `attacks`: what a spec can choose, from the table that everything else reads too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kuiper import registry
from kuiper.cli.options import AsJson, Quiet, Verbose
from kuiper.cli.show import console, print_json

RULE_COLUMNS = ("name", "needs", "cost", "breakdown", "source")
ATTACK_COLUMNS = ("name", "acts on", "what it sends", "source")


def rules(as_json: AsJson = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Show every aggregation rule and pre-aggregator: what it needs of n and f, cost, breakdown, source."""
    aggregators = [_rule(conf) for conf in registry.table("aggregator").values()]
    pres = [_rule(conf) for conf in registry.table("pre_aggregator").values()]
    if as_json:
        print_json({"aggregator": aggregators, "pre_aggregator": pres})
        return
    for title, found in (("aggregator", aggregators), ("pre_aggregator", pres)):
        rows = [[each[column] for column in RULE_COLUMNS] for each in found]
        _print(title, RULE_COLUMNS, rows)


def attacks(as_json: AsJson = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Show every attack: where it acts, what it sends, source."""
    found = [{"name": conf["_name_"], "acts on": _acts_on(conf), "what it sends": conf["_doc_"],
              "source": conf["_source_"], "parameters": _parameters(conf)}
             for conf in registry.table("attack").values()]
    if as_json:
        print_json(found)
        return
    _print("attack", ATTACK_COLUMNS, [[each[column] for column in ATTACK_COLUMNS] for each in found])


def _acts_on(conf: registry.Conf) -> str:
    return conf["_acts_on_"] + ", or own batches" * ("knowledge" in conf)


def _print(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in (title, *columns[1:]):
        table.add_column(column, overflow="fold", no_wrap=column == title)
    for row in rows:
        table.add_row(*row)
    console().print(table)


def _rule(conf: registry.Conf) -> dict[str, Any]:
    return {"name": conf["_name_"], "needs": registry.bound(conf), "cost": conf["_cost_"],
            "breakdown": conf["_breakdown_"], "source": conf["_source_"], "about": conf["_doc_"],
            "parameters": _parameters(conf)}


def _parameters(conf: registry.Conf) -> dict[str, Any]:
    return {name: value for name, value in conf.items() if not name.startswith("_")}
