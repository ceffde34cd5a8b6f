"""kuiper trust: see the hosts' keys, and take them as theirs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kuiper.cli.options import AsJson, Override, Quiet, Servers, SpecFile, Verbose, Workers


def trust(
    path: SpecFile,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept without asking.")] = False,
    override: Override = [],  # noqa: B006 - Typer copies it
    servers: Servers = None,
    workers: Workers = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show the fingerprints of a spec's hosts, and add those that are not known to kuiper's known_hosts.

    A key that has changed is shown and refused: remove the old one by hand once you know why.
    """
    from kuiper.cli.show import fail, print_json
    from kuiper.cluster.spec import load
    from kuiper.cluster.trust import accept, shown_by_all
    from kuiper.errors import HostError

    found, failures = shown_by_all(load(path, override, servers=servers, workers=workers))
    if not as_json and not quiet:
        for one in found:
            print(f"{one.entry:<28} {one.fingerprint}  {TEXT[one.known]}")
    new = [one for one in found if one.known == "no"]
    accepted = yes or bool(new) and sys.stdin.isatty() and typer.confirm(f"accept {len(new)} new keys?")
    for one in new if accepted else ():
        accept(one)
    if as_json:
        print_json([{"host": one.host, "entry": one.entry, "fingerprint": one.fingerprint, "known": one.known,
                     "accepted": accepted and one.known == "no"} for one in found])
    elif new and not accepted:
        print("nothing was accepted: compare the fingerprints, then use --yes", file=sys.stderr)
    changed = [one.entry for one in found if one.known == "changed"]
    if changed:
        failures.append(f"the key of {', '.join(changed)} is not the one on record")
    if failures or new and not accepted:
        fail(HostError("; ".join(failures) or f"{len(new)} hosts are not trusted",
                       "see that the hosts are up and are who they should be"), as_json)


TEXT = {"yes": "known", "no": "new", "changed": "CHANGED: another one is on record"}
