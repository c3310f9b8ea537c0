"""Providers by their names: what is filled in, what goes over it, whose prices apply."""

from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from msgspec.structs import replace

from cascaded.config import examine
from cascaded.config.presets import PROVIDER_PRESETS
from cascaded.config.schema import OpenAICompatible, Preset
from cascaded.daemon.book import SELLERS_BY_PRESET, model_book, prices_today
from cascaded.ports import Call
from cascaded.providers.openai_compatible import OpenAISpeech
from cascaded.types.model import Model
from tests.support.daemon import parse, read
from tests.support.fakes import FakeClock

OWN_MACHINES = {"vllm", "ollama", "llama_cpp"}
HEAD = '[providers.up]\nkind = "openai_compatible"\n'
ANY_MODEL = '[models.m]\nprovider = "up"\nfree = true\n'


def upstream(text: str) -> OpenAICompatible:
    one = parse(HEAD + text + ANY_MODEL, KEY="a-key").providers["up"]
    assert isinstance(one, OpenAICompatible)
    return one


def test_every_preset_is_one() -> None:
    assert set(get_args(Preset)) == PROVIDER_PRESETS.keys()
    assert SELLERS_BY_PRESET.keys() == PROVIDER_PRESETS.keys() - OWN_MACHINES
    for said in PROVIDER_PRESETS.values():
        assert said.keys() <= set(OpenAICompatible.__struct_fields__)


@pytest.mark.parametrize("preset", PROVIDER_PRESETS)
def test_a_preset_is_enough(preset: str) -> None:
    address = 'base_url = "https://r.openai.azure.com"\n' if preset == "azure" else ""
    one = upstream(f'preset = "{preset}"\n{address}')
    for key, value in PROVIDER_PRESETS[preset].items():
        assert getattr(one, key) == value
    assert not one.bills_on_5xx, "nobody sells errors"
    assert one.cancel_stops_billing == (preset in OWN_MACHINES)


def test_the_file_goes_over_it() -> None:
    one = upstream(
        'preset = "ollama"\nbase_url = "http://gpu:1/v1"\ncancel_stops_billing = false\n'
    )
    assert one.base_url == "http://gpu:1/v1"
    assert not one.cancel_stops_billing


def test_where_a_value_comes_from(tmp_path: Path) -> None:
    text = HEAD + 'preset = "gemini"\n' + ANY_MODEL
    found: Any = examine(
        text, file=None, env={}, read_file=Path.read_bytes, mode_of=lambda _: 0o600
    )
    assert found.origins.of(("providers", "up", "base_url")) == "preset gemini"
    assert found.origins.of(("providers", "up", "uds")) == "default"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "providers.up.base_url: missing; expected a URL such as https://api.openai.com/v1"),
        ('preset = "azure"', "expected a URL such as https://NAME.openai.azure.com"),
        (
            'preset = "azure"\nbase_url = "https://r.openai.azure.com/openai/v1"',
            "without a path; expected a URL such as https://NAME.openai.azure.com; did you mean"
            ' "https://r.openai.azure.com"?',
        ),
        ('preset = "Groq"', 'did you mean "groq"?'),
        ('preset = "google"', 'did you mean "gemini"?'),
        ('preset = "azure-openai"', 'did you mean "azure"?'),
        ('preset = "togetherai"', 'did you mean "together"?'),
        ("preset = 5", "expected"),
    ],
)
def test_mistakes(text: str, told: str) -> None:
    found = read(f"{HEAD}{text}\n{ANY_MODEL}")
    assert isinstance(found, list)
    assert any(told in one for one in found), found


@pytest.mark.parametrize(
    ("preset", "address", "model", "seller"),
    [
        ("groq", "", "llama-3.3-70b-versatile", "groq"),
        ("groq", "http://proxy:1/v1", "llama-3.3-70b-versatile", "groq"),
        ("gemini", "", "gemini-2.5-flash", "google"),
        ("azure", "https://r.openai.azure.com", "gpt-4o", "azure"),
        (None, "https://r.openai.azure.com/openai/v1", "gpt-4o", "azure"),
        ("deepseek", "", "deepseek-chat", "deepseek"),
    ],
)
def test_whose_prices_apply(preset: str | None, address: str, model: str, seller: str) -> None:
    text = HEAD
    text += f'preset = "{preset}"\n' if preset else ""
    text += f'base_url = "{address}"\n' if address else ""
    config = parse(f'{text}[models."{model}"]\nprovider = "up"\n')
    find_price = prices_today(config, FakeClock())
    known = find_price("up", model)
    assert known is not None
    assert known.seller == seller
    assert model_book(config, find_price).models[model].price == known.price


def call(deployment: str) -> Call:
    model = Model(name="m", provider="p", upstream_name=deployment)
    return Call(model=model, fields={}, stream=False, request_id="r")


def test_azure_is_called_its_own_way() -> None:
    speech = OpenAISpeech(api_version="2024-10-21")
    path = "/openai/deployments/our%20own%2F4o/chat/completions?api-version=2024-10-21"
    assert speech.path(call("our own/4o")) == path
    assert speech.headers(call("d"), "k") == {"api-key": "k"}
    assert speech.headers(call("d"), None) == {}
    asked = replace(call("d"), form="responses")
    assert speech.path(asked) == "/openai/v1/responses"
    assert OpenAISpeech().path(asked) == "/responses"
    assert OpenAISpeech().path(call("d")) == "/chat/completions"
    assert OpenAISpeech().headers(call("d"), "k") == {"Authorization": "Bearer k"}


def test_a_flavour_reads_whole_answers_and_chunks() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 9}
    choice = {"index": 0, "message": {"content": "Paris"}, "finish_reason": "stop"}
    body = msgspec.json.encode({"choices": [choice], "usage": usage})
    for speech, output in ((OpenAISpeech(reasoning_apart=True), 8), (OpenAISpeech(), 2)):
        heard = speech.ear(call("m")).hear(body)
        assert heard is not None
        for event in (speech.whole(call("m"), body), heard):
            assert event.usage is not None
            assert event.usage.output_tokens == output


def test_how_a_model_is_asked() -> None:
    """As its own setting says, else as that of its provider."""
    said = (("", "chat"), ('api = "responses"\n', "responses"))
    for provider, form in said:
        for own, wanted in (("", form), *said[1:], ('api = "chat"\n', "chat")):
            config = parse(
                f'{HEAD}preset = "openai"\n{provider}[models."gpt-4o"]\nprovider = "up"\n{own}'
            )
            book = model_book(config, prices_today(config, FakeClock()))
            assert book.models["gpt-4o"].form == wanted
