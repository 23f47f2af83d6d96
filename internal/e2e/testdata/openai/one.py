"""One streamed chat with the official SDK for Python: prints its id, then its text."""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="anything", max_retries=0, timeout=60)
stream = client.chat.completions.create(model="sim", messages=[{"role": "user", "content": "hi"}], stream=True)
chunks = list(stream)
print(chunks[0].id)
print("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), end="")
