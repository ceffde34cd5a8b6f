"""kuiper plot: accuracy against time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kuiper.cli.options import AsJson, JobKeys, Quiet, Verbose


def plot(
    jobs: JobKeys,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PNG")] = Path("accuracy.png"),
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw accuracy against time of one or several jobs."""
    from kuiper.cli.show import print_json
    from kuiper.cluster.store import find

    run_dirs = [find(job).run_dir for job in jobs]
    from kuiper.analysis.plot import plot_runs  # brings matplotlib

    plot_runs(run_dirs, output)
    if as_json:
        print_json({"output": str(output.absolute()), "run_dirs": [str(path) for path in run_dirs]})
    elif not quiet:
        print(output)
