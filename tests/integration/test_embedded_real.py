"""The real SmolLM2 in the real llama.cpp, when its weights are here."""

import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from cascaded.adapters.clock import SystemClock
from cascaded.models.catalogue import find
from cascaded.models.folder import look, models_folder
from cascaded.ports import Call, Provider
from cascaded.providers.embedded.provider import TRAITS, EmbeddedModel, EmbeddedProvider
from cascaded.providers.openai_compatible import Endpoint, OpenAICompatible
from cascaded.types.errors import ProviderError
from cascaded.types.event import Event
from cascaded.types.model import Model
from cascaded.types.secret import Secret

pytestmark = pytest.mark.models
NAME = "smollm2-135m-instruct"
CONTEXT_TOKENS = 512


def connect(socket: str, key: Secret) -> Provider:
    endpoint = Endpoint(
        base_url="http://embedded/v1", uds=socket, api_key=key, headers={"Connection": "close"}
    )
    return OpenAICompatible("embedded", endpoint, TRAITS, SystemClock())


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[EmbeddedProvider]:
    pytest.importorskip("xllamacpp", reason="needs `pip install 'cascaded[embedded]'`")
    found = look(find(NAME), models_folder(os.environ))
    if not found.usable:
        pytest.skip(f"needs the weights: `cascaded models pull {NAME}`")
    provider = EmbeddedProvider(
        "embedded",
        {NAME: EmbeddedModel(weights=found.path, context_tokens=CONTEXT_TOKENS)},
        runtime_folder=tmp_path / "run",
        connect=connect,
        clock=SystemClock(),
    )
    yield provider
    await provider.close()


async def ask(provider: Provider, words: str, *, stream: bool = False) -> list[Event]:
    body = {
        "model": NAME,
        "messages": [{"role": "user", "content": words}],
        "max_tokens": 12,
        "temperature": 0,
        "logprobs": True,
        "stream": stream,
        **({"stream_options": {"include_usage": True}} if stream else {}),
    }
    call = Call(
        model=Model(name="draft", provider="embedded", upstream_name=NAME),
        fields={name: msgspec.Raw(msgspec.json.encode(value)) for name, value in body.items()},
        stream=stream,
        request_id="r1",
    )
    async with aclosing(provider.call(call)) as events:
        return [event async for event in events]


async def test_plain_and_streamed_answers_agree_and_carry_usage_and_logprobs(
    provider: EmbeddedProvider,
) -> None:
    (whole,) = await ask(provider, "What is 2+2?")
    chunks = await ask(provider, "What is 2+2?", stream=True)

    assert whole.whole
    assert "4" in whole.text
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert len([chunk for chunk in chunks if chunk.text]) > 3
    usage = next(chunk.usage for chunk in chunks if chunk.usage is not None)
    assert whole.usage is not None
    assert whole.usage.input_tokens == usage.input_tokens > 5
    assert whole.usage.output_tokens == usage.output_tokens <= 12
    assert whole.logprob_count > 3
    assert whole.logprob_sum < 0
    assert sum(chunk.logprob_count for chunk in chunks) >= whole.logprob_count - 1


async def test_a_prompt_longer_than_the_context_is_refused_and_the_child_lives(
    provider: EmbeddedProvider,
) -> None:
    with pytest.raises(ProviderError, match="context size") as caught:
        await ask(provider, "word " * (2 * CONTEXT_TOKENS))
    assert (caught.value.code, caught.value.status) == ("upstream_refused", 400)
    assert len(await ask(provider, "Hi")) == 1
