"""OpenAI's own SDK, unchanged but for the address: over the daemon's socket, plain and streamed.

`pip install openai httpx2`; `CASCADED_SOCKET` is what `cascaded serve` logs as it begins.
"""

import os

import httpx2
import openai

line = httpx2.Client(transport=httpx2.HTTPTransport(uds=os.environ["CASCADED_SOCKET"]))
client = openai.OpenAI(api_key="unused", base_url="http://localhost/v1", http_client=line)
ask = [{"role": "user", "content": "What is the capital of France?"}]

answer = client.chat.completions.create(model="auto", messages=ask, user="alice")
print(answer.choices[0].message.content)

chunks = client.chat.completions.create(
    model="auto", messages=ask, user="alice", stream=True, stream_options={"include_usage": True}
)
for chunk in chunks:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="")
    if chunk.usage:
        print("\ncost:", chunk.usage.cost)
client.close()
