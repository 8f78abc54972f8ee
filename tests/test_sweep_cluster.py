"""The same sweep on a Dask cluster: the same bytes, also when a worker dies in the middle."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mfuroof.errors import InputError, OutputError
from mfuroof.sweep import Sweep, TopK, reduce_sweep, write_sweep
from mfuroof.sweep.cluster import connected, local_cluster

MODEL, GPU = "meta-llama/Llama-3.1-8B", "h100_sxm"
SMALL: dict[str, Any] = {"chunk_rows": 200, "partition_rows": 400}


def sweep() -> Sweep:
    return Sweep(MODEL, GPU, "1,2,4", decode_batch="1:20", decode_context="0:4096:+256", prefill_new_tokens="0,7,512")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def test_without_dask_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'mfuroof\[dask\]'"), local_cluster(1):
        pass
    with pytest.raises(InputError, match="at least 1"), local_cluster(0):
        pass


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    pytest.importorskip("distributed", reason="needs the extra dask")
    with local_cluster(2) as client:
        yield client


pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.mark.slow
def test_a_cluster_writes_the_same_bytes(client: Any, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    here = write_sweep(sweep(), tmp_path / "here", **SMALL)
    there = write_sweep(sweep(), tmp_path / "there", cluster=client, progress=lambda *p: told.append(p), **SMALL)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert [case.to_dict() for case in there.cases] == [case.to_dict() for case in here.cases]
    assert told[-1] == (here.rows, here.rows)
    best = TopK("tokens_per_s_per_gpu", by=("tp_size", "decode_batch"), k=2)
    assert reduce_sweep(sweep(), best, cluster=client, **SMALL).tables == reduce_sweep(sweep(), best).tables


@pytest.mark.slow
def test_a_worker_that_dies_in_the_middle_loses_nothing(client: Any, tmp_path: Path) -> None:
    write_sweep(sweep(), tmp_path / "here", **SMALL)
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if done > total // 4 and not killed:
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    summary = write_sweep(sweep(), tmp_path / "there", cluster=client, progress=kill, **SMALL)
    assert killed
    assert summary.partitions_done_before == 0
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert not list((tmp_path / "there").glob(".part*.parquet"))


@pytest.mark.slow
def test_an_interrupted_run_goes_on_elsewhere(client: Any, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > total // 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sweep(sweep(), tmp_path / "there", cluster=client, progress=stop, **SMALL)
    again = write_sweep(sweep(), tmp_path / "there", **SMALL)
    assert 0 < again.partitions_done_before < again.partitions
    write_sweep(sweep(), tmp_path / "here", **SMALL)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@pytest.mark.slow
def test_errors_of_workers_are_ours(client: Any, tmp_path: Path) -> None:
    folder = tmp_path / "there"

    def remove(done: int, total: int) -> None:
        if folder.exists() and done == 0:
            folder.rename(tmp_path / "gone")

    with pytest.raises(OutputError, match=r"there is no folder|partition|cannot write"):
        write_sweep(sweep(), folder, cluster=client, progress=remove, **SMALL)
    with pytest.raises(InputError, match=r"distributed\.Client"):
        write_sweep(sweep(), tmp_path / "x", cluster="tcp://127.0.0.1:1", **SMALL)


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer() -> None:
    pytest.importorskip("distributed", reason="needs the extra dask")
    for address in ("tcp://127.0.0.1:9", "nowhere"):
        with pytest.raises(InputError, match="scheduler"), connected(address, timeout_s=0.5):
            pass
