"""kuiper collect: bring a job's results here."""

from __future__ import annotations

from kuiper.cli.options import AsJson, JobKey, Quiet, Verbose


def collect(job: JobKey, as_json: AsJson = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Bring training_perf, logs and metrics of a job from its hosts; checked, whole, safe to repeat."""
    from kuiper.cli.show import fail, print_json, short
    from kuiper.cluster.collect import collect as collect_job
    from kuiper.cluster.store import find
    from kuiper.errors import KuiperError, PartlyDone
    from kuiper.record.perf import load_perf

    jobs = find(job)
    found = [(one, each) for one in jobs for each in collect_job(one)]
    failures = [each.failure for _, each in found if each.failure]
    for one in jobs:
        perf = one.paths.process(one.processes[0].name).training_perf
        try:
            if perf.exists():
                load_perf(perf)
        except KuiperError as error:
            failures.append(f"{perf}: {error.message}")
    if as_json:
        print_json([{"run_id": one.run_id, "host": each.host, "files": [str(path) for path in each.files],
                     "bytes": each.bytes, "failure": each.failure} for one, each in found])
    elif not quiet:
        for one, each in found:
            print(f"{one.job_name} {one.run_id}  {each.host}: {len(each.files)} files, {each.bytes} bytes")
        for one in jobs:
            print(f"  {short(one.run_dir)}")
    if failures:
        remedy = "collect again when that is mended: what is here stays"
        fail(PartlyDone("; ".join(failures), remedy), as_json)
