"""Work that several requests watch: shared while anybody waits, ended when nobody does."""

import threading

import pytest

from registry.remotes.errors import AnswerInvalid, ConnectionCut, RemoteError
from registry.remotes.jobs import Cancelled, Job, Jobs, started

WAIT_S = 5


class Work:
    """Waits until it is let go, or cancelled; counts how often it was begun."""

    def __init__(self) -> None:
        self.begun, self.aborted = 0, threading.Event()
        self.cancelled = threading.Event()

    def job(self) -> Job[None]:
        return Job(self._run, abort=self.aborted.set)

    def _run(self, job: Job[None]) -> None:
        self.begun += 1
        try:
            job.sleep(WAIT_S * 10)
        except Cancelled:
            self.cancelled.set()
            raise


def test_two_that_want_the_same_share_one_job_and_the_last_ends_it():
    jobs, work = Jobs(), Work()

    with jobs.joined("a", work.job) as first:
        with jobs.joined("a", work.job) as second:
            assert first is second
        assert not first.wait(0)
    assert work.cancelled.wait(WAIT_S)
    assert work.aborted.is_set()
    assert work.begun == 1


def test_other_work_is_another_job():
    jobs, work = Jobs(), Work()

    with jobs.joined("a", work.job) as first, jobs.joined("b", work.job) as second:
        assert first is not second


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ConnectionCut("as a socket that was shut words it"), Cancelled),
        (Cancelled(""), Cancelled),
        (AnswerInvalid("other bytes than asked for"), AnswerInvalid),  # wrong, whoever still waits
    ],
)
def test_work_that_was_given_up_says_so_whatever_its_cut_connection_raised(
    raised: RemoteError, told: type[RemoteError]
):
    work = Work()

    def run(job: Job[None]) -> None:
        assert work.aborted.wait(WAIT_S)
        raise raised

    with started(Job(run, abort=work.aborted.set)) as job:
        pass

    assert job.wait(WAIT_S)
    with pytest.raises(told):
        job.result()


def test_work_that_has_ended_begins_anew_for_the_next():
    jobs, runs = Jobs(), []

    for _ in range(2):
        with jobs.joined("a", lambda: Job(lambda job: runs.append(1))) as job:
            assert job.wait(WAIT_S)

    assert len(runs) == 2


def test_who_watches_gets_what_the_work_raised():
    def fail(job):
        raise ValueError("no")

    with started(Job(fail)) as job:
        assert job.wait(WAIT_S)
        with pytest.raises(ValueError, match="no"):
            job.result()


def test_work_that_has_ended_cuts_nothing():
    work = Work()
    with started(Job(lambda job: 7, abort=work.aborted.set)) as job:
        assert job.wait(WAIT_S)

    assert job.result() == 7
    assert not work.aborted.is_set()


def test_work_that_could_not_begin_is_waited_for_by_nobody(monkeypatch):
    jobs, runs = Jobs(), []

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(threading.Thread, "start", refuse)
        with jobs.joined("a", lambda: Job(lambda job: runs.append(1))):
            pytest.fail("there is no thread")

    with jobs.joined("a", lambda: Job(lambda job: runs.append(1))) as job:
        assert job.wait(WAIT_S)
    assert runs == [1]


def test_who_comes_while_one_that_was_given_up_still_ends_begins_anew():
    jobs, is_left, is_given_up, may_end = Jobs(), threading.Event(), threading.Event(), threading.Event()

    def linger(job):
        is_left.wait(WAIT_S)
        try:
            while True:
                job.check()
        except Cancelled:
            is_given_up.set()
            may_end.wait(WAIT_S)
            raise

    with jobs.joined("a", lambda: Job(linger), linger_s=1e-6):
        pass
    is_left.set()
    assert is_given_up.wait(WAIT_S)

    with jobs.joined("a", lambda: Job(lambda job: "whole"), linger_s=1e-6) as second:
        assert second.wait(WAIT_S)
        assert second.result() == "whole"
    may_end.set()


def test_work_that_was_given_up_is_not_brought_back():
    job = Job(lambda job: None)
    assert job.end_at(0.0)
    with pytest.raises(Cancelled):
        job.check()

    assert not job.end_at(float("inf"))

    with pytest.raises(Cancelled):
        job.check()
