"""Deadlines of connections and the choice of those to close at the limit, with a fake clock."""

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
class FakeConnection:
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


class ConnectionPool:
    def __init__(self, *connections: FakeConnection, limits: ConnectionLimits = LIMITS) -> None:
        self.now = 0.0
        self.connections = Connections(limits, lambda: self.now)
        for connection in connections:
            self.connections.add(connection)

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
def test_connections_without_a_request_have_a_deadline(phase: Phase, request_count: int, seconds: int) -> None:
    connection = FakeConnection(phase, request_count=request_count)
    pool = ConnectionPool(connection)
    pool.sweep_until(seconds)
    assert not connection.ended
    pool.sweep_until(seconds + 1)
    assert connection.ended[0]


def test_a_new_byte_does_not_extend_the_deadline_of_a_head() -> None:
    connection = FakeConnection(Phase.HEAD)
    pool = ConnectionPool(connection)
    for _ in range(21):
        connection.bytes_in += 1
        pool.sweep_until(pool.now + 1)
    assert connection.ended


def test_a_request_in_progress_is_never_closed() -> None:
    connection = FakeConnection(Phase.PROCESSING, request_count=1)
    pool = ConnectionPool(connection, *(FakeConnection() for _ in range(5)))
    pool.sweep_until(3 * 3600)
    assert not connection.ended
    for _ in range(20):
        pool.connections.admit("192.0.2.9")
    assert not connection.closing


@pytest.mark.parametrize("rate", [0, 99])
def test_a_body_slower_than_the_minimum_rate_is_closed(rate: int) -> None:
    connection = FakeConnection(Phase.BODY, bytes_in=10**9)
    pool = ConnectionPool(connection)
    for _ in range(12):
        connection.bytes_in += rate
        pool.sweep_until(pool.now + 1)
    assert connection.ended


def test_a_slow_body_above_the_minimum_rate_is_accepted() -> None:
    connection = FakeConnection(Phase.BODY)
    pool = ConnectionPool(connection)
    for _ in range(5000):
        connection.bytes_in += 101
        pool.sweep_until(pool.now + 1)
    assert not connection.ended


def test_a_fast_start_does_not_make_up_for_a_pause() -> None:
    connection = FakeConnection(Phase.BODY)
    pool = ConnectionPool(connection)
    pool.sweep_until(1)
    connection.bytes_in = 10**9
    pool.sweep_until(40)
    assert connection.ended


@pytest.mark.parametrize(("phase", "rate", "is_closed"), [(Phase.SENDING, 60, True), (Phase.SENDING, 70, False)])
def test_a_response_reader_has_a_minimum_rate(phase: Phase, rate: int, is_closed: bool) -> None:
    connection = FakeConnection(phase, request_count=1, backlog=10**9)
    pool = ConnectionPool(connection)
    for _ in range(100):
        connection.bytes_out += rate
        pool.sweep_until(pool.now + 1)
    assert bool(connection.ended) is is_closed


def test_a_stream_is_closed_only_if_its_client_reads_nothing() -> None:
    slow, stalled_client, quiet = (
        FakeConnection(Phase.PROCESSING, request_count=1, backlog=size) for size in (10**9, 10**9, 0)
    )
    pool = ConnectionPool(slow, stalled_client, quiet)
    for second in range(500):
        slow.bytes_out += second % 20 == 0
        pool.sweep_until(pool.now + 1)
    assert not slow.ended
    assert stalled_client.ended
    assert not quiet.ended


def test_a_stream_without_new_events_is_not_stalled() -> None:
    connection = FakeConnection(Phase.PROCESSING, request_count=1)
    pool = ConnectionPool(connection)
    for _ in range(10):
        connection.backlog = 5
        pool.sweep_until(pool.now + 25)
        connection.backlog = 0
        pool.sweep_until(pool.now + 25)
    assert not connection.ended


def test_idle_connections_are_closed_sooner_when_many_are_open() -> None:
    few = [FakeConnection(request_count=1) for _ in range(3)]
    ConnectionPool(*few).sweep_until(50)
    assert not any(connection.ended for connection in few)
    many = [FakeConnection(request_count=1) for _ in range(4)]
    ConnectionPool(*many).sweep_until(7)
    assert all(connection.ended for connection in many)


def test_the_longest_idle_connection_of_the_busiest_address_is_closed() -> None:
    crowd = [FakeConnection(address="192.0.2.1", last_transfer=at) for at in (5, 3, 4)]
    others = [FakeConnection(address=f"192.0.2.{number}", last_transfer=1) for number in (2, 3, 4)]
    pool = ConnectionPool(*crowd, *others)
    assert pool.connections.admit("192.0.2.9") is Admission.ACCEPTED
    assert [connection.closing for connection in (*crowd, *others)] == [False, True, False, False, False, False]
    pool.connections.close_marked()
    assert crowd[1].ended == [False]


def test_an_address_at_its_limit_loses_one_of_its_own_connections() -> None:
    own = [FakeConnection(address="192.0.2.1", last_transfer=at) for at in (2, 1, 3)]
    pool = ConnectionPool(*own, FakeConnection(address="192.0.2.2"))
    assert pool.connections.admit("192.0.2.1") is Admission.ACCEPTED
    assert [connection.closing for connection in own] == [False, True, False]


def test_connections_are_closed_in_the_order_of_their_phases() -> None:
    phases = [
        Phase.SENDING,
        Phase.BODY,
        Phase.HEAD,
        Phase.IDLE,
        Phase.LINGERING,
    ]
    connections = [FakeConnection(phase, address=LOOPBACK, last_transfer=number) for number, phase in enumerate(phases)]
    pool = ConnectionPool(*connections)
    order = []
    for _ in connections:
        assert pool.connections.make_room()
        (closed,) = (connection for connection in connections if connection.closing and connection not in order)
        order.append(closed)
    assert [connection.phase for connection in order] == phases[::-1]
    assert not pool.connections.make_room()


def test_spare_connections_are_for_short_requests() -> None:
    pool = ConnectionPool(*(FakeConnection(Phase.PROCESSING, address=f"192.0.2.{number}") for number in range(6)))
    admissions = []
    for number in range(3):
        admissions.append(pool.connections.admit("198.51.100.7"))
        if admissions[-1] is not Admission.REFUSED:
            pool.connections.add(FakeConnection(Phase.PROCESSING, address=f"198.51.100.{number}"))
    assert admissions == [Admission.SHORT_REQUESTS_ONLY] * 2 + [Admission.REFUSED]


def test_an_idle_spare_connection_does_not_free_a_regular_one() -> None:
    running = [FakeConnection(Phase.PROCESSING, address=f"192.0.2.{number}") for number in range(6)]
    idle = FakeConnection(address="198.51.100.7", request_count=1)
    pool = ConnectionPool(*running, idle)
    assert pool.connections.admit("198.51.100.7") is Admission.SHORT_REQUESTS_ONLY
    assert idle.closing


def test_only_as_many_connections_are_closed_as_needed() -> None:
    idle = [FakeConnection(address=LOOPBACK, last_transfer=at) for at in range(6)]
    limits = ConnectionLimits(connections=6, spare=2, per_loopback=6)
    assert ConnectionPool(*idle, limits=limits).connections.admit(LOOPBACK) is Admission.ACCEPTED
    assert [connection.closing for connection in idle] == [True, False, False, False, False, False]


def test_one_address_cannot_take_all_spare_connections() -> None:
    limits = ConnectionLimits(connections=20, spare=4, per_address=3, per_loopback=15)
    pool = ConnectionPool(*(FakeConnection(Phase.PROCESSING, address="192.0.2.1") for _ in range(3)), limits=limits)
    admissions = []
    for _ in range(4):
        admissions.append(pool.connections.admit("192.0.2.1"))
        if admissions[-1] is not Admission.REFUSED:
            pool.connections.add(FakeConnection(Phase.PROCESSING, address="192.0.2.1"))
    assert admissions == [Admission.SHORT_REQUESTS_ONLY] * 2 + [Admission.REFUSED] * 2


def test_bodies_in_memory_have_a_limit() -> None:
    slow = FakeConnection(Phase.BODY, body_bytes=6000, last_transfer=1)
    quick = FakeConnection(Phase.BODY, body_bytes=3000, last_transfer=2)
    running = FakeConnection(Phase.PROCESSING, body_bytes=900, last_transfer=0)
    pool = ConnectionPool(slow, quick, running)
    assert pool.connections.has_room_for_body(100)
    assert not pool.connections.has_room_for_body(101)
    pool.connections.sweep()
    assert not slow.closing
    # The size of a chunked body is not known in advance.
    quick.body_bytes = 5000
    pool.connections.sweep()
    assert (slow.closing, quick.closing, running.closing) == (True, False, False)


def test_over_the_output_limit_the_longest_stalled_reader_is_closed() -> None:
    stalled = FakeConnection(Phase.SENDING, output_bytes=9000, backlog=9000, last_transfer=1)
    reading = FakeConnection(Phase.SENDING, output_bytes=9000, backlog=9000, last_transfer=5)
    pool = ConnectionPool(stalled, reading)
    assert not pool.connections.balance_output()
    pool.connections.add(FakeConnection(Phase.SENDING, output_bytes=3000, backlog=3000, last_transfer=9))
    assert pool.connections.balance_output()
    assert (stalled.closing, reading.closing) == (True, False)


def test_pictures_sent_from_files_do_not_count_as_output() -> None:
    pool = ConnectionPool(*(FakeConnection(Phase.SENDING, output_bytes=0, backlog=10**9) for _ in range(3)))
    assert not pool.connections.balance_output()


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
def test_addresses_are_grouped_by_client(address: str, client: str) -> None:
    assert client_key(address) == client


def test_the_capacity_fits_the_descriptor_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    requested_limits = []

    def raise_limit(limit: int) -> int:
        requested_limits.append(limit)
        return min(limit, 1500)

    monkeypatch.setattr("shared.web.server.connections.raise_descriptor_limit", raise_limit)
    few = connection_capacity(1000, 128, 2)
    assert requested_limits[0] > DESCRIPTORS_PER_CONNECTION * 1000
    assert 300 < few < 500
    monkeypatch.setattr("shared.web.server.connections.raise_descriptor_limit", lambda limit: limit)
    assert connection_capacity(1000, 128, 2) == 1000
    # Without `poll`, as on Windows, `select` sets the limit.
    monkeypatch.setattr("shared.web.server.connections.has_poll", lambda: False)
    monkeypatch.setattr("shared.web.server.connections.raise_descriptor_limit", lambda _wanted: None)
    assert connection_capacity(1000, 128, 8) + 2 * 8 < SELECT_LIMIT


def test_limits_scale_with_the_number_of_connections() -> None:
    small = ConnectionLimits().for_connections(100)
    assert (small.connections, small.per_loopback, small.per_address) == (100, 90, 12)
