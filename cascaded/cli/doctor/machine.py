"""The machine itself: its clock, its limits, its libraries."""

import ctypes
import errno
import platform
import re
import resource
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version

from cascaded.cli.doctor.finding import Finding, ok, problem, warning
from cascaded.config import Config, schema

FILES_PER_CALL = 2
"""The caller's connection and the provider's."""
OTHER_FILES = 256
EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)
"""No clock of a machine that runs this can be before it."""
STA_UNSYNC = 0x40
SLEPT_S = 1.0
_TIMEX_BYTES = 208
_TIMEX_STATUS = 40
"""Offset in `struct timex` of 64-bit Linux."""
EXTRAS = (
    (schema.Embedded, "xllamacpp", "embedded", "the models of this machine need llama.cpp"),
    (schema.LiteLLM, "litellm", "litellm", "a provider needs LiteLLM"),
)
"""Kinds of providers, the packages that they need, and in which extra those are."""
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def clock(now: datetime) -> Iterator[Finding]:
    """Whether the time is right, as far as that can be known."""
    if now < EARLIEST:
        advice = "set the clock: budgets reset by it and certificates are judged by it"
        yield problem("clock", f"it says {now:%Y-%m-%d}", advice)
    synchronised = _synchronised()
    if synchronised is None:
        yield ok("clock", "whether it is synchronised is not known here")
    elif synchronised:
        yield ok("clock", f"synchronised, {now:%Y-%m-%d %H:%M:%S} UTC")
    else:
        advice = "turn on chrony or systemd-timesyncd: calendar budgets reset by this clock"
        yield warning("clock", f"not synchronised, {now:%Y-%m-%d %H:%M:%S} UTC", advice)
    slept = time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    if slept > SLEPT_S:
        yield ok("clock", f"the machine slept for {slept:,.0f} s since it was booted")


def _synchronised() -> bool | None:
    """Whether the kernel holds its clock for synchronised; `None`: it does not say."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    except (OSError, AttributeError):
        return None
    if state < 0 or ctypes.get_errno() == errno.EPERM:
        return None
    status = ctypes.c_int.from_buffer(timex, _TIMEX_STATUS).value
    return not status & STA_UNSYNC


def limits(config: Config) -> Iterator[Finding]:
    """Whether the process may open as many files as the daemon may need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = config.server.max_concurrency * FILES_PER_CALL + OTHER_FILES
    said = f"{soft:,} open files are allowed, {need:,} may be needed"
    if soft != resource.RLIM_INFINITY and soft < need:
        advice = f"ulimit -n {need} (at most {hard:,} here), LimitNOFILE= in the service"
        yield warning("limits", said, advice)
    else:
        yield ok("limits", said)


def software(config: Config) -> Iterator[Finding]:
    """Whether what we are made of is there."""
    system = f"{platform.system()} {platform.release()}"
    yield ok("software", f"Python {platform.python_version()} on {system}")
    needed = requires("cascaded") or []
    names = [match[0] for one in needed if "extra ==" not in one and (match := _NAME.match(one))]
    missing = [name for name in names if _version(name) is None]
    if missing:
        advice = "install cascaded again, with its dependencies"
        yield problem("software", f"missing: {', '.join(missing)}", advice)
    found = ", ".join(f"{name} {_version(name)}" for name in names if name not in missing)
    yield ok("software", f"cascaded {version('cascaded')}; {found}")
    kinds = {type(one) for one in config.providers.values()}
    for kind, package, extra, who in EXTRAS:
        if kind in kinds and _version(package) is None:
            said = f"{who}, which is not installed"
            yield problem("software", said, f"pip install 'cascaded[{extra}]'")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
