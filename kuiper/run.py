"""The entry of one process: `python -m kuiper.run <run_dir> <rank> [resume] [ended]`.

Rank 0 says where it listens before anything slow is imported, so that the other processes
start while it still loads; so do those of its own pool. With `ended` it only tells the server, on another host,
that the process of that rank has failed for good (see cluster/agent.py).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import yaml

from kuiper.errors import KuiperError, RecordError
from kuiper.pool import Pool
from kuiper.record.atomic import write_json, write_reserved_json
from kuiper.record.log import bunyan_handler, bunyan_logger

LOCAL = "127.0.0.1"


def handed_over() -> socket.socket | None:
    """The socket on which the agent has bound this process's port; None where it has none."""
    number = os.environ.pop("KUIPER_LISTENER", None)
    if number is None:
        return None
    os.set_inheritable(int(number), False)
    return socket.socket(fileno=int(number))


def explain(error: BaseException, folder: Path, name: str) -> int:
    """Write error.json and the log's last words; the exit code."""
    known = error if isinstance(error, KuiperError) else None
    said = {"type": type(error).__name__, "message": known.message if known else str(error),
            "remedy": known.remedy if known else "see the traceback in the log", "node": name}
    words = f"{said['type']}: {said['message']}\n  -> {said['remedy']}"
    bunyan_logger(name, sys.stderr).critical("%s", words, exc_info=None if known else error)
    try:
        write_json(folder / "error.json", said)
    except RecordError:
        with suppress(RecordError):  # the exit code says that it failed
            write_reserved_json(folder / "error.json", said)
    return known.exit_code if known else 1


def leave() -> None:
    """End at once, as one who was asked to."""
    os._exit(143)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: leave())
    run_dir, rank = Path(sys.argv[1]), int(sys.argv[2])
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    name = config["processes"][rank]["name"]
    folder = run_dir / name
    if sys.argv[-1] == "ended":
        from kuiper.process import take_leave

        try:
            take_leave(config, run_dir, rank)
        except KuiperError as error:
            bunyan_logger(name, sys.stderr).info("the server was not told of the end, or knows it: %s", error.message)
        return 0
    try:
        listener = handed_over()
        if listener is not None and rank == 0:
            host, port = listener.getsockname()[:2]
            host = config["processes"][0]["host"] if host != LOCAL else host
            write_json(folder / "endpoint.json", {"host": host, "port": port})
        count = config["conf"]["pool"]
        pool = Pool(run_dir, rank, count) if count else None
        from kuiper.process import Process

        logging.getLogger("kuiper").addHandler(bunyan_handler(name, sys.stderr))
        attempt = int(os.environ.get("KUIPER_ATTEMPT", "0"))
        resume = sys.argv[3:] == ["resume"] and attempt == 0  # one that is started again later is a newcomer
        queued = "KUIPER_QUEUED" in os.environ
        process = Process(config, run_dir, rank, listener, resume, attempt, pool, queued)
        signal.signal(signal.SIGTERM, lambda *_: process.terminate(leave))
        with process.recorder:
            process.run()
    except BaseExceptionGroup as group:
        leaves = [group]
        while isinstance(leaves[0], BaseExceptionGroup):
            leaves = list(leaves[0].exceptions)
        return explain(leaves[0], folder, name)
    except Exception as error:
        return explain(error, folder, name)
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # daemon threads that wait on sockets must not hold up the end
