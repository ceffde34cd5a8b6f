"""The command line: one file per verb, imported only as far as the verb needs."""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit with its code."""
    from kuiper.cli.app import run

    run()
