"""training_perf: what it holds, who can read it, and what reading it can never do."""

import collections
import io
import os
import pickle
import pickletools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kuiper.errors import RecordError
from kuiper.record import load_perf
from kuiper.record.atomic import write_bytes
from kuiper.record.perf import TrainingPerf, dump_perf

HEADER = {
    "data_set": "digits", "model": "mlp", "sample_mode": "all", "gradient_policy": "average", "task": "cv",
}  # fmt: skip


def perf_of(evaluations: int) -> TrainingPerf:
    perf = TrainingPerf(**HEADER, job_name="job", run_id="run", seed=1, config={"f": None, "ids": (1, 2)})
    for index in range(evaluations):
        perf.add(10 * index, 0.5 * index, 90.0, 99.0, 0.3, phases={"wait": 0.1}, bytes_in=7)
    return perf


def test_round_trip_has_exactly_the_keys_of_kuiper(tmp_path: Path) -> None:
    dump_perf(tmp_path / "training_perf", perf_of(2).as_dict())
    read = load_perf(tmp_path / "training_perf")
    assert read.keys() == {*HEADER, "perf", "format", "job_name", "run_id", "seed", "config", "diverged"}
    assert read["format"] == 2
    assert read["perf"][10] == {
        "round": 10, "clock": 0.5, "top_1: ": 90.0, "top_5: ": 99.0, "loss": 0.3,
        "phases": {"wait": 0.1}, "bytes_in": 7,
    }  # fmt: skip


def test_a_script_written_for_kuipers_pickles_reads_it(tmp_path: Path) -> None:
    dump_perf(tmp_path / "training_perf", perf_of(3).as_dict())
    script = (
        "import pickle, sys\n"
        "history = pickle.load(open(sys.argv[1], 'rb'))\n"
        "metric = {'cv': 'top_5: ', 'speech': 'top_1: ', 'nlp': 'loss'}[history['task']]\n"
        "rounds = [r for r in history['perf']]\n"
        "print(history['sample_mode'], [history['perf'][r]['clock'] / 3600. for r in rounds],\n"
        "      [history['perf'][r][metric] for r in rounds])\n"
    )
    command = [sys.executable, "-I", "-c", script, str(tmp_path / "training_perf")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.split()[0] == "all" and answer.stdout.count("99.0") == 3
    opcodes = pickletools.genops((tmp_path / "training_perf").read_bytes())
    assert max(opcode.proto for opcode, _, _ in opcodes) <= 4  # which Python 3.6 reads


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_an_older_file_with_an_ordered_dict_is_read_as_dicts(tmp_path: Path, protocol: int) -> None:
    older = {**HEADER, "perf": collections.OrderedDict({1: {"round": 1, "clock": 2.0, "top_1: ": 50.0}})}
    (tmp_path / "old").write_bytes(pickle.dumps(older, protocol=protocol))
    read = load_perf(tmp_path / "old")
    assert read == older and type(read["perf"]) is dict


class _Reduce:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("pwned",)


class _Persistent(pickle.Pickler):
    def persistent_id(self, obj: object) -> str | None:
        return "anything" if isinstance(obj, _Reduce) else None


def _persistent() -> bytes:
    file = io.BytesIO()
    _Persistent(file, protocol=4).dump(_Reduce())
    return file.getvalue()


HOSTILE = {
    "reduce, protocol 0": pickle.dumps(_Reduce(), protocol=0),
    "reduce, protocol 4": pickle.dumps({"perf": {1: _Reduce()}}, protocol=4),
    "global by name": b"cbuiltins\neval\n(S\"__import__('os').mkdir('pwned')\"\ntR.",
    "inst": b"(S'pwned'\nios\nmkdir\n.",
    "obj": b"(cos\nmkdir\nS'pwned'\no.",
    "stack global, dotted": b"\x80\x04\x8c\x0bcollections\x8c\x17OrderedDict.__class__\x93.",
    "the dict class itself": b"\x80\x02}U\x04perfccollections\nOrderedDict\ns.",
    "newobj": pickle.dumps(collections.Counter("ab"), protocol=2),
    "extension": b"\x80\x02\x82\x07.",
    "persistent id": _persistent(),
    "array": pickle.dumps({"perf": {1: np.zeros(3)}}),
    "not builtin containers": pickle.dumps({"perf": {1: {2, 3}}}, protocol=4),
    "a memo of 32 GB": b"\x80\x02}r\xff\xff\xff\x7f.",
    "truncated": pickle.dumps({"perf": {}}, protocol=4)[:-3],
    "text": b"round,clock\n1,2\n",
    "empty": b"",
    "no perf": pickle.dumps({"model": "mlp"}),
    "a list": pickle.dumps([1]),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_anything_else_is_refused_and_runs_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("training_perf").write_bytes(HOSTILE[kind])
    with pytest.raises(RecordError, match="training_perf"):
        load_perf(Path("training_perf"))
    assert os.listdir() == ["training_perf"]


def test_only_plain_builtins_are_written(tmp_path: Path) -> None:
    path = tmp_path / "training_perf"
    perf = perf_of(1).as_dict()
    for foreign in (np.float64(1), {1, 2}, b"bytes", Path("x"), collections.OrderedDict()):
        with pytest.raises(RecordError, match=r"\['perf'\]\[0\]\['extra'\]"):
            dump_perf(path, {**perf, "perf": {0: {"extra": foreign}}})
    assert not path.exists()


def test_the_builder_takes_array_scalars(tmp_path: Path) -> None:
    perf = perf_of(0)
    perf.add(np.int64(3), np.float32(1.5), np.float64(50), 60, 0.5, worst=np.float32(40))
    dump_perf(tmp_path / "training_perf", perf.as_dict())
    entry = load_perf(tmp_path / "training_perf")["perf"][3]
    assert type(entry["round"]) is int and type(entry["clock"]) is float and type(entry["worst"]) is float


def test_a_full_disk_leaves_the_earlier_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "training_perf"
    dump_perf(path, perf_of(2).as_dict())
    before = path.read_bytes()
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from kuiper.errors import RecordError\n"
        "from kuiper.record.atomic import write_bytes\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    write_bytes(Path(sys.argv[1]), b'x' * 10000)\n"
        "except RecordError as error:\n"
        "    assert sys.argv[1] in error.message and error.remedy\n"
        "    sys.exit(7)\n"
    )
    answer = subprocess.run([sys.executable, "-c", script, str(path)], cwd=Path(__file__).parents[2])
    assert answer.returncode == 7
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["training_perf"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="nowhere/file"):
        write_bytes(tmp_path / "nowhere" / "file", b"")
    with pytest.raises(RecordError, match="nowhere/training_perf"):
        load_perf(tmp_path / "nowhere" / "training_perf")


def test_mode_is_kept(tmp_path: Path) -> None:
    write_bytes(tmp_path / "key", b"secret", mode=0o600)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
