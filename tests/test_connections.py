"""Deadlines of connections, and which are closed when there is no room; with a fake clock."""

from dataclasses import dataclass, field

import pytest

from shared.web.server.connections import (
    DESCRIPTORS_PER_CONNECTION,
    LOOPBACK,
    SELECT_LIMIT,
    Admission,
    ConnectionLimits,
    Connections,
    client_key,
    connection_capacity,
)
from shared.web.server.connections import (
    ConnectionPhase as Phase,
)

LIMITS = ConnectionLimits(
    connections=6,
    spare=2,
    per_address=3,
    per_loopback=5,
    head_s=20,
    idle_s=100,
    idle_crowded_s=5,
    crowded=0.5,
    window_s=10,
    body_floor=1000,
    reader_window_s=30,
    reader_floor=2000,
    linger_s=4,
    held_bodies=10_000,
    held_output=20_000,
)


@dataclass(eq=False)
class Fake:
    phase: Phase = Phase.IDLE
    address: str = "192.0.2.1"
    last_transfer: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    closing: bool = False
    request_count: int = 0
    body_bytes: int = 0
    output_bytes: int = 0
    backlog: int = 0
    ended: list[bool] = field(default_factory=list)

    def end(self, *, timed_out: bool = False) -> None:
        self.ended.append(timed_out)


class Room:
    def __init__(self, *connections: Fake, limits: ConnectionLimits = LIMITS) -> None:
        self.now = 0.0
        self.connections = Connections(limits, lambda: self.now)
        for each in connections:
            self.connections.add(each)

    def sweep_until(self, now: float) -> None:
        while self.now < now:
            self.now += 1
            self.connections.sweep()


@pytest.mark.parametrize(
    ("phase", "request_count", "seconds"),
    [
        (Phase.IDLE, 0, 20),
        (Phase.HEAD, 0, 20),
        (Phase.HEAD, 3, 20),
        (Phase.IDLE, 1, 100),
        (Phase.LINGERING, 1, 4),
    ],
)
def test_what_brings_no_request_has_a_deadline(phase: Phase, request_count: int, seconds: int) -> None:
    each = Fake(phase, request_count=request_count)
    room = Room(each)
    room.sweep_until(seconds)
    assert not each.ended
    room.sweep_until(seconds + 1)
    assert each.ended[0]


def test_a_head_that_drips_is_not_begun_anew_with_each_byte() -> None:
    each = Fake(Phase.HEAD)
    room = Room(each)
    for _ in range(21):
        each.bytes_in += 1
        room.sweep_until(room.now + 1)
    assert each.ended


def test_a_request_that_runs_is_never_cut() -> None:
    each = Fake(Phase.PROCESSING, request_count=1)
    room = Room(each, *(Fake() for _ in range(5)))
    room.sweep_until(3 * 3600)
    assert not each.ended
    for _ in range(20):
        room.connections.admit("192.0.2.9")
    assert not each.closing


@pytest.mark.parametrize("rate", [0, 99])
def test_a_body_below_the_floor_is_cut(rate: int) -> None:
    each = Fake(Phase.BODY, bytes_in=10**9)
    room = Room(each)
    for _ in range(12):
        each.bytes_in += rate
        room.sweep_until(room.now + 1)
    assert each.ended


def test_a_body_that_comes_slowly_but_surely_is_taken_however_long_it_is() -> None:
    each = Fake(Phase.BODY)
    room = Room(each)
    for _ in range(5000):
        each.bytes_in += 101
        room.sweep_until(room.now + 1)
    assert not each.ended


def test_what_came_fast_at_first_does_not_pay_for_a_pause() -> None:
    each = Fake(Phase.BODY)
    room = Room(each)
    room.sweep_until(1)
    each.bytes_in = 10**9
    room.sweep_until(40)
    assert each.ended


@pytest.mark.parametrize(("phase", "rate", "cut"), [(Phase.SENDING, 60, True), (Phase.SENDING, 70, False)])
def test_a_reader_of_an_answer_has_a_floor(phase: Phase, rate: int, cut: bool) -> None:
    each = Fake(phase, request_count=1, backlog=10**9)
    room = Room(each)
    for _ in range(100):
        each.bytes_out += rate
        room.sweep_until(room.now + 1)
    assert bool(each.ended) is cut


def test_a_stream_is_cut_only_for_who_takes_nothing() -> None:
    slow, deaf, quiet = (Fake(Phase.PROCESSING, request_count=1, backlog=size) for size in (10**9, 10**9, 0))
    room = Room(slow, deaf, quiet)
    for second in range(500):
        slow.bytes_out += second % 20 == 0
        room.sweep_until(room.now + 1)
    assert not slow.ended
    assert deaf.ended
    assert not quiet.ended


def test_a_stream_that_stood_still_for_want_of_news_is_not_counted_as_deaf() -> None:
    each = Fake(Phase.PROCESSING, request_count=1)
    room = Room(each)
    for _ in range(10):
        each.backlog = 5
        room.sweep_until(room.now + 25)
        each.backlog = 0
        room.sweep_until(room.now + 25)
    assert not each.ended


def test_idle_connections_go_sooner_when_it_is_crowded() -> None:
    few = [Fake(request_count=1) for _ in range(3)]
    Room(*few).sweep_until(50)
    assert not any(each.ended for each in few)
    many = [Fake(request_count=1) for _ in range(4)]
    Room(*many).sweep_until(7)
    assert all(each.ended for each in many)


def test_who_comes_is_let_in_and_the_longest_idle_of_the_busiest_address_goes() -> None:
    crowd = [Fake(address="192.0.2.1", last_transfer=at) for at in (5, 3, 4)]
    others = [Fake(address=f"192.0.2.{number}", last_transfer=1) for number in (2, 3, 4)]
    room = Room(*crowd, *others)
    assert room.connections.admit("192.0.2.9") is Admission.ACCEPTED
    assert [each.closing for each in (*crowd, *others)] == [False, True, False, False, False, False]
    room.connections.close_marked()
    assert crowd[1].ended == [False]


def test_an_address_over_its_limit_makes_room_among_its_own() -> None:
    own = [Fake(address="192.0.2.1", last_transfer=at) for at in (2, 1, 3)]
    room = Room(*own, Fake(address="192.0.2.2"))
    assert room.connections.admit("192.0.2.1") is Admission.ACCEPTED
    assert [each.closing for each in own] == [False, True, False]


def test_what_does_least_goes_first() -> None:
    phases = [
        Phase.SENDING,
        Phase.BODY,
        Phase.HEAD,
        Phase.IDLE,
        Phase.LINGERING,
    ]
    each = [Fake(phase, address=LOOPBACK, last_transfer=number) for number, phase in enumerate(phases)]
    room = Room(*each)
    order = []
    for _ in each:
        assert room.connections.make_room()
        (gone,) = (one for one in each if one.closing and one not in order)
        order.append(gone)
    assert [one.phase for one in order] == phases[::-1]
    assert not room.connections.make_room()


def test_when_all_are_at_work_a_few_more_are_taken_for_short_requests() -> None:
    room = Room(*(Fake(Phase.PROCESSING, address=f"192.0.2.{number}") for number in range(6)))
    admissions = []
    for number in range(3):
        admissions.append(room.connections.admit("198.51.100.7"))
        if admissions[-1] is not Admission.REFUSED:
            room.connections.add(Fake(Phase.PROCESSING, address=f"198.51.100.{number}"))
    assert admissions == [Admission.SHORT_REQUESTS_ONLY] * 2 + [Admission.REFUSED]


def test_an_idle_connection_in_the_spare_room_is_no_way_into_the_other() -> None:
    running = [Fake(Phase.PROCESSING, address=f"192.0.2.{number}") for number in range(6)]
    idle = Fake(address="198.51.100.7", request_count=1)
    room = Room(*running, idle)
    assert room.connections.admit("198.51.100.7") is Admission.SHORT_REQUESTS_ONLY
    assert idle.closing


def test_no_more_are_closed_than_need_be() -> None:
    each = [Fake(address=LOOPBACK, last_transfer=at) for at in range(6)]
    limits = ConnectionLimits(connections=6, spare=2, per_loopback=6)
    assert Room(*each, limits=limits).connections.admit(LOOPBACK) is Admission.ACCEPTED
    assert [one.closing for one in each] == [True, False, False, False, False, False]


def test_one_address_cannot_have_all_of_the_spare_connections() -> None:
    limits = ConnectionLimits(connections=20, spare=4, per_address=3, per_loopback=15)
    room = Room(*(Fake(Phase.PROCESSING, address="192.0.2.1") for _ in range(3)), limits=limits)
    admissions = []
    for _ in range(4):
        admissions.append(room.connections.admit("192.0.2.1"))
        if admissions[-1] is not Admission.REFUSED:
            room.connections.add(Fake(Phase.PROCESSING, address="192.0.2.1"))
    assert admissions == [Admission.SHORT_REQUESTS_ONLY] * 2 + [Admission.REFUSED] * 2


def test_bodies_have_a_bound_of_their_own() -> None:
    slow = Fake(Phase.BODY, body_bytes=6000, last_transfer=1)
    quick = Fake(Phase.BODY, body_bytes=3000, last_transfer=2)
    running = Fake(Phase.PROCESSING, body_bytes=900, last_transfer=0)
    room = Room(slow, quick, running)
    assert room.connections.has_room_for_body(100)
    assert not room.connections.has_room_for_body(101)
    room.connections.sweep()
    assert not slow.closing
    # A chunked body does not tell its size beforehand.
    quick.body_bytes = 5000
    room.connections.sweep()
    assert (slow.closing, quick.closing, running.closing) == (True, False, False)


def test_answers_that_wait_have_a_bound_and_who_took_nothing_for_longest_goes() -> None:
    stalled = Fake(Phase.SENDING, output_bytes=9000, backlog=9000, last_transfer=1)
    reading = Fake(Phase.SENDING, output_bytes=9000, backlog=9000, last_transfer=5)
    room = Room(stalled, reading)
    assert not room.connections.balance_output()
    room.connections.add(Fake(Phase.SENDING, output_bytes=3000, backlog=3000, last_transfer=9))
    assert room.connections.balance_output()
    assert (stalled.closing, reading.closing) == (True, False)


def test_pictures_in_their_own_files_are_not_counted() -> None:
    room = Room(*(Fake(Phase.SENDING, output_bytes=0, backlog=10**9) for _ in range(3)))
    assert not room.connections.balance_output()


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("127.0.0.1", LOOPBACK),
        ("127.8.9.1", LOOPBACK),
        ("::1", LOOPBACK),
        ("::ffff:127.0.0.1", LOOPBACK),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("localhost", "localhost"),
    ],
)
def test_what_counts_as_one_client(address: str, client: str) -> None:
    assert client_key(address) == client


def test_connections_fit_the_descriptors_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def raised(wanted: int) -> int:
        asked.append(wanted)
        return min(wanted, 1500)

    monkeypatch.setattr("shared.web.server.connections.raise_descriptor_limit", raised)
    few = connection_capacity(1000, 128, 2)
    assert asked[0] > DESCRIPTORS_PER_CONNECTION * 1000
    assert 300 < few < 500
    monkeypatch.setattr("shared.web.server.connections.raise_descriptor_limit", lambda wanted: wanted)
    assert connection_capacity(1000, 128, 2) == 1000
    # Where there is only `select`, as on Windows.
    monkeypatch.setattr("shared.web.server.connections.has_poll", lambda: False)
    monkeypatch.setattr("shared.web.server.connections.raise_descriptor_limit", lambda _wanted: None)
    assert connection_capacity(1000, 128, 8) + 2 * 8 < SELECT_LIMIT


def test_limits_shrink_together() -> None:
    small = ConnectionLimits().for_connections(100)
    assert (small.connections, small.per_loopback, small.per_address) == (100, 90, 12)
