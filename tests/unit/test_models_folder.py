"""The catalogue of embedded models and what lies in the models folder."""

from pathlib import Path

import pytest

from cascaded.models.catalogue import MODELS, UnknownModelError, find
from cascaded.models.folder import (
    bytes_under,
    listing,
    look,
    models_folder,
    verify,
    weights_path,
    work_folder,
)
from tests.support.weights import BYTES, MODEL


def test_the_pins_are_whole() -> None:
    for model in MODELS:
        assert len(bytes.fromhex(model.sha256)) == 32
        assert model.hub is not None
        assert model.licence == "Apache-2.0"
        full, last = divmod(model.size_bytes, model.part_bytes)
        assert len(model.parts) == full + (last > 0)
    assert {model.role for model in MODELS} == {"draft", "verifier"}


def test_names_are_found_whatever_their_case() -> None:
    assert find(" SmolLM2-135M-Instruct ").role == "draft"
    assert find("qwen2.5-coder-1.5b-instruct").role == "verifier"


def test_a_typo_gets_a_suggestion_and_nonsense_the_list() -> None:
    with pytest.raises(UnknownModelError, match="did you mean 'smollm2-135m-instruct'"):
        find("smollm2-135m")
    with pytest.raises(UnknownModelError, match=r"'zzz': there are smollm2.*, qwen"):
        find("zzz")


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"CASCADED_MODELS": "/m", "XDG_CACHE_HOME": "/x"}, "/m"),
        ({"CACHE_DIRECTORY": "/var/cache/c:/other"}, "/var/cache/c/models"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/cascaded/models"),
        ({"XDG_CACHE_HOME": "relative", "CACHE_DIRECTORY": "r"}, "/home/me/.cache/cascaded/models"),
        ({"CASCADED_MODELS": "~/m"}, "/home/me/m"),
    ],
)
def test_where_models_are_kept(
    environ: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert str(models_folder(environ)) == folder


def test_states(tmp_path: Path) -> None:
    assert look(MODEL, tmp_path).state == "absent"
    work = work_folder(MODEL, tmp_path)
    work.mkdir(parents=True)
    (work / "weights").write_bytes(b"abc")
    found = look(MODEL, tmp_path)
    assert (found.state, found.bytes_on_disk, found.usable) == ("partial", 3, False)
    assert verify(MODEL, tmp_path).state == "partial"

    path = weights_path(MODEL, tmp_path)
    path.write_bytes(BYTES)
    assert look(MODEL, tmp_path).usable
    heard: list[int] = []
    assert verify(MODEL, tmp_path, heard.append).state == "good"
    assert heard == [len(BYTES)]
    assert listing(tmp_path, (MODEL,))[0].state == "present"

    path.write_bytes(BYTES[:-1] + b"?")
    found = verify(MODEL, tmp_path)
    assert found.state == "bad"
    assert "sha256" in found.detail
    assert "cascaded models pull tiny" in found.detail
    path.write_bytes(b"short")
    assert look(MODEL, tmp_path).state == "bad"
    assert "5 bytes instead of" in look(MODEL, tmp_path).detail


def test_bytes_under_a_folder_that_changes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"123")
    (tmp_path / "c").write_bytes(b"12")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert bytes_under(tmp_path) >= 5
    assert bytes_under(tmp_path / "nowhere") == 0
