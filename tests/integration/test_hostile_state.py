"""The state folder under attack: full, read-only, deleted, damaged, shared; and what was
acknowledged before a `kill -9` must be there after it."""

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from cascaded.client import APIError, Client, HoldResolvedError
from tests.support.daemon import CASCADE, upstream_server
from tests.support.process import Served, cascaded, serving
from tests.support.upstream import Says, Upstream

BLOCK = """
[limits.users.default]
total_usd = "1"
enforcement = "block"
"""
ASK: Any = [{"role": "user", "content": "What is the capital of France?"}]
COST = Decimal("0.000075")
"""10 input and 5 output tokens of `strong`."""
NOTHING = Decimal(0)
DISK_MIB = 128


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    upstream = Upstream()
    upstream.on("strong", Says("The capital of France is Paris."))
    with upstream_server(upstream):
        yield upstream.url


@pytest.fixture
def toml(url: str) -> str:
    # Exact amounts: a ceiling would be charged beside them after a crash.
    strict = CASCADE.replace("[ledger]", '[ledger]\ngate = "strict"')
    return (strict + BLOCK).replace("{url}", url)


def http(served: Served) -> httpx2.Client:
    transport = httpx2.HTTPTransport(uds=str(served.socket))
    return httpx2.Client(transport=transport, base_url="http://localhost", timeout=30)


def reserve(
    served: Served, cost: str, key: str | None = None, user: str = "u"
) -> "httpx2.Response":
    headers = {"Idempotency-Key": key} if key else {}
    with http(served) as client:
        return client.post("/reserve", json={"cost": cost, "user_id": user}, headers=headers)


def settle(served: Served, hold: int, cost: str | None) -> "httpx2.Response":
    with http(served) as client:
        said = {"hold": hold} if cost is None else {"hold": hold, "cost": cost}
        return client.post("/settle", json=said)


def ask(served: Served, user: str = "u") -> "httpx2.Response":
    with http(served) as client:
        body = {"model": "strong", "messages": ASK, "max_tokens": 5}
        return client.post("/v1/chat/completions", json=body, headers={"X-User-ID": user})


def standing(client: Client, user: str = "u") -> tuple[Decimal, Decimal, Decimal]:
    """Posted, held, unknown."""
    [one] = client.budgets("user", user)
    return one.posted, one.held, one.unknown


class TestAcknowledged:
    """Each answer is followed by a `kill -9` as soon as it is there."""

    def test_a_reserve_is_charged_as_unknown_and_can_be_resolved(
        self, tmp_path: Path, toml: str
    ) -> None:
        with serving(tmp_path, toml) as served:
            hold = reserve(served, "0.25").json()["hold"]
            served.process.kill()
        with serving(tmp_path, toml) as served, served.client() as client:
            assert standing(client) == (NOTHING, NOTHING, Decimal("0.25"))
            [unknown] = client.unknowns()
            assert (unknown.hold, unknown.unknown) == (hold, Decimal("0.25"))
            assert unknown.user_id == "u"
            assert unknown.request_id
            receipt = client.resolve(hold, "0.1")
            assert (receipt.state, receipt.posted) == ("adjusted", Decimal("0.1"))
            gone = settle(served, hold, "0.1")
            assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")
            served.process.kill()
        with serving(tmp_path, toml) as served, served.client() as client:
            assert standing(client) == (Decimal("0.1"), NOTHING, NOTHING)
            assert client.unknowns() == []
            with pytest.raises(APIError):
                client.resolve(hold, "0.1")

    def test_its_owner_settles_or_releases_it_after_the_restart(
        self, tmp_path: Path, toml: str
    ) -> None:
        with serving(tmp_path, toml) as served:
            first, second, third = (reserve(served, "0.25").json()["hold"] for _ in range(3))
            served.process.kill()
        with serving(tmp_path, toml) as served, served.client() as client:
            assert settle(served, first, None).json()["state"] == "unknown"
            assert standing(client) == (NOTHING, NOTHING, Decimal("0.75"))
            known = settle(served, first, "0.1").json()
            assert (known["state"], known["posted"], known["returned"]) == ("adjusted", 0.1, 0.15)
            with http(served) as raw:
                assert raw.post("/release", json={"hold": second}).json()["posted"] == 0
            assert standing(client) == (Decimal("0.1"), NOTHING, Decimal("0.25"))
            assert settle(served, first, "0.2").status_code == 404
            [left] = client.unknowns()
            assert left.hold == third
            served.process.kill()
        with serving(tmp_path, toml) as served, served.client() as client:
            assert standing(client) == (Decimal("0.1"), NOTHING, Decimal("0.25"))
            assert settle(served, 2**70, "0.2").status_code == 404

    def test_a_key_whose_hold_is_charged_is_no_new_hold(self, tmp_path: Path, toml: str) -> None:
        with serving(tmp_path, toml) as served, served.client() as client:
            with client.reserve("0.25", user_id="u", idempotency_key="order-18") as hold:
                hold.settle("0.1")
            with (
                pytest.raises(HoldResolvedError, match="settled already") as raised,
                client.reserve("0.25", user_id="u", idempotency_key="order-18"),
            ):
                pytest.fail("the block began")
            assert raised.value.hold == hold.id

    def test_a_settlement_and_a_release_stay(self, tmp_path: Path, toml: str) -> None:
        with serving(tmp_path, toml) as served:
            first, second = (reserve(served, "0.25").json()["hold"] for _ in range(2))
            assert settle(served, first, "0.125").status_code == 200
            with http(served) as client:
                assert client.post("/release", json={"hold": second}).status_code == 200
            served.process.kill()
        with serving(tmp_path, toml) as served, served.client() as client:
            assert standing(client) == (Decimal("0.125"), NOTHING, NOTHING)
            assert client.unknowns() == []

    def test_an_answer_is_charged_at_its_cost_or_at_its_hold(
        self, tmp_path: Path, toml: str
    ) -> None:
        with serving(tmp_path, toml) as served:
            assert ask(served).headers["x-cascaded-cost"] == f"{COST:f}"
            served.process.kill()
        with serving(tmp_path, toml) as served, served.client() as client:
            posted, held, unknown = standing(client)
            assert held == 0
            assert posted + unknown >= COST
            for hold in client.unknowns():
                client.resolve(hold.hold, COST)
            assert standing(client) == (COST, NOTHING, NOTHING)

    def test_a_key_means_the_same_hold_after_a_restart(self, tmp_path: Path, toml: str) -> None:
        with serving(tmp_path, toml) as served:
            first = reserve(served, "0.25", "order-17").json()
            assert first["state"] == "open"
            served.process.kill()
        with serving(tmp_path, toml) as served, served.client() as client:
            again = reserve(served, "0.25", "order-17")
            assert again.status_code == 200
            # The same hold, and it says that it is not open: what it held is charged already.
            assert again.json() == {**first, "state": "unknown"}
            other = reserve(served, "0.30", "order-17")
            assert (other.status_code, other.json()["error"]["code"]) == (
                409,
                "idempotency_conflict",
            )
            assert standing(client) == (NOTHING, NOTHING, Decimal("0.25"))

    def test_a_crash_is_one_row_that_says_how_to_be_rid_of_it(
        self, tmp_path: Path, url: str
    ) -> None:
        behind_ceilings = (CASCADE + BLOCK).replace("{url}", url)
        with serving(tmp_path, behind_ceilings) as served:
            ask(served)
            time.sleep(0.2)  # what was written is on the disk
            served.process.kill()
        with serving(tmp_path, behind_ceilings) as served, served.client() as client:
            [crash] = [one for one in client.unknowns() if one.lost]
            charged = {(one.scope, one.id): one.unknown for one in crash.counters}
            assert charged["global", "*"] == charged["user", "u"] == crash.unknown > 0
            words = ("--socket", str(served.socket))
            listed = cascaded("unknowns", "list", *words).stdout.decode()
            assert f"cascaded unknowns resolve {crash.hold} USD" in listed
            assert "user u total" in listed
            named = ("--of", "user", "u", "0.00002")
            said = cascaded("unknowns", "resolve", str(crash.hold), "0.00003", *named, *words)
            assert b"0.00003" in said.stdout, said
            assert not any(one.lost for one in client.unknowns())
            [whole] = client.budgets("global", "*")
            assert (standing(client)[0], whole.posted) == (
                COST + Decimal("0.00002"),
                COST + Decimal("0.00003"),
            )

    def test_a_polite_stop_charges_what_is_open_as_well(self, tmp_path: Path, toml: str) -> None:
        with serving(tmp_path, toml) as served:
            reserve(served, "0.25")
            ask(served)
            assert served.end() == 0
        with serving(tmp_path, toml) as _, Client(str(tmp_path / "d.sock")) as client:
            assert standing(client) == (COST, NOTHING, Decimal("0.25"))


class TestFolder:
    """What a start says to a folder that it cannot use, and what becomes of one that goes away."""

    def test_two_daemons_cannot_share_a_state(self, tmp_path: Path, toml: str) -> None:
        with serving(tmp_path, toml) as served:
            hold = reserve(served, "0.25").json()["hold"]
            code, said = refused(tmp_path, toml, socket=tmp_path / "other.sock")
            assert code == 1
            assert str(served.process.pid) in said, said
            assert settle(served, hold, "0.1").status_code == 200

    def test_a_corrupted_segment_is_refused_with_what_to_do(
        self, tmp_path: Path, toml: str
    ) -> None:
        with serving(tmp_path, toml) as served:
            with served.client() as client:
                for _ in range(50):
                    with client.reserve("0.001") as hold:
                        hold.settle("0.001")
            served.process.kill()
        corrupt(tmp_path / "state" / "ledger")
        for _ in range(2):  # refusing changes nothing
            code, said = refused(tmp_path, toml)
            assert code == 1
            for part in ("ledger", "Restore a backup", "cut"):
                assert part in said, said

    def test_a_folder_deleted_while_running(self, tmp_path: Path, toml: str) -> None:
        """The daemon says so and ends: it must not spend what nobody will remember."""
        with serving(tmp_path, toml) as served:
            assert ask(served).status_code == 200
            shutil.rmtree(tmp_path / "state")
            assert served.process.wait(15) == 1
            assert "ledger" in (tmp_path / "log.jsonl").read_text() + served.said

    def test_a_read_only_folder_is_refused(self, tmp_path: Path, toml: str) -> None:
        with small_disk(tmp_path / "state", options="ro") as disk:
            code, said = refused(tmp_path, toml, launcher=disk.launcher)
        assert code == 1
        assert "cannot be written" in said, said

    def test_a_full_disk_is_said_and_survived(self, tmp_path: Path, toml: str) -> None:
        """What was promised fits: the journal's room is made in advance."""
        with small_disk(tmp_path / "state", options=f"size={DISK_MIB}m") as disk:
            with serving(tmp_path, toml, launcher=disk.launcher) as served:
                hold = reserve(served, "0.25").json()["hold"]
                fill(disk.folder)
                assert ask(served).status_code == 200
                assert settle(served, hold, "0.125").status_code == 200
                time.sleep(1.5)  # a checkpoint comes by, and has no room
                assert ask(served).status_code == 200
                served.process.kill()
            with (  # the spare segments are enough to recover in
                serving(tmp_path, toml, launcher=disk.launcher) as served,
                served.client() as client,
            ):
                for one in client.unknowns():  # killed before the last settlement was written
                    client.resolve(one.hold, COST)
                assert standing(client) == (Decimal("0.125") + 2 * COST, NOTHING, NOTHING)
                hold = reserve(served, "0.25")
                assert hold.status_code in (200, 503), hold.text
                served.process.kill()
            (disk.folder / "filler").unlink()
            with (
                serving(tmp_path, toml, launcher=disk.launcher) as served,
                served.client() as client,
            ):
                posted, held, unknown = standing(client)
                kept = Decimal("0.25") if hold.status_code == 200 else NOTHING
                assert (posted + unknown, held) == (Decimal("0.125") + 2 * COST + kept, NOTHING)
                assert reserve(served, "0.25").status_code == 200


def refused(
    folder: Path, toml: str, socket: Path | None = None, launcher: Sequence[str] = ()
) -> tuple[int, str]:
    """A start that must fail: its exit code and words."""
    with serving(folder, toml, socket=socket, launcher=launcher, ready=False) as served:
        before = served.said
        return served.process.wait(20), served.said.removeprefix(before)


def corrupt(ledger: Path) -> None:
    """Turn a byte over, early in the first segment that has records."""
    segment = min(ledger.glob("journal-*"))
    with segment.open("r+b") as file:
        data = file.read()
        used = len(data.rstrip(b"\0"))
        assert used > 8_192, "there is something to damage"
        place = used - 3_000
        file.seek(place)
        file.write(bytes([data[place] ^ 0xFF]))


class Disk(NamedTuple):
    """A small file system of its own, seen by those who are started through `launcher`."""

    folder: Path
    """As seen from here."""
    launcher: tuple[str, ...]


@contextmanager
def small_disk(mount: Path, *, options: str) -> Iterator[Disk]:
    mount.mkdir()
    inside = f"mount -t tmpfs -o {options} tmpfs {mount} && echo mounted && exec sleep 600"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inside]
    try:
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        pytest.skip("there is no unshare here, so no small disk")
    with holder:
        try:
            assert holder.stdout is not None
            if holder.stdout.readline() != b"mounted\n":
                pytest.skip("this machine does not let us mount a small disk (user namespaces)")
            pid = str(holder.pid)
            enter = ("nsenter", "--target", pid, "--user", "--mount", "--wd", "--")
            yield Disk(Path(f"/proc/{pid}/root{mount}"), enter)
        finally:
            holder.kill()


def fill(folder: Path) -> None:
    """To the last page."""
    with (folder / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4_096))
