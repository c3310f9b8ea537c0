"""Anthropic's own SDK over the daemon's socket: whoever answers, it is told as a message.

`pip install anthropic httpx2`.
"""

import os

import anthropic
import httpx2

line = httpx2.Client(transport=httpx2.HTTPTransport(uds=os.environ["CASCADED_SOCKET"]))
client = anthropic.Anthropic(api_key="unused", base_url="http://localhost", http_client=line)
ask = [{"role": "user", "content": "What is the capital of France?"}]

message = client.messages.create(model="auto", max_tokens=200, messages=ask)
print(message.content[0].text)

with client.messages.stream(model="auto", max_tokens=200, messages=ask) as stream:
    for text in stream.text_stream:
        print(text, end="")
    print("\nended:", stream.get_final_message().stop_reason)
client.close()
