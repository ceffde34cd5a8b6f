"""kuiper init: a conf.yml to begin with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from kuiper.cli.options import AsJson, Quiet, Verbose

LOCAL = """\
# Trains on this machine; `check` says what it amounts to, `submit` runs it.
job_name: {name}
ps_ip: localhost                     # the server's host
worker_ips: [localhost:{processes}]            # processes that share the workers; localhost:[1,1]: one a GPU
log_path: logs                       # run directories: <log_path>/<job_name>/<run_id>
"""
CLUSTER = """\
# Trains on the hosts below. Edit their addresses and the user; then `doctor`, `trust`, `submit`.
job_name: {name}
ps_ip: 10.0.0.1                      # the server's host: its address as the workers see it
worker_ips: [10.0.0.2:2, 10.0.0.3:2] # host:2 is two processes, host:[1,1] one on each of two GPUs
# worker_ips: [{{host: 10.0.0.2, processes: 2, port: 2222, python: /opt/env/bin/python}}]
auth: {{ssh_user: me, ssh_private_key: ~/.ssh/id_ed25519}}
exp_path: ~/kuiper                   # on every host: code and run directories
log_path: logs                       # here: the record of each job, and what `collect` brings
# setup_commands: [source /opt/env/bin/activate]   # in the shell that starts python on a host
# secrets: [WANDB_API_KEY]           # names only; values come from your environment at submit
"""
COMMON = """\
limits: {{duration: 1h, grace: 30s}}   # ends it after an hour; from asking a process to end to killing it
on_failure: {{retry: 1}}               # a worker process that died is started again once
job_conf:
  algorithm: parameter_server        # all_reduce, elastic_gossip, gossiping_sgd, fedavg
  num_workers: {workers}
  aggregator: average                # a rule that survives liars: median, trimmed_mean, multi_krum
  num_byzantine: 0                   # how many of the workers attack
  # attack: sign_flip
  # f: 2                             # how many a rule is to expect; empty: num_byzantine
  dataset: digits                    # needs no download; mnist, cifar10, ... do
  partition: iid                     # {{dirichlet: {{alpha: 0.5}}}}: each worker with classes of its own
  model: {{mlp: {{hidden: [64]}}}}
  optimizer: {{sgd: {{lr: 0.05, momentum: 0.9}}}}
  batch_size: 32
  steps: 200                         # or epochs: 5
  eval_interval: 20
  # checkpoint_interval: 50          # what `resume` goes on from
  seed: 1                            # [1, 2, 3]: a job with each
"""


def init(
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="The file to write.")] = Path("conf.yml"),
    local: Annotated[
        int | None, typer.Option("--local", metavar="N", min=1, help="N processes on this machine.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a commented job spec to begin with: for a cluster, or with --local N for this machine.

    The job is called what the file is.
    """
    from kuiper.cli.show import note, print_json
    from kuiper.cluster.files import make_folder, write_new
    from kuiper.cluster.paths import check_job_name
    from kuiper.errors import ConflictError, SpecError, UsageError

    if path.is_dir():
        raise UsageError(f"{path} is a folder", f"name a file in it: `kuiper init {shlex.quote(f'{path}/conf.yml')}`")
    try:
        name = check_job_name(path.stem)
    except SpecError as error:
        raise UsageError(f"the job is called what the file is, and {error.message}", error.remedy) from error
    template = (CLUSTER if local is None else LOCAL) + COMMON
    text = template.format(name=name, processes=local, workers=max(8, 2 * (local or 0)))
    make_folder(path.absolute().parent)
    try:
        write_new(path, text.encode())
    except ConflictError as error:
        other = shlex.quote(str(path.with_stem(f"{path.stem}-2")))
        raise ConflictError(error.message, f"it stays as it is; write another: `kuiper init {other}`") from error
    if as_json:
        print_json({"path": str(path.absolute()), "job_name": name})
        return
    print(path)
    if not quiet:
        first = "edit its addresses, then" if local is None else "now"
        note(f"{first} `kuiper check {shlex.quote(str(path))}`")
