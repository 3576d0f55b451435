# SPDX-License-Identifier: Apache-2.0
"""The books of events: what is ordered when, what becomes of what fails, and that nothing is left in any ending."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from libmicrovmi_py.declare import replace
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    InvalidArgumentError,
    InvalidContextError,
    IoError,
    NotSupportedError,
    TimeoutExpiredError,
    VmGoneError,
)
from libmicrovmi_py.events import (
    ALL_VCPUS,
    UNKNOWN_ADDRESS,
    UNKNOWN_VCPU,
    Breakpoints,
    EventAbilities,
    EventKind,
    Intercept,
    InterceptFlag,
    PageAccess,
    Reply,
    ReplyAction,
    Stands,
    Stop,
)
from libmicrovmi_py.machine import events
from libmicrovmi_py.machine.events import EventSession
from libmicrovmi_py.transport.deadline import limited

CR3, CR4, ACCESS = Intercept(EventKind.CR, 3), Intercept(EventKind.CR, 4), Intercept(EventKind.PAGE_ACCESS)
CONTINUE, RETRY, DENY = ReplyAction.CONTINUE, ReplyAction.RETRY, ReplyAction.DENY
WRITE = Stop(EventKind.CR, 0, number=3, old_value=1, new_value=2)
EVERY, OBSERVE = InterceptFlag.EVERY_WRITE, InterceptFlag.OBSERVE
EVERY_CR3, OBSERVED_CR3 = (Intercept(EventKind.CR, 3, flags=flag) for flag in (EVERY, OBSERVE))


class Noting:
    """A driver that notes its orders. ``coming`` are the stops that it will tell, ``trouble`` what an order raises, by
    its name, ``rooms`` how often its vCPUs still wait for room at the end, ``accesses`` those of its pages.
    """

    def __init__(self, *coming: Stop) -> None:
        self.event_abilities = EventAbilities(
            {EventKind.CR: frozenset((CONTINUE, DENY)), EventKind.PAGE_ACCESS: frozenset((CONTINUE, RETRY))},
            why_not="it is made for tests",
        )
        self.coming = deque(coming)
        self.trouble: dict[str, BaseException] = {}
        self.orders: list[str] = []
        self.rooms = 0
        self.accesses: dict[int, PageAccess] = {}

    def _note(self, order: str, *words: object) -> None:
        self.orders.append(" ".join(map(str, (order, *words))))
        if order in self.trouble:
            raise self.trouble[order]

    def vcpu_count(self) -> int:
        return 2

    def arm(self, intercept: Intercept, vcpus: frozenset[int]) -> None:
        self._note("arm", intercept.kind.name, intercept.number, sorted(vcpus))

    def poll(self, timeout: float) -> Stop | None:
        if "poll" in self.trouble:
            raise self.trouble["poll"]
        if not self.coming:
            time.sleep(timeout)
        return self.coming.popleft() if self.coming else None

    def resume(self, stop: Stop, action: ReplyAction, registers: Mapping[str, int] | None) -> None:
        self._note(action.name, stop.vcpu)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        self._note("quiet")
        yield
        self.orders.append("runs")

    def end_events(self) -> bool:
        self._note("end")
        self.rooms -= 1
        return self.rooms < 0

    def get_page_access(self, frame: int) -> PageAccess:
        return self.accesses.get(frame, PageAccess.ALL)

    def set_page_access(self, frame: int, access: PageAccess) -> None:
        self._note("allow", frame, int(access))
        self.accesses[frame] = access


def session_of(driver: Noting, *intercepts: Intercept, vcpu: int = ALL_VCPUS) -> EventSession:
    """A session that has armed these."""
    session = EventSession(driver, "noting")
    for intercept in intercepts:
        session.toggle(intercept, True, vcpu)
    driver.orders.clear()
    return session


# ------------------------------------------------------------------------------------------------------------- orders


def test_the_driver_is_told_changes_only() -> None:
    driver = Noting()
    session = EventSession(driver, "noting")
    for vcpu, enabled in ((1, True), (1, True), (ALL_VCPUS, True), (0, True), (0, False), (0, False), (1, False)):
        session.toggle(CR3, enabled, vcpu)
    armed = [order for order in driver.orders if order.startswith("arm")]
    assert armed == ["arm CR 3 [1]", "arm CR 3 [0, 1]", "arm CR 3 [1]", "arm CR 3 []"]


@pytest.mark.parametrize(
    ("intercept", "error", "text"),
    [
        (Intercept(EventKind.CR, 2), InvalidArgumentError, "control register 2 cannot be intercepted"),
        (Intercept(EventKind.CR, 8), InvalidArgumentError, "control register 8 cannot be intercepted"),
        (Intercept(EventKind.MSR, 1 << 32), InvalidArgumentError, "0x100000000 is not the index of an MSR"),
        (Intercept(EventKind.MSR, -1), InvalidArgumentError, "not the index"),
        (Intercept(EventKind.CR, 3, 0x1000), InvalidArgumentError, "an intercept of CR has no address"),
        (Intercept(EventKind.CR, 3, flags=InterceptFlag(8)), InvalidArgumentError, "flags are 0x8"),
        (Intercept(EventKind.CR, 4, flags=EVERY), InvalidArgumentError, "EVERY_WRITE is for CR 3"),
        (Intercept(EventKind.CR, 3, flags=EVERY | OBSERVE), InvalidArgumentError, "are two intercepts"),
        (Intercept(EventKind.CR, 3, flags=EVERY), NotSupportedError, "noting driver has no EVERY_WRITE for CR"),
        (Intercept(EventKind.CR, 3, flags=OBSERVE), NotSupportedError, "noting driver has no OBSERVE for CR"),
        (Intercept(EventKind.VIRTUAL_ACCESS, 0, -1, 8, PageAccess.READ), InvalidArgumentError, "no range"),
        (Intercept(EventKind.VIRTUAL_ACCESS, 0, 0, 0, PageAccess.READ), InvalidArgumentError, "no range"),
        (Intercept(EventKind.VIRTUAL_ACCESS, 0, 0, 8, PageAccess.READ), NotSupportedError, "cannot stop at VIRTUAL"),
        (Intercept(EventKind.MSR, 0x174), NotSupportedError, "noting driver cannot stop at MSR: it is made for tests"),
    ],
)
def test_what_needs_no_hypervisor_is_refused_without_it(
    intercept: Intercept, error: type[Exception], text: str
) -> None:
    driver = Noting()
    with pytest.raises(error, match=text):
        EventSession(driver, "noting").toggle(intercept, True, ALL_VCPUS)
    assert driver.orders == []


@pytest.mark.parametrize(
    ("form", "address", "text"),
    [(Breakpoints.OWN, 0x1000, "places no breakpoints"), (Breakpoints.PLACED, 0, "name an address")],
)
def test_a_form_of_breakpoints_that_the_driver_lacks_is_refused(form: Breakpoints, address: int, text: str) -> None:
    driver = Noting()
    driver.event_abilities = EventAbilities({EventKind.BREAKPOINT: frozenset((CONTINUE,))}, frozenset((form,)))
    with pytest.raises(NotSupportedError, match=text):
        EventSession(driver, "noting").toggle(Intercept(EventKind.BREAKPOINT, 0, address), True, 0)
    assert driver.orders == []


def test_vcpus_that_do_not_exist_are_refused() -> None:
    for vcpu in (2, 0xFFFE, -1):
        with pytest.raises(InvalidArgumentError, match="no vCPU"):
            EventSession(Noting(), "noting").toggle(CR3, True, vcpu)


def test_an_order_that_fails_is_taken_back() -> None:
    driver = Noting()
    session = session_of(driver, CR3, vcpu=0)
    driver.trouble["arm"] = error = TimeoutExpiredError("no answer")
    with pytest.raises(TimeoutExpiredError) as caught:
        session.toggle(CR3, True, 1)
    assert caught.value is error
    assert driver.orders == ["arm CR 3 [0, 1]", "arm CR 3 [0]"]
    driver.trouble.clear()
    driver.orders.clear()
    session.toggle(CR3, True, 1)
    assert driver.orders == ["arm CR 3 [0, 1]"]


def test_one_that_cannot_be_taken_back_is_disarmed_at_the_end() -> None:
    driver = Noting()
    session = session_of(driver)
    driver.trouble["arm"] = TimeoutExpiredError("no answer")
    with pytest.raises(TimeoutExpiredError):
        session.toggle(CR3, True, 1)
    driver.trouble.clear()
    driver.orders.clear()
    assert session.owes
    session.release()
    assert driver.orders == ["quiet", "arm CR 3 []", "end", "runs"]


def test_who_is_no_listener_takes_no_stops_at_the_end() -> None:
    driver = Noting(WRITE)
    session = session_of(driver)
    driver.trouble["arm"] = DriverUnavailableError("somebody else listens")
    with pytest.raises(DriverUnavailableError):
        session.toggle(CR3, True, 1)
    driver.trouble.clear()
    session.release()
    assert list(driver.coming) == [WRITE]


# -------------------------------------------------------------------------------------------------------------- stops


def test_a_stop_becomes_an_event_of_the_same_members() -> None:
    stop = Stop(EventKind.PAGE_ACCESS, 1, 0, 0, 0, 0x5008, 0x7008, PageAccess.WRITE, 3, token=object())
    event = session_of(Noting(stop), ACCESS).listen(1)
    assert event is not None
    assert (event.id, event.kind, event.vcpu) == (1, EventKind.PAGE_ACCESS, 1)
    assert (event.physical_address, event.virtual_address, event.access) == (0x5008, 0x7008, PageAccess.WRITE)
    assert (event.instruction_length, event.instruction_pointer, event.stands) == (3, UNKNOWN_ADDRESS, Stands.VCPU)


def test_what_nobody_wants_goes_on_and_what_comes_behind_it_is_told() -> None:
    strangers = [Stop(EventKind.CR, 1, number=3), Stop(EventKind.CR, 0, number=4), Stop(EventKind.MSR, 0, waits=False)]
    driver = Noting(*strangers, WRITE)
    event = session_of(driver, CR3, vcpu=0).listen(0)
    assert event is not None
    assert (event.vcpu, event.number) == (0, 3)
    assert driver.orders == ["CONTINUE 1", "CONTINUE 0"]


def test_a_guest_that_does_only_what_nobody_wants_keeps_no_listener() -> None:
    driver = Noting()
    driver.poll = lambda timeout: Stop(EventKind.CR, 1, number=3)  # type: ignore[method-assign]
    started = time.monotonic()
    assert session_of(driver, CR3, vcpu=0).listen(0.3) is None
    assert time.monotonic() - started < 1


def test_what_cannot_be_continued_is_retried_where_nobody_else_could_answer_it() -> None:
    driver = Noting(Stop(EventKind.PAGE_ACCESS, 1))
    session = session_of(driver, ACCESS, vcpu=0)
    driver.trouble["CONTINUE"] = IoError("not to be emulated")
    assert session.listen(0) is None
    assert driver.orders == ["CONTINUE 1", "RETRY 1"]


def test_after_an_intercept_goes_what_nobody_has_seen_is_answered() -> None:
    driver = Noting(WRITE, Stop(EventKind.CR, 1, number=4))
    session = session_of(driver, CR3, CR4)
    session.toggle(CR3, False, ALL_VCPUS)
    assert driver.orders == ["arm CR 3 []", "quiet", "CONTINUE 0", "runs"]
    event = session.listen(0)
    assert event is not None
    assert event.number == 4


def test_a_vcpu_that_goes_on_by_itself_has_no_answer() -> None:
    session = session_of(Noting(Stop(EventKind.CR, 0, number=3, waits=False)), CR3)
    event = session.listen(0)
    assert event is not None
    with pytest.raises(InvalidArgumentError, match="event 1 is not open"):
        session.reply(event.id, Reply())


def flagged(*coming: Stop, implied: InterceptFlag = InterceptFlag.NONE) -> Noting:
    """A driver that has the flags of CR 3 and stops the whole machine."""
    driver = Noting(*coming)
    can = driver.event_abilities
    flags, stands = {EventKind.CR: EVERY | OBSERVE}, Stands.MACHINE
    driver.event_abilities = replace(can, flags=flags, implied=implied, stands=stands)
    return driver


def test_what_observes_stops_nothing_waits_for_no_answer_and_says_what_was_lost() -> None:
    seen = Stop(EventKind.CR, UNKNOWN_VCPU, 3, new_value=7, waits=False, told_by=OBSERVED_CR3, lost=5)
    driver = flagged(seen, WRITE)
    session = session_of(driver, OBSERVED_CR3, CR3)
    event, stopped = session.listen(0), session.listen(0)
    assert event is not None
    assert stopped is not None
    assert (event.vcpu, event.new_value, event.stands, event.lost) == (UNKNOWN_VCPU, 7, Stands.NOTHING, 5)
    assert (stopped.stands, stopped.lost) == (Stands.MACHINE, 0)
    with pytest.raises(InvalidArgumentError, match="event 1 is not open"):
        session.reply(event.id, Reply())
    session.toggle(OBSERVED_CR3, False, ALL_VCPUS)
    driver.coming.append(seen)
    assert session.listen(0) is None
    with pytest.raises(NotSupportedError, match="name all of them"):
        session.toggle(OBSERVED_CR3, True, 0)


def test_a_stop_that_comes_after_what_was_done_has_fewer_answers_than_its_kind() -> None:
    driver = flagged(replace(WRITE, answers=frozenset((CONTINUE,))), replace(WRITE, told_by=EVERY_CR3))
    session = session_of(driver, CR3, EVERY_CR3)
    assert session.listen(0) is not None
    assert session.listen(0) is not None
    with pytest.raises(NotSupportedError, match="CR cannot be denied: answer CONTINUE, or intercept EVERY_WRITE"):
        session.reply(1, Reply(DENY))
    session.reply(1, Reply())
    session.reply(2, Reply(DENY))
    assert driver.orders == ["CONTINUE 0", "DENY 0"]


def test_of_two_intercepts_that_differ_in_a_flag_one_can_be_wanted() -> None:
    driver = flagged(WRITE, replace(WRITE, told_by=EVERY_CR3))
    session = session_of(driver, EVERY_CR3)
    assert session.listen(0) is not None
    assert session.listen(0) is None
    assert driver.orders == ["CONTINUE 0"]


def test_a_flag_that_is_implied_makes_no_other_intercept() -> None:
    driver = flagged(WRITE, implied=EVERY)
    session = session_of(driver, CR3)
    session.toggle(EVERY_CR3, True, ALL_VCPUS)
    assert driver.orders == []
    assert session.listen(0) is not None
    session.toggle(EVERY_CR3, False, ALL_VCPUS)
    assert driver.orders[0] == "arm CR 3 []"


def test_answers_are_those_that_the_driver_s_data_has() -> None:
    driver = Noting(WRITE, WRITE)
    session = session_of(driver, CR3)
    assert session.listen(0) is not None
    with pytest.raises(NotSupportedError, match=r"CR cannot be retried: answer CONTINUE or DENY"):
        session.reply(1, Reply(RETRY))
    session.reply(1, Reply(DENY))
    with pytest.raises(InvalidArgumentError, match="event 1 is not open"):
        session.reply(1, Reply())
    assert driver.orders == ["DENY 0"]


def test_an_event_whose_answer_fails_stays_open() -> None:
    driver = Noting(WRITE)
    session = session_of(driver, CR3)
    assert session.listen(0) is not None
    driver.trouble["CONTINUE"] = IoError("refused")
    with pytest.raises(IoError):
        session.reply(1, Reply())
    driver.trouble.clear()
    session.reply(1, Reply())
    assert driver.orders == ["CONTINUE 0", "CONTINUE 0"]


def test_an_answer_that_takes_its_time_keeps_nobody_from_listening() -> None:
    driver = Noting(WRITE, Stop(EventKind.CR, 1, number=3))
    session = session_of(driver, CR3)
    assert session.listen(0) is not None
    answered = threading.Event()
    driver.resume = lambda *_: answered.wait(5)  # type: ignore[assignment, method-assign]
    thread = threading.Thread(target=session.reply, args=(1, Reply()))
    thread.start()
    started = time.monotonic()
    event = session.listen(1)
    took = time.monotonic() - started
    answered.set()
    thread.join()
    assert event is not None
    assert (event.vcpu, took < 1) == (1, True)


# ------------------------------------------------------------------------------------------------------ page accesses


def test_pages_are_given_back_as_they_were() -> None:
    driver = Noting()
    driver.accesses[7] = PageAccess.READ
    session = session_of(driver)
    for access in (PageAccess.NONE, PageAccess.WRITE):
        session.set_page_access(7, access)
    session.set_page_access(8, PageAccess.NONE)
    session.release()
    assert driver.accesses == {7: PageAccess.READ, 8: PageAccess.ALL}
    assert not session.owes


def test_a_page_that_was_refused_is_not_in_the_books_and_one_of_an_unknown_fate_is() -> None:
    driver = Noting()
    session = session_of(driver)
    for frame, error in ((7, NotSupportedError("no EPT")), (8, TimeoutExpiredError("no answer"))):
        driver.trouble["allow"] = error
        with pytest.raises(type(error)):
            session.set_page_access(frame, PageAccess.NONE)
    driver.trouble.clear()
    driver.orders.clear()
    session.release()
    assert driver.orders == ["quiet", "allow 8 7", "end", "runs"]


# ------------------------------------------------------------------------------------------------------------ the end


def test_the_end_disarms_gives_back_answers_and_ends_while_the_guest_stands() -> None:
    late = Stop(EventKind.CR, 1, number=3)
    driver = Noting(WRITE)
    session = session_of(driver, CR3)
    session.set_page_access(7, PageAccess.NONE)
    assert session.listen(0) is not None
    driver.orders.clear()
    driver.coming.append(late)
    session.release()
    assert driver.orders == ["quiet", "arm CR 3 []", "allow 7 7", "CONTINUE 1", "CONTINUE 0", "end", "runs"]
    session.release()
    assert driver.orders[-1] == "runs"
    assert len(driver.orders) == 7


@pytest.mark.parametrize("step", ["quiet", "arm", "allow", "CONTINUE", "end"])
@pytest.mark.parametrize("error", [IoError("refused"), ValueError("a defect"), KeyboardInterrupt()], ids=repr)
def test_whatever_fails_the_other_steps_are_done_and_it_is_told(step: str, error: BaseException) -> None:
    driver = Noting(WRITE)
    session = session_of(driver, CR3)
    session.set_page_access(7, PageAccess.NONE)
    assert session.listen(0) is not None
    driver.orders.clear()
    driver.trouble[step] = error
    with pytest.raises(type(error)):
        session.release()
    assert driver.orders[:5] == ["quiet", "arm CR 3 []", "allow 7 7", "CONTINUE 0", "end"]
    assert session.owes
    driver.trouble.clear()
    driver.orders.clear()
    session.release()
    again = {"arm": "arm CR 3 []", "allow": "allow 7 7", "CONTINUE": "CONTINUE 0"}
    assert driver.orders == ["quiet", *([again[step]] if step in again else []), "end", "runs"]


def test_a_driver_whose_polls_fail_is_ended_all_the_same() -> None:
    driver = Noting()
    session = session_of(driver, CR3)
    driver.trouble["poll"] = IoError("a broken ring")
    with pytest.raises(IoError, match="broken ring"):
        session.release()
    assert driver.orders == ["quiet", "arm CR 3 []", "end", "runs"]


def test_vcpus_that_wait_for_room_are_let_run_and_answered() -> None:
    driver = Noting()
    session = session_of(driver, CR3)
    driver.rooms = 2
    session.release()
    assert driver.orders == ["quiet", "arm CR 3 []", "end", "runs", *["quiet", "end", "runs"] * 2]


def test_the_end_does_not_wait_for_them_for_ever() -> None:
    driver = Noting()
    session = session_of(driver, CR3)
    driver.rooms = 1 << 30
    started = time.monotonic()
    with limited(0.2), pytest.raises(TimeoutExpiredError):
        session.release()
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("step", ["quiet", "arm", "allow", "CONTINUE", "end", "poll"])
def test_a_machine_that_ended_needs_nothing(step: str) -> None:
    driver = Noting(WRITE)
    session = session_of(driver, CR3)
    session.set_page_access(7, PageAccess.NONE)
    assert session.listen(0) is not None
    driver.trouble[step] = VmGoneError("it ended")
    session.release()
    assert not session.owes


def test_what_is_being_closed_arms_nothing_and_ends_waits() -> None:
    driver = Noting()
    session = session_of(driver, CR3)
    ended: list[Exception] = []

    def wait() -> None:
        try:
            session.listen(20)
        except InvalidContextError as err:
            ended.append(err)

    thread = threading.Thread(target=wait)
    thread.start()
    session.end()
    thread.join(5)
    assert [type(err) for err in ended] == [InvalidContextError]
    with pytest.raises(InvalidContextError):
        session.toggle(CR4, True, 0)
    with pytest.raises(InvalidContextError):
        session.set_page_access(7, PageAccess.NONE)


def test_a_thread_that_listens_all_the_time_keeps_nobody_from_the_end() -> None:
    driver = Noting()
    session = session_of(driver, CR3)
    over = threading.Event()

    def listen() -> None:
        while not over.is_set():
            session.listen(0.05)

    threads = [threading.Thread(target=listen) for _ in range(3)]
    for thread in threads:
        thread.start()
    started = time.monotonic()
    session.release()
    took = time.monotonic() - started
    over.set()
    for thread in threads:
        thread.join()
    assert took < 2


def interrupted(session: EventSession, step: int) -> bool:
    """Whether an interrupt came at a step of a wait: as a signal's handler raises it, between any two."""
    left = step

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != events.__file__:
            return None
        left -= 1
        if not left:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        session.listen(0)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_who_is_interrupted_at_any_step_of_a_wait_can_end_it_all() -> None:
    driver, steps, going = Noting(), 0, True
    while going:
        steps += 1
        driver.coming.append(WRITE)
        session = EventSession(driver, "noting")
        session.toggle(CR3, True, ALL_VCPUS)
        going = interrupted(session, steps)
        session.release()
        assert not session.owes, steps
    assert steps > 20
