"""A FastAPI service that answers its customers in a stream, each charged to himself and his tier.

`pip install fastapi uvicorn openai httpx2`, then `uvicorn fastapi_app:app`. The daemon believes the
two headers because its configuration trusts the user that this runs as (`access.trusted`). Take
customer and tier from your log-in; two headers of the caller's stand in for it here.
"""

import os
from collections.abc import AsyncIterator
from typing import Annotated

import httpx2
import openai
from fastapi import FastAPI, Header, HTTPException
from fastapi.responses import StreamingResponse

line = httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=os.environ["CASCADED_SOCKET"]))
sdk = openai.AsyncOpenAI(api_key="unused", base_url="http://localhost/v1", http_client=line)
app = FastAPI()


@app.get("/ask")
async def ask(
    question: str, customer: Annotated[str, Header()], tier: Annotated[str, Header()] = "free"
) -> StreamingResponse:
    try:
        chunks = await sdk.chat.completions.create(
            model="auto",
            messages=[{"role": "user", "content": question}],
            max_tokens=200,
            stream=True,
            extra_headers={"X-User-ID": customer, "X-User-Tier": tier},
        )
    except openai.RateLimitError as refused:
        code = 402 if refused.code == "insufficient_quota" else 429
        raise HTTPException(code, refused.body["message"]) from None
    return StreamingResponse(words(chunks), media_type="text/plain")


async def words(chunks: openai.AsyncStream) -> AsyncIterator[str]:
    async for chunk in chunks:
        for choice in chunk.choices:
            yield choice.delta.content or ""
