"""Connections are counted by address, and an IPv6 client's network is one address."""

import pytest

from api_shim.server.connection_limits import ConnectionLimits, Verdict, source_of


def verdicts(limits: ConnectionLimits, *hosts: str) -> list[Verdict]:
    return [limits.enter(host) for host in hosts]


def test_an_address_has_its_own_bound_and_this_machine_has_none() -> None:
    limits = ConnectionLimits(100, 2)
    found = verdicts(limits, *["192.0.2.1"] * 3, "192.0.2.2", *["127.0.0.1"] * 5)

    assert found == ["admitted", "admitted", "too_many_of_address", *["admitted"] * 6]


def test_what_has_left_makes_room() -> None:
    limits = ConnectionLimits(1, 0)
    first = verdicts(limits, "192.0.2.1", "192.0.2.2")
    limits.leave("192.0.2.2")
    limits.leave("192.0.2.1")

    assert [*first, *verdicts(limits, "192.0.2.3")] == ["admitted", "too_many", "admitted"]
    assert limits.count == 1


def test_few_connections_are_refused_in_words_at_a_time() -> None:
    found = verdicts(ConnectionLimits(1, 0), *["192.0.2.1"] * 100)

    assert [found.count(each) for each in ("admitted", "too_many", "no_room")] == [1, 32, 67]


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("127.0.0.1", ""),
        ("::1", ""),
        ("", ""),
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "20010db800010002::"),
        ("2001:db8:1:2::9%eth0", "20010db800010002::"),
        ("no address", "no address"),
    ],
)
def test_what_counts_as_one_address(host: str, source: str) -> None:
    assert source_of(host) == source
