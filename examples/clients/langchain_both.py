"""LangChain by either dialect, over loopback TCP: Anthropic's class cannot dial a socket.

`pip install langchain-openai langchain-anthropic`. The daemon's configuration has

    [server]
    tcp = "127.0.0.1:8127"
    [server.tcp_keys]
    my-app = "env:CASCADED_KEY"
"""

import os

from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI

URL, KEY = os.environ["CASCADED_URL"], os.environ["CASCADED_KEY"]
models = (
    ChatOpenAI(model="auto", base_url=f"{URL}/v1", api_key=KEY, max_tokens=200),
    ChatAnthropic(model="auto", base_url=URL, api_key=KEY, max_tokens=200),
)
for model in models:
    print(model.invoke("What is the capital of France?").content)
    print("".join(str(chunk.content) for chunk in model.stream("And of France, again?")))
