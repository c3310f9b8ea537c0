"""LiteLLM's SDK before the daemon: to it the daemon is one more OpenAI-compatible upstream.

`pip install litellm`; the daemon listens on loopback TCP as in langchain_both.py.
"""

import os

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # prices are the daemon's
import litellm

URL, KEY = os.environ["CASCADED_URL"], os.environ["CASCADED_KEY"]
answer = litellm.completion(
    model="openai/auto",
    api_base=f"{URL}/v1",
    api_key=KEY,
    messages=[{"role": "user", "content": "What is the capital of France?"}],
    max_tokens=200,
)
print(answer.choices[0].message.content)
headers = answer._hidden_params["additional_headers"]
print("cost:", headers["llm_provider-x-cascaded-cost"])
