"""load_async(): a load that goes on while the program does."""

from __future__ import annotations

import _thread
import asyncio
import gc
import os
import signal
import threading
import time
from concurrent.futures import CancelledError
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from sample_tensors import assert_same

import veturboio
from fakes.slow_mount import NoMountError, SlowFs

TENSORS = {"a": torch.arange(2 << 20, dtype=torch.int32), "b": torch.randn(1000, 1000), "c": torch.ones(3)}
TOTAL = sum(tensor.nbytes for tensor in TENSORS.values())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    veturboio.save_file(TENSORS, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def far_model(model: Path):
    """One that takes some ten seconds to read by one thread."""
    with ExitStack() as mounts:
        try:
            far = mounts.enter_context(SlowFs(model.parent, delay_ms=5, mb_per_s=1))
        except NoMountError as error:
            pytest.skip(str(error))
        yield far


def native_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_the_result_is_that_of_load(model):
    job = veturboio.load_async(model)
    assert_same(job.result(), TENSORS)
    assert job.result() is job.result()
    assert job.done()
    assert job.cancel() is False
    progress = job.progress()
    assert progress[:2] == (TOTAL, TOTAL)
    assert progress.bytes_per_second > 0
    assert repr(job) == f"LoadJob({TOTAL} of {TOTAL} bytes, done)"
    assert_same(veturboio.load_async(model, names=["c"], mmap=True).result(), {"c": TENSORS["c"]})
    assert_same(veturboio.load_async(model.read_bytes(), num_thread=2).result(timeout=60), TENSORS)


def test_it_can_be_awaited(model):
    async def load():
        return await asyncio.gather(veturboio.load_async(model), veturboio.load_async(model, names=["b"]))

    both, one = asyncio.run(load())
    assert_same(both, TENSORS)
    assert_same(one, {"b": TENSORS["b"]})


def test_it_goes_on_when_nobody_waits_any_longer(far_model):
    job = veturboio.load_async(far_model / "model", num_thread=8)
    assert not job.done()
    with pytest.raises(TimeoutError, match=rf"not done after 0\.05 s: \d+ of {TOTAL} bytes, \d+\.\d MB/s"):
        job.result(timeout=0.05)
    assert_same(job.result(), TENSORS)


def test_it_can_be_cancelled(far_model):
    job = veturboio.load_async(far_model / "model", num_thread=1)
    assert job.cancel() is True
    with pytest.raises(CancelledError):
        job.result()
    assert job.done()
    assert job.progress().bytes_done < TOTAL


def test_a_task_that_is_cancelled_cancels_it(far_model):
    jobs = []

    async def wait_a_little():
        jobs.append(veturboio.load_async(far_model / "model", num_thread=1))
        await asyncio.wait_for(jobs[0], timeout=0.1)

    with pytest.raises((TimeoutError, asyncio.TimeoutError)):
        asyncio.run(wait_a_little())
    with pytest.raises(CancelledError):
        jobs[0].result()


def test_who_drops_it_does_not_wait_for_a_storage_that_does_not_answer(far_model):
    job = veturboio.load_async(far_model / "model", num_thread=1)
    with far_model.hanging():
        time.sleep(0.5)  # until its worker waits for an answer
        began = time.monotonic()
        del job
        assert time.monotonic() - began < 5
        assert [thread for thread in threading.enumerate() if thread.name == "veturboio-abandoned"]
    for thread in threading.enumerate():
        if thread.name == "veturboio-abandoned":
            thread.join(60)
            assert not thread.is_alive()


def test_who_drops_an_operators_job_does_not_wait_for_a_storage_that_does_not_answer(model, far_model):
    file = str(far_model / "model")
    num_threads = native_threads()
    job = torch.ops.veturbo.start_load(file, num_threads=1, use_direct_io=False)
    with far_model.hanging():
        opening = torch.ops.veturbo.start_open_model(file)
        time.sleep(0.5)  # until their workers wait for an answer
        began = time.monotonic()
        del job, opening
        assert time.monotonic() - began < 5
        assert native_threads() > num_threads
    deadline = time.monotonic() + 60
    while native_threads() > num_threads and time.monotonic() < deadline:
        time.sleep(0.1)
        veturboio.load(model)  # which lets go of what has come back
    assert native_threads() <= num_threads


def test_shared_memory_stays_while_threads_that_nobody_waits_for_may_write_to_it(model, far_model):
    def is_mapped() -> bool:
        return "/dev/shm/psm_" in Path("/proc/self/maps").read_text()

    assert not is_mapped()
    with ExitStack() as hanging:

        def interrupt() -> None:
            while not is_mapped():
                time.sleep(0.01)
            time.sleep(0.5)  # until its reader reads
            hanging.enter_context(far_model.hanging())
            time.sleep(2)  # until it waits for an answer
            _thread.interrupt_main()

        interrupted = threading.Thread(target=interrupt)
        interrupted.start()
        with pytest.raises(KeyboardInterrupt):
            veturboio.load_to_shmem(far_model / "model", num_thread=1)
        interrupted.join()
        gc.collect()
        assert is_mapped()
    deadline = time.monotonic() + 60
    while is_mapped() and time.monotonic() < deadline:
        time.sleep(0.1)
        veturboio.load(model)
    assert not is_mapped()


def test_a_forked_child_is_told_that_its_parents_job_does_not_go_on_there(far_model):
    job = veturboio.load_async(far_model / "model", num_thread=1, use_direct_io=False)
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # who waits for a thread of the parent waits for ever
        told = False
        try:
            job.result()
        except RuntimeError as error:
            told = "before the process was forked" in str(error)
        del job
        os._exit(0 if told else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert_same(job.result(), veturboio.load(far_model / "model"))


def test_errors_of_the_header_come_at_once_and_others_with_the_result(model):
    with pytest.raises(FileNotFoundError):
        veturboio.load_async(model.parent / "missing")
    with pytest.raises(ValueError, match="has no tensor named nope"):
        veturboio.load_async(model, names=["nope"])
    torch.save(TENSORS, model.parent / "model.pt")
    with pytest.raises(veturboio.FileFormatError, match="can only be loaded as a whole"):
        veturboio.load_async(model.parent / "model.pt")


def test_an_error_of_the_data_comes_with_the_result(far_model):
    job = veturboio.load_async(far_model / "model", num_thread=1)
    far_model.die()
    for _ in range(2):
        with pytest.raises(OSError, match="model"):
            job.result()


def reports_of(load):
    reports = []
    load(lambda done, total: reports.append((time.monotonic(), done, total)))
    return reports


@pytest.mark.parametrize("kind", ["safetensors", "torch", "state_dict"])
def test_progress_is_told_to_a_function(far_model, model, kind):
    if kind == "torch":
        torch.save(TENSORS, model.with_name("model.pt"))
    file = far_model / ("model.pt" if kind == "torch" else "model")
    options = {"state_dict": {name: torch.empty_like(tensor) for name, tensor in TENSORS.items()}} if kind == "state_dict" else {}
    reports = reports_of(lambda report: veturboio.load(file, progress=report, **options))
    times, done, total = zip(*reports, strict=True)
    assert list(done) == sorted(done)
    assert set(total) == {TOTAL}
    assert done[-1] == TOTAL
    assert len(reports) >= 3
    assert len(reports) <= 3 + 10 * (times[-1] - times[0]), "at most 10 times a second"


def test_an_exception_of_that_function_ends_the_load(far_model):
    def report(done, total):
        raise LookupError("enough")

    began = time.monotonic()
    with pytest.raises(LookupError, match="enough"):
        veturboio.load(far_model / "model", num_thread=1, progress=report)
    assert time.monotonic() - began < 10


def test_progress_is_shown_as_a_bar(model, capsys):
    assert_same(veturboio.load(model, progress=True), TENSORS)
    assert str(model) in capsys.readouterr().err
    veturboio.load(model)
    assert capsys.readouterr().err == ""
    with pytest.raises(TypeError, match="progress must be a bool or a function, not str"):
        veturboio.load(model, progress="yes")


def test_the_progress_of_a_save(tmp_path, capsys):
    reports = reports_of(lambda report: veturboio.save_file(TENSORS, tmp_path / "model", progress=report))
    assert reports[-1][1] == reports[-1][2] == (tmp_path / "model").stat().st_size
    veturboio.save_model(torch.nn.Linear(2, 2), tmp_path / "linear", progress=True)
    assert str(tmp_path / "linear") in capsys.readouterr().err


def test_a_slow_load_is_given_up_in_time(far_model):
    with pytest.raises(TimeoutError, match=r"model: not done after 2\.5 s, given up at \d+ of \d+ bytes: slow, not stalled: at"):
        veturboio.load(far_model / "model", num_thread=1, use_direct_io=False, timeout=2.5)


def test_a_stalled_load_is_given_up_in_time(far_model):
    began = time.monotonic()
    with ExitStack() as hanging:

        def stall(done, total):
            if done > 0 and not entered:
                entered.append(done)
                hanging.enter_context(far_model.hanging())

        entered: list[int] = []
        expected = rf"model: not done after 4 s, given up at \d+ of {TOTAL} bytes: stalled, none came in the last \d\.\d s"
        with pytest.raises(TimeoutError, match=expected):
            veturboio.load(far_model / "model", num_thread=4, use_direct_io=False, timeout=4, progress=stall)
        assert time.monotonic() - began < 30
        assert entered


def test_a_load_in_time_is_not_given_up(model):
    assert_same(veturboio.load(model, timeout=600), TENSORS)
    for timeout, error in ((-1, ValueError), (float("nan"), ValueError), ("5", TypeError), (True, TypeError)):
        with pytest.raises(error, match="timeout"):
            veturboio.load(model, timeout=timeout)


def test_a_load_that_does_not_fit_into_the_memory_it_may_use(model):
    assert_same(veturboio.load(model, max_host_bytes=TOTAL), TENSORS)
    largest = max(tensor.nbytes for tensor in TENSORS.values())
    assert_same(dict(veturboio.stream(model, max_host_bytes=largest)), TENSORS)
    assert_same(veturboio.load(model, max_host_bytes=0, mmap=True), TENSORS)
    targets = {name: torch.empty_like(tensor) for name, tensor in TENSORS.items()}
    assert veturboio.load(model, max_host_bytes=0, state_dict=targets) is targets
    for options in ({}, {"names": ["a"]}):
        with pytest.raises(MemoryError, match=r"this load needs \d+ bytes of the host's memory, and max_host_bytes is 1000:"):
            veturboio.load(model, max_host_bytes=1000, **options)
    assert_same(veturboio.load(model, max_host_bytes=1000, names=["c"]), {"c": TENSORS["c"]})
    for value, error in ((-1, ValueError), (1 << 63, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="max_host_bytes"):
            veturboio.load(model, max_host_bytes=value)
