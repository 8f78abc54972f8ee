"""Sweeps into folders: nothing is lost to a kill, a full disk or a damaged file, and the rows are always the same."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from mfuroof.errors import InputError, MfuroofWarning, OutputError, TableFormatError
from mfuroof.sweep import (
    Histogram,
    Pareto,
    Shard,
    Sweep,
    TopK,
    folder_state,
    merge_shards,
    reduce_sweep,
    sweep_batches,
    write_sweep,
)
from mfuroof.sweep.folder import read_journals

ROOT = Path(__file__).resolve().parents[1]
MODEL, GPU = "meta-llama/Llama-3.1-8B", "h100_sxm"
AXES = {"decode_batch": "1:8", "decode_context": "0:4096:+256", "prefill_new_tokens": "0,7,512"}
SMALL: dict[str, Any] = {"chunk_rows": 50, "partition_rows": 100}
KEPT = {
    "best": TopK("tokens_per_s_per_gpu", by=("tp_size", "decode_batch"), where="fits and step_time_ms <= 20"),
    "three": TopK("step_time_s", k=3, largest=False),
    "front": Pareto({"tokens_per_s_per_gpu": "max", "step_time_s": "min"}, by="tp_size"),
    "times": Histogram("step_time_s", [0.005, 0.01, 0.02], by=("bound",)),
}


def small(**changes: Any) -> Sweep:
    return Sweep(MODEL, GPU, **{"tp_size": "1,2", "cost": "constant_mfu", **AXES, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def rows(folder: Path) -> pa.Table:
    return ds.dataset(folder, format="parquet").to_table()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that was written in one go by one thread."""
    folder = tmp_path_factory.mktemp("whole") / "sweep"
    write_sweep(small(), folder, threads=1, **SMALL)
    return folder


# ---------------------------------------------------------------------------------------------------- rows


def test_partitions_are_the_rows_in_order(whole: Path) -> None:
    assert len(contents(whole)) == 8
    expected = pa.Table.from_batches(list(sweep_batches(small())))
    assert rows(whole).unify_dictionaries().combine_chunks() == expected.unify_dictionaries().combine_chunks()


def test_partitions_explain_themselves(whole: Path) -> None:
    schema = pq.read_schema(next(whole.glob("*.parquet")))
    for field in schema:
        assert set(field.metadata) >= {b"unit", b"meaning"}
    assert json.loads(schema.metadata[b"mfuroof.sweep"])["tp_size"] == [1, 2]


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_write_the_same_bytes(whole: Path, tmp_path: Path, threads: int) -> None:
    write_sweep(small(), tmp_path, threads=threads, **SMALL)
    assert contents(tmp_path) == contents(whole)


def test_summary_is_the_same_when_all_was_done_before(whole: Path) -> None:
    again = write_sweep(small(), whole, **SMALL)
    assert (again.partitions, again.partitions_done_before) == (8, 8)
    fresh = [case.to_dict() for case in write_sweep(small(), whole, restart=False, **SMALL).cases]
    from mfuroof.sweep import run_sweep

    assert [case.to_dict() for case in again.cases] == fresh == [c.to_dict() for c in run_sweep(small()).cases]


def test_shards_write_the_same_bytes_in_one_folder_or_several(whole: Path, tmp_path: Path) -> None:
    together, apart = tmp_path / "together", [tmp_path / f"s{i}" for i in (1, 2, 3)]
    for i in (3, 1, 2):
        summary = write_sweep(small(), together, shard=f"{i}/3", **SMALL)
        write_sweep(small(), apart[i - 1], shard=Shard(i, 3), **SMALL)
        assert summary.partitions == len(range(i - 1, 8, 3))
    assert contents(together) == contents(whole)
    assert folder_state(together).complete
    first = merge_shards(apart[:2], tmp_path / "merged")
    assert (first.complete, first.missing) == (False, (2, 5))
    assert merge_shards(apart, tmp_path / "merged").complete
    assert contents(tmp_path / "merged") == contents(whole)
    assert write_sweep(small(), tmp_path / "merged", **SMALL).partitions_done_before == 8


def test_progress_counts_what_was_done_before(whole: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_sweep(small(), tmp_path, progress=lambda *p: told.append(p), **SMALL)
    assert told[0] == (0, 816)
    assert told[-1] == (816, 816)
    write_sweep(small(), tmp_path, progress=lambda *p: told.append(p), **SMALL)
    assert told[-1] == told[-2] == (816, 816)


# ---------------------------------------------------------------------------------------------------- definition


@pytest.mark.parametrize(
    ("changes", "options", "says"),
    [
        ({"decode_batch": "1:9"}, {}, "decode_batch: 1,2,3,4,5,6,7,8 there, 1,2,3,4,5,6,7,8,9 here"),
        ({"tp_size": "1"}, {}, "tp_size: 1,2 there, 1 here"),
        ({"where": "decode_batch > 2"}, {}, "where"),
        ({"memory_utilization": 0.8}, {}, "memory_utilization: 0.9 there, 0.8 here"),
        ({}, {"detail": "times"}, "detail: bound there, times here"),
        ({}, {"partition_rows": 200}, "partition_rows"),
    ],
)
def test_a_changed_definition_is_refused(
    whole: Path, changes: dict[str, Any], options: dict[str, Any], says: str
) -> None:
    before = contents(whole)
    with pytest.raises(InputError, match="begin anew") as error:
        write_sweep(small(**changes), whole, **{**SMALL, **options})
    assert says in str(error.value)
    assert contents(whole) == before


@pytest.mark.slow
def test_changed_tables_are_refused(tmp_path: Path) -> None:
    import shutil

    tables = tmp_path / "h100_sxm"
    shutil.copytree(ROOT / "bench_data" / "h100_sxm", tables)
    for engine in ("sglang", "trtllm"):
        for path in tables.rglob(f"{engine}*"):
            path.unlink()
    write_sweep(small(cost="kernels", tables=tables), tmp_path / "out", **SMALL)
    path = tables / "norm" / "vllm.parquet" if (tables / "norm").is_dir() else next(tables.rglob("*.parquet"))
    pq.write_table(pq.read_table(path), path, compression="none")
    with pytest.raises(InputError, match="measured tables: 1 files changed"):
        write_sweep(small(cost="kernels", tables=tables), tmp_path / "out", **SMALL)


def test_restart_begins_anew(whole: Path, tmp_path: Path) -> None:
    write_sweep(small(decode_batch="1:4"), tmp_path, **SMALL)
    write_sweep(small(), tmp_path, restart=True, **SMALL)
    assert contents(tmp_path) == contents(whole)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    for restart in (False, True):
        with pytest.raises(InputError, match="files of something else"):
            write_sweep(small(), tmp_path, restart=restart, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(OutputError, match="it is a file"):
        write_sweep(small(), tmp_path / "mine.txt", **SMALL)
    with pytest.raises(OutputError, match="cannot be made a folder"):
        write_sweep(small(), tmp_path / "mine.txt" / "below", **SMALL)


def test_two_runs_at_once_are_refused(whole: Path) -> None:
    import fcntl

    with open(whole / "_lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another process"):
            write_sweep(small(), whole, **SMALL)
        write_sweep(small(), whole, shard="1/2", **SMALL)  # a shard has a lock of its own


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2", ""])
def test_shards_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="i/n"):
        Shard.parse(text)


def test_merging_what_does_not_belong_together(whole: Path, tmp_path: Path) -> None:
    write_sweep(small(decode_batch="1:4"), tmp_path / "other", **SMALL)
    with pytest.raises(InputError, match="decode_batch"):
        merge_shards([whole, tmp_path / "other"], tmp_path / "merged")
    with pytest.raises(InputError, match="no _manifest"):
        merge_shards([tmp_path], tmp_path / "merged")
    (tmp_path / "other" / "_manifest.json").write_text("{")
    with pytest.raises(TableFormatError, match="damaged"):
        folder_state(tmp_path / "other")


# ---------------------------------------------------------------------------------------------------- damage


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def overwritten(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [truncated, emptied, flipped, overwritten, Path.unlink])
def test_a_damaged_partition_is_done_again(whole: Path, tmp_path: Path, damage: Any) -> None:
    write_sweep(small(), tmp_path, **SMALL)
    damage(tmp_path / "part-00000003.parquet")
    assert folder_state(tmp_path).damaged == (3,)
    assert write_sweep(small(), tmp_path, **SMALL).partitions_done_before == 7
    assert contents(tmp_path) == contents(whole)


def test_a_flip_with_the_old_time_stamp_is_found_when_asked(whole: Path, tmp_path: Path) -> None:
    write_sweep(small(), tmp_path, **SMALL)
    path = tmp_path / "part-00000003.parquet"
    stat = path.stat()
    flipped(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert write_sweep(small(), tmp_path, **SMALL).partitions_done_before == 8
    assert write_sweep(small(), tmp_path, verify=True, **SMALL).partitions_done_before == 7
    assert contents(tmp_path) == contents(whole)


def test_a_copied_folder_goes_on(whole: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(whole, tmp_path / "copy", copy_function=shutil.copyfile)  # new time stamps
    assert write_sweep(small(), tmp_path / "copy", **SMALL).partitions_done_before == 8


@pytest.mark.parametrize("keep", [0, 1, 40, -1, -40])
def test_a_torn_journal_goes_on(whole: Path, tmp_path: Path, keep: int) -> None:
    write_sweep(small(), tmp_path, **SMALL)
    journal = tmp_path / "_journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:keep])
    done = len(read_journals(tmp_path))
    assert write_sweep(small(), tmp_path, **SMALL).partitions_done_before == done
    assert contents(tmp_path) == contents(whole)
    assert len(read_journals(tmp_path)) == 8


# ---------------------------------------------------------------------------------------------------- full disk


def test_a_full_disk_keeps_what_is_done(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = 3
    fsync = os.fsync

    def full(descriptor: int) -> None:
        nonlocal left
        if "part-" in os.readlink(f"/proc/self/fd/{descriptor}"):
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"No space left on device.*3 of 8 partitions are kept.*same command"):
        write_sweep(small(), tmp_path, threads=1, **SMALL)
    assert len(contents(tmp_path)) == 3
    assert not list(tmp_path.glob(".part*"))
    monkeypatch.undo()
    assert write_sweep(small(), tmp_path, **SMALL).partitions_done_before == 3
    assert contents(tmp_path) == contents(whole)


@pytest.mark.parametrize("after", [0, 2])
def test_a_journal_that_cannot_be_written(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    write, lines = os.write, 0

    def full(descriptor: int, line: bytes) -> int:
        nonlocal lines
        lines += 1
        return write(descriptor, line if lines <= after else line[:10])

    monkeypatch.setattr("mfuroof.sweep.folder.os.write", full)
    with pytest.raises(OutputError, match=r"_journal.*No space left"):
        write_sweep(small(), tmp_path, threads=1, **SMALL)
    monkeypatch.undo()
    assert write_sweep(small(), tmp_path, **SMALL).partitions_done_before == after
    assert contents(tmp_path) == contents(whole)


RUN = """
    import os, sys, time
    fsync = os.fsync
    os.fsync = lambda descriptor: (time.sleep(0.05), fsync(descriptor))  # a slow disk: the sweep takes 0.4 s or more
    sys.path.insert(0, {tests!r})
    from test_sweep_resume import KEPT, SMALL, small
    from mfuroof.errors import OutputError
    from mfuroof.sweep import reduce_sweep, reduced, write_sweep
    reduced.CHECKPOINT_S = 0.0
    if sys.argv[3:]:
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
    print("ready", flush=True)
    try:
        if sys.argv[1] == "write":
            write_sweep(small(), sys.argv[2], threads=1, **SMALL)
        else:
            reduce_sweep(small(), KEPT, sys.argv[2], threads=1, **SMALL)
    except OutputError as error:
        print(error, file=sys.stderr)
        sys.exit(4)
"""


def started(kind: str, folder: Path, *limit: str) -> subprocess.Popen[str]:
    program = textwrap.dedent(RUN).format(tests=str(ROOT / "tests"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", program, kind, str(folder), *limit],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def killed_at_random(kind: str, folder: Path, times: int, longest_s: float) -> int:
    """Run a sweep, kill it after a random while, again and again; return how often it was alive then."""
    chance, hit = random.Random(1), 0
    for _ in range(times):
        process = started(kind, folder)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.0, longest_s))
        hit += process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    return hit


@pytest.mark.slow
def test_a_limited_file_size_keeps_the_rest_going(whole: Path, tmp_path: Path) -> None:
    process = started("write", tmp_path / "out", "5000")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 4, errors
    assert "the same command" in errors
    assert "Traceback" not in errors
    write_sweep(small(), tmp_path / "out", **SMALL)
    assert contents(tmp_path / "out") == contents(whole)


def test_a_killed_process_loses_nothing(whole: Path, tmp_path: Path) -> None:
    assert killed_at_random("write", tmp_path / "out", 1, 0.35) == 1
    write_sweep(small(), tmp_path / "out", **SMALL)
    assert contents(tmp_path / "out") == contents(whole)
    assert not list((tmp_path / "out").glob(".part*"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["write", "reduce"])
def test_processes_killed_at_random_times_lose_nothing(whole: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "out"
    assert killed_at_random(kind, folder, 6, 0.5) > 0
    if kind == "write":
        write_sweep(small(), folder, **SMALL)
        assert contents(folder) == contents(whole)
    else:
        assert reduce_sweep(small(), KEPT, folder, **SMALL).tables == reduce_sweep(small(), KEPT, **SMALL).tables


# ---------------------------------------------------------------------------------------------------- reductions


@pytest.fixture(scope="module")
def kept() -> dict[str, pa.Table]:
    """What reductions give in one go, by one thread, without a folder."""
    return dict(reduce_sweep(small(), KEPT, threads=1, chunk_rows=50, partition_rows=100).tables)


def test_reductions_are_the_same_by_threads_chunks_and_shards(kept: dict[str, pa.Table], tmp_path: Path) -> None:
    assert reduce_sweep(small(), KEPT, threads=3, chunk_rows=17, partition_rows=60).tables == kept
    assert reduce_sweep(small(), KEPT).tables == kept
    for i in (2, 1):
        reduce_sweep(small(), KEPT, tmp_path / "one", shard=f"{i}/2", **SMALL)
        reduce_sweep(small(), KEPT, tmp_path / str(i), shard=f"{i}/2", **SMALL)
    assert reduce_sweep(small(), KEPT, tmp_path / "one", **SMALL).summary.partitions_done_before == 8
    assert merge_shards([tmp_path / "2", tmp_path / "1"], tmp_path / "merged").complete
    for folder in ("one", "merged"):
        assert {name: pq.read_table(tmp_path / folder / f"{name}.parquet") for name in KEPT} == kept


def test_reductions_go_on_from_a_checkpoint(
    kept: dict[str, pa.Table], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mfuroof.sweep.reduced.CHECKPOINT_S", 0.0)

    def stop(done: int, total: int) -> None:
        if done >= total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reduce_sweep(small(), KEPT, tmp_path, threads=1, progress=stop, **SMALL)
    again = reduce_sweep(small(), KEPT, tmp_path, **SMALL)
    assert 0 < again.summary.partitions_done_before < 8
    assert again.tables == kept
    summaries = [case.to_dict() for case in again.summary.cases]
    assert summaries == [case.to_dict() for case in reduce_sweep(small(), KEPT).summary.cases]


@pytest.mark.parametrize("damage", [truncated, flipped])
def test_a_damaged_checkpoint_is_done_again(kept: dict[str, pa.Table], tmp_path: Path, damage: Any) -> None:
    reduce_sweep(small(), KEPT, tmp_path, **SMALL)
    damage(tmp_path / "_checkpoint.bin")
    again = reduce_sweep(small(), KEPT, tmp_path, **SMALL)
    assert again.summary.partitions_done_before == 0
    assert again.tables == kept


def test_a_changed_reduction_is_refused(tmp_path: Path) -> None:
    reduce_sweep(small(), KEPT["best"], tmp_path, **SMALL)
    with pytest.raises(InputError, match="reductions"):
        reduce_sweep(small(), KEPT["three"], tmp_path, **SMALL)
    with pytest.raises(InputError, match="kind: reduction there, dataset here"):
        write_sweep(small(), tmp_path, **SMALL)


def test_infeasible_rows_are_kept_with_a_reason_or_dropped(tmp_path: Path) -> None:
    sweep = Sweep("meta-llama/Llama-3.1-70B", GPU, "1,3,8", **{**AXES, "decode_context": "0,100000"})
    with pytest.warns(MfuroofWarning, match=r"tp1: needs 131\.4 GiB|tp3: tp_size"):
        write_sweep(sweep, tmp_path / "keep", **SMALL)
    kept = rows(tmp_path / "keep").to_pylist()
    assert len(kept) == 3 * 48
    for row in kept:
        alone = row["tp_size"] == 1
        assert (row["step_time_s"] is None) == (row["tp_size"] == 3)
        assert ("131.4 GiB" in (row["reason"] or "")) == alone
        assert row["fits"] is None or row["fits"] == (row["reason"] is None)
    with pytest.warns(MfuroofWarning, match="left out"):
        dropped = write_sweep(sweep, tmp_path / "drop", infeasible="drop", **SMALL)
    assert rows(tmp_path / "drop").to_pylist() == [row for row in kept if row["reason"] is None]
    assert ["131.4 GiB" in case.reason for case in dropped.cases] == [True, False, False]
    again = write_sweep(sweep, tmp_path / "drop", infeasible="drop", **SMALL)
    assert [case.to_dict() for case in again.cases] == [case.to_dict() for case in dropped.cases]
