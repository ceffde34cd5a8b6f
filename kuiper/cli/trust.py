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
    """Show the fingerprints of a spec's hosts and of their jump hosts, and add those that are not known.

    They go to kuiper's known_hosts. A key that has changed or is revoked is shown and refused: remove the old one by
    hand once you know why. Hosts behind a jump host are asked once that one is trusted.
    """
    from kuiper.cli.show import fail, print_json
    from kuiper.cluster.spec import load
    from kuiper.cluster.trust import Shown, accept, shown_by_all
    from kuiper.errors import HostError

    spec = load(path, override, servers=servers, workers=workers)
    told: dict[Shown, bool] = {}  # key -> whether it was accepted
    while True:
        found, failures, behind = shown_by_all(spec)
        # what was accepted a moment ago is known now
        found = [one for one in found if (one.entry, one.key) not in {(old.entry, old.key) for old in told}]
        if not as_json and not quiet:
            for one in found:
                print(f"{one.entry:<28} {one.fingerprint}  {TEXT[one.known]}")
        new = [one for one in found if one.known == "no"]
        accepted = yes or bool(new) and sys.stdin.isatty() and typer.confirm(f"accept {len(new)} new keys?")
        for one in new if accepted else ():
            accept(one)
        told |= {one: accepted and one in new for one in found}
        if not (behind and new and accepted):
            break
    refused = [one for one in told if one.known == "no" and not told[one]]
    if as_json:
        print_json([{"host": one.host, "entry": one.entry, "fingerprint": one.fingerprint, "known": one.known,
                     "accepted": done} for one, done in told.items()])
    elif refused:
        print("nothing was accepted: compare the fingerprints, then use --yes", file=sys.stderr)
    for known, wrong in (("changed", "is not the one on record"), ("revoked", "is revoked")):
        failures += [f"the key of {one.entry} {wrong}: {one.where}" for one in told if one.known == known]
    if behind:
        failures.append(f"{', '.join(behind)}: not asked: behind a jump host that is not trusted yet")
    if failures or refused:
        fail(HostError("; ".join(failures) or f"{len(refused)} hosts are not trusted",
                       "see that the hosts are up and are who they should be"), as_json)


TEXT = {"yes": "known", "no": "new", "changed": "CHANGED: another one is on record", "revoked": "REVOKED"}
