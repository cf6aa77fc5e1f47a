"""How many transfers a process has under way: in all, for one principal, and until when one counts."""

import threading
from contextlib import ExitStack

import pytest

from registry.remotes.jobs import Job, Jobs, started
from registry.remotes.slots import Slots
from runtime.errors import QueueFull

WAIT_S = 5


@pytest.mark.parametrize(("total", "share"), [(1, 1), (2, 1), (3, 1), (4, 2), (16, 8)])
def test_one_principal_gets_half_of_the_slots(total, share):
    slots = Slots(total)
    with ExitStack() as held:
        for _ in range(share):
            held.enter_context(slots.slot("key:a"))

        with pytest.raises(QueueFull, match=r"server busy, please try again\."):
            held.enter_context(slots.slot("key:a"))

        if total > share:
            held.enter_context(slots.slot("key:b"))


def test_all_together_get_all_of_them():
    slots = Slots(4)
    with ExitStack() as held:
        for number in range(4):
            held.enter_context(slots.slot(f"key:{number}"))

        with pytest.raises(QueueFull):
            held.enter_context(slots.slot("key:another"))


def test_the_servers_own_work_has_no_share():
    slots = Slots(4)
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(slots.slot())

        with pytest.raises(QueueFull):
            held.enter_context(slots.slot())


def test_a_slot_is_taken_until_the_thread_of_its_transfer_has_ended():
    slots, connected = Slots(1), threading.Event()
    job = Job(lambda _: connected.wait(WAIT_S))  # hears nothing of being given up, as in a resolver
    with slots.slot("key:a") as slot, started(job):
        slot.add(job)

    with pytest.raises(QueueFull), slots.slot("key:a"):
        pass

    connected.set()
    assert job.wait(WAIT_S)
    with slots.slot("key:a"):
        pass


def test_a_job_that_others_watch_on_is_no_longer_ours():
    slots, jobs, let_go = Slots(1), Jobs(), threading.Event()

    def make():
        return Job(lambda _: let_go.wait(WAIT_S))

    with jobs.joined("a", make):
        with slots.slot() as slot, jobs.joined("a", make) as job:
            slot.add(job)

        with slots.slot():
            assert not job.has_ended
    let_go.set()
    assert job.wait(WAIT_S)


def test_a_thread_that_never_came_to_be_holds_nothing():
    slots = Slots(1)
    with slots.slot() as slot:
        slot.add(Job(lambda _: None))

    with slots.slot():
        pass
