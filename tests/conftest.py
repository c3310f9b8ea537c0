"""Fixtures that start the real thing."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.daemon import CASCADE, Daemon, daemon_with, upstream_server
from tests.support.upstream import Upstream

# How long an example takes says how busy the machine is.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="module")
def _upstream() -> Iterator[Upstream]:
    with upstream_server(Upstream()) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def _daemon(_upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(CASCADE, url=_upstream.url) as daemon:
        yield daemon


@pytest.fixture
def upstream(_upstream: Upstream) -> Upstream:
    """The scripted upstream, with nothing scripted and nothing received."""
    _upstream.script.clear()
    _upstream.received.clear()
    _upstream.hung_up = 0
    return _upstream


@pytest.fixture
def daemon(_daemon: Daemon) -> Iterator[Daemon]:
    """A cascade `cheap` → `strong` over that upstream; nothing may be left held."""
    yield _daemon
    assert _daemon.spend["held"] == 0, "a hold was not settled"
