"""Who answers under the next configuration: the same where nothing changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cascaded.config import Config
from cascaded.daemon.answerers import Answerer, make_answerers
from cascaded.daemon.errors import StartError
from tests.support.daemon import parse
from tests.support.fakes import FakeClock

UPSTREAM = """
[providers.up]
kind = "openai_compatible"
base_url = "http://127.0.0.1:1/v1"
api_key = "env:KEY"
ca_file = "{ca}"
[models.m]
provider = "up"
free = true
"""
EMBEDDED = """
[providers.embedded]
kind = "embedded"
threads = 1
[models.smollm2-135m-instruct]
provider = "embedded"
free = true
"""


def made(config: Config, former: Mapping[str, Answerer], number: int) -> dict[str, Answerer]:
    """Nobody listens, and nobody asks for embeddings or batches."""
    return make_answerers(
        config, FakeClock(), former, number, print, NotImplemented, NotImplemented
    )


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    file = tmp_path / "ca.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\n")
    return file


def test_an_upstream_is_the_same_until_something_of_it_changes(ca: Path) -> None:
    text = UPSTREAM.replace("{ca}", str(ca))
    first = made(parse(text, KEY="one-key-of-mine"), {}, 1)

    def again(text: str = text, key: str = "one-key-of-mine") -> bool:
        return made(parse(text, KEY=key), first, 2)["up"] is first["up"]

    assert again()
    assert again(text + "[aliases]\nother = 'm'\n")
    assert not again(key="another-key")
    assert not again(text.replace("127.0.0.1:1/", "127.0.0.1:2/"))
    ca.write_text("-----BEGIN CERTIFICATE-----\nrenewed\n")
    assert not again()
    config = parse(text, KEY="one-key-of-mine")
    ca.unlink()
    with pytest.raises(StartError, match="ca_file"):
        made(config, first, 2)


def test_a_changed_embedded_model_runs_beside_the_former(tmp_path: Path) -> None:
    config = parse(EMBEDDED, XDG_RUNTIME_DIR=str(tmp_path))
    first = made(config, {}, 1)
    assert made(config, first, 2) == first
    changed = parse(EMBEDDED.replace("threads = 1", "threads = 2"), XDG_RUNTIME_DIR=str(tmp_path))
    other = made(changed, first, 2)
    providers: list[Any] = [each["embedded"].provider for each in (first, other)]
    sockets = [one._served["smollm2-135m-instruct"].place.socket for one in providers]
    assert [one.name for one in sockets] == ["embedded-0.sock", "embedded-2-0.sock"]
    assert sockets[0].parent == sockets[1].parent
