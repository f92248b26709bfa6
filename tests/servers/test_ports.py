"""Servers of one test never share a port."""

from __future__ import annotations

from tests.servers import free_ports


def test_ports_that_are_asked_for_together_differ() -> None:
    assert len(set(free_ports(300))) == 300
