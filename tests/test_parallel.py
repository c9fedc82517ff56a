"""Processes that help: who computes what, and what happens when one of them is lost."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info

from smartgrid_ai import parallel
from smartgrid_ai.parallel import (
    Job,
    every_core,
    on_free_cores,
    run_side_by_side,
    run_with_helpers,
)


def who(common: str, number: int, progress=None) -> tuple[str, int, int]:
    "What came, and which process it came to."
    if progress:
        progress(f"job {number}", 1, 1, "")
    time.sleep(0.2)
    return common, number, os.getpid()


def dies(parent: int, progress=None) -> str:
    "Done where it was asked for; a helper is killed by it."
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def fails(number: int, progress=None) -> None:
    "Nothing good."
    raise ValueError(f"job {number} is impossible")


def sleeps(number: int, progress=None) -> int:
    "The process that did it."
    time.sleep(0.5)
    return os.getpid()


def patient(stop: float, saves: float = parallel.GRACE + 1, progress=None) -> str:
    "A training that Ctrl-C ends early; what it has is saved for longer than its parent waits to hear of it."
    try:
        progress("begun", 1, 1, "")
        time.sleep(stop)
    except KeyboardInterrupt:
        time.sleep(saves)
        return "interrupted"
    return "whole"


def jobs_of(function: Callable, numbers: Iterable[int]) -> list[Job]:
    "One for each number."
    return [Job(str(number), function, (number,)) for number in numbers]


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(parallel, "cores", lambda: 2)


def test_a_free_core_is_used_and_the_results_are_in_order(two_cores):
    told, jobs = [], jobs_of(who, range(40))
    with every_core():
        found = run_with_helpers(jobs, ("all",), lambda *message: told.append(message))
    assert list(found) == [job.name for job in jobs]
    assert [number for _, number, _ in found.values()] == list(range(40))
    assert {common for common, _, _ in found.values()} == {"all"}
    here = [process == os.getpid() for _, _, process in found.values()]
    assert any(here) and not all(here)
    assert sorted(message[0] for message in told) == sorted(f"job {number}" for number in range(40))


def test_a_job_without_what_is_common_is_made_when_its_turn_comes(two_cores):
    made = []

    def jobs():
        for number in range(9):
            made.append(number)
            yield Job(str(number), who, ("own", number), shares=False)

    with every_core():
        found = run_with_helpers(jobs(), ("all",), last=lambda result: result[1] == 0)
    assert made in ([0], [0, 1]) and "0" in found
    assert {given for given, _, _ in found.values()} == {"own"}


def test_a_core_that_becomes_free_is_used_while_this_process_is_busy(two_cores):
    with every_core():
        free = parallel._given["free"]
        assert free.acquire()
        threading.Timer(1.0, free.release).start()
        jobs = [Job("long", patient, (20,)), *jobs_of(sleeps, range(3))]
        found = run_with_helpers(jobs, (), lambda *_: None)
    here = {name for name, process in found.items() if process == os.getpid()}
    assert found.pop("long") == "whole" and not here


@pytest.mark.parametrize("place", [1, 2])
def test_an_error_while_a_job_is_made_is_raised(two_cores, place):
    def jobs():
        yield from jobs_of(sleeps, range(place))
        raise ValueError("no such table")

    with every_core():
        with pytest.raises(ValueError, match="no such table"):
            run_with_helpers(jobs())
        assert parallel._given["free"].acquire(block=False)


def test_ctrl_c_while_a_job_is_made_keeps_what_is_done():
    def jobs():
        yield from jobs_of(who, [0])
        raise KeyboardInterrupt

    assert list(run_with_helpers(jobs(), ("all",))) == ["0"]


def test_ctrl_c_while_a_job_is_made_for_a_helper_keeps_what_is_done(two_cores):
    made = threading.Event()

    def jobs():
        yield from jobs_of(sleeps, [0])
        made.set()
        time.sleep(3)  # in the thread that gives out; the first job is done by then
        yield from jobs_of(sleeps, [1])

    def press() -> None:
        made.wait(20)
        time.sleep(1.5)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with every_core():
        found = run_with_helpers(jobs())
        assert parallel._given["free"].acquire(block=False)
    assert "0" in found


def test_nobody_is_asked_without_leave(two_cores):
    found = run_with_helpers(jobs_of(who, [1, 2]), ("all",))
    assert {process for _, _, process in found.values()} == {os.getpid()}


def test_large_data_stay_here(two_cores):
    with every_core():
        found = run_with_helpers(jobs_of(who, [1, 2]), ("all",), size=float("inf"))
    assert {process for _, _, process in found.values()} == {os.getpid()}


def test_what_a_killed_helper_leaves_is_done_here(two_cores):
    with every_core():
        found = run_with_helpers([Job(name, dies, (os.getpid(),)) for name in "abc"])
        assert found == dict.fromkeys("abc", "done")
        assert parallel._given["free"].acquire(block=False)


def test_an_error_ends_the_helpers_and_frees_their_cores(two_cores):
    begun = time.monotonic()
    with every_core():
        with pytest.raises(ValueError, match="is impossible"):
            run_with_helpers(jobs_of(fails, [1, 2]))
        assert parallel._given["free"].acquire(block=False)
    assert time.monotonic() - begun < 60 and not parallel._given.get("free")


def thread(number: int) -> tuple[int, int, int, set[int]]:
    "What came, and in which thread, computing on how many."
    time.sleep(0.1)
    pools = {pool["num_threads"] for pool in threadpool_info()}
    return number, threading.get_ident(), torch.get_num_threads(), pools


def test_free_cores_take_pieces_each_on_one_thread(two_cores):
    with every_core():
        numbers, threads, *counts = zip(*on_free_cores(thread, range(8)), strict=True)
        assert parallel._given["free"].acquire(block=False)
        alone = on_free_cores(thread, range(3))
    assert numbers == tuple(range(8)) and len(set(threads)) == 2
    assert set(counts[0]) == {1} and set.union(*counts[1]) == {1}
    assert {ident for _, ident, *_ in alone} == {threading.get_ident()}


def test_nothing_to_do_and_an_error_leave_the_core_free(two_cores):
    with every_core():
        assert on_free_cores(thread, []) == []
        with pytest.raises(ZeroDivisionError):
            on_free_cores(lambda number: 1 / number, range(3))
        assert parallel._given["free"].acquire(block=False)


def asks(seconds: float, progress=None) -> set[int]:
    "Sleeps, then has three jobs done; which processes did them."
    time.sleep(seconds)
    jobs = jobs_of(who, range(3) if seconds else ())
    return {process for _, _, process in run_with_helpers(jobs, ("all",)).values()}


def test_a_job_that_is_done_leaves_its_core_to_the_others():
    quick, slow = run_side_by_side(asks, {"quick": (0,), "slow": (6.0,)}, workers=2)
    assert not quick and len(slow) == 2


def test_no_core_is_free_while_jobs_are_waiting():
    jobs = {"long": (8.0,), "short": (0,), "last": (20.0,)}
    long, _, last = run_side_by_side(asks, jobs, workers=2)
    assert len(long) == 1 and len(last) == 2


def pressed(program: str, *arguments: str, begun: int, everyone: bool, after: float = 0) -> str:
    "What a program says that gets Ctrl-C when so many jobs are under way: all its processes, as from a terminal, or the first alone."
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(Path(__file__).parent), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    lines = [process.stdout.readline() for _ in range(begun)]
    assert all(line.endswith("begun\n") for line in lines)
    time.sleep(after)
    (os.killpg if everyone else os.kill)(process.pid, signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and not errors
    return said


HELPED = """
import sys
sys.path.insert(0, sys.argv[1])
from test_parallel import patient
from smartgrid_ai import parallel
parallel.cores = lambda: 2
tell = lambda *message: print(message[0], flush=True)
stop = lambda result: result == "interrupted"
with parallel.every_core():
    times = {"0": (2,), "A": (120, parallel.GRACE + 6)}
    jobs = [parallel.Job(name, patient, times.get(name, (120,))) for name in sys.argv[2]]
    print(parallel.run_with_helpers(jobs, (), tell, last=stop))
"""
BESIDE = """
import sys
sys.path.insert(0, sys.argv[1])
from test_parallel import patient
from smartgrid_ai import parallel
if __name__ == "__main__":
    tell = lambda *message: print(message[0], flush=True)
    jobs = {"a": (120,), "b": (120,)}
    print(parallel.run_side_by_side(patient, jobs, tell, workers=2))
"""


@pytest.mark.parametrize(
    "jobs, everyone", [("abc", True), ("abc", False), ("0a", False), ("Abc", True)]
)
def test_ctrl_c_ends_what_is_under_way_and_begins_nothing(jobs, everyone):
    "Also while the first process, done with job 0, only waits, and where it saves job A for longer than a helper its own."
    after = 2.5 if jobs.startswith("0") else 0
    said = pressed(HELPED, jobs, begun=2, everyone=everyone, after=after)
    ended = {name: "whole" if name == "0" else "interrupted" for name in jobs[:2]}
    assert said == f"{ended}\n"


def test_ctrl_c_waits_until_progress_is_told(monkeypatch):
    "Between taking and giving back the lock of a queue it would leave it locked."

    class Interrupted(list):
        def put(self, message):
            signal.raise_signal(signal.SIGINT)
            self.append(message)

    told, before = Interrupted(), signal.getsignal(signal.SIGINT)
    monkeypatch.setitem(parallel._given, "told", told)
    try:
        with pytest.raises(KeyboardInterrupt):
            parallel._work(lambda progress: progress("stage", 1, 2, "note"), "first ", ())
    finally:
        signal.signal(signal.SIGINT, before)
    assert told == [("first stage", 1, 2, "note")]


@pytest.mark.parametrize("everyone", [True, False])
def test_ctrl_c_comes_once_to_runs_side_by_side(everyone):
    assert pressed(BESIDE, begun=2, everyone=everyone) == "['interrupted', 'interrupted']\n"
