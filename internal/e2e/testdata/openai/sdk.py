"""What the official SDK for Python does with Penstock; an assertion that fails ends it."""

import asyncio
import sys

import openai
from pydantic import BaseModel

BASE = sys.argv[1] + "/v1"
client = openai.OpenAI(base_url=BASE, api_key="anything", max_retries=0, timeout=30)
HELLO = [{"role": "user", "content": "tell me of rivers"}]
QUICK = "sim:tokens=8,ttft=0s,gap=0s"


def raises(kind, **request):
    try:
        answer = client.chat.completions.create(messages=HELLO, **request)
        if request.get("stream"):
            for _ in answer:
                pass
    except openai.APIError as e:
        assert type(e) is kind, f"{request}: {e!r} is no {kind.__name__}"
        return e
    raise AssertionError(f"{request}: it did not fail")


def whole_and_streamed():
    whole = client.chat.completions.create(model=QUICK, messages=HELLO)
    assert whole.id.startswith("chatcmpl-") and whole.object == "chat.completion", whole
    assert whole.choices[0].finish_reason == "stop" and whole.usage.completion_tokens == 8, whole
    assert whole._request_id, "no x-request-id"
    text, last, ids = "", None, set()
    with client.chat.completions.create(
        model=QUICK, messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as stream:
        for chunk in stream:
            last = chunk
            ids.add(chunk.id)
            for choice in chunk.choices:
                text += choice.delta.content or ""
    assert text == whole.choices[0].message.content, (text, whole)
    assert last.choices == [] and last.usage.total_tokens == whole.usage.total_tokens, last
    assert len(ids) == 1, ids
    limited = client.chat.completions.create(model=QUICK, messages=HELLO, max_completion_tokens=3)
    assert limited.choices[0].finish_reason == "length", limited


def beta_stream():
    with client.chat.completions.stream(model=QUICK, messages=HELLO) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in kinds and kinds[-1] in ("content.done", "chunk"), kinds
    assert len(final.choices[0].message.content.split()) == 8, final


class City(BaseModel):
    name: str
    people: int


def structured():
    answer = client.chat.completions.parse(model="structured", messages=HELLO, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Paris", people=2), answer
    with client.chat.completions.stream(model="structured", messages=HELLO, response_format=City) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == City(name="Paris", people=2), final


class Weather(BaseModel):
    city: str


def tools():
    tool = openai.pydantic_function_tool(Weather)
    answer = client.chat.completions.parse(model="tools", messages=HELLO, tools=[tool])
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls" and message.content is None, answer
    first, second = message.tool_calls
    assert (first.id, first.type, first.function.name) == ("call_1", "function", "Weather"), answer
    assert first.function.parsed_arguments == Weather(city="Oslo"), answer
    assert second.id == "call_2" and second.function.parsed_arguments == Weather(city="Rome"), answer
    with client.chat.completions.stream(model="tools", messages=HELLO, tools=[tool]) as stream:
        final = stream.get_final_completion()
    assert [c.function.parsed_arguments.city for c in final.choices[0].message.tool_calls] == ["Oslo", "Rome"], final


def several():
    two = client.chat.completions.create(model="two", messages=HELLO, n=2)
    assert [c.message.content for c in two.choices] == ["heads", "tails"], two
    got = {}
    for chunk in client.chat.completions.create(model="two", messages=HELLO, n=2, stream=True):
        for choice in chunk.choices:
            got[choice.index] = got.get(choice.index, "") + (choice.delta.content or "")
    assert got == {0: "heads", 1: "tails"}, got
    refused = client.chat.completions.create(model="refuses", messages=HELLO)
    assert refused.choices[0].message.refusal == "I would rather not." and refused.choices[0].message.content is None, refused
    told = client.chat.completions.create(model="logprobs", messages=HELLO, logprobs=True)
    assert [p.token for p in told.choices[0].logprobs.content] == ["Hel", "lo"], told
    thought = client.chat.completions.create(model="thinks", messages=HELLO)
    assert thought.choices[0].message.reasoning_content == "hm, well" and thought.choices[0].message.content == "So.", thought
    assert thought.usage.completion_tokens_details.reasoning_tokens == 2, thought


def errors():
    for stream in (False, True):
        assert raises(openai.NotFoundError, model="status-404", stream=stream).code == "model_not_found"
        assert raises(openai.BadRequestError, model=QUICK, n=0, stream=stream).param == "n"
        assert raises(openai.RateLimitError, model="status-429", stream=stream).code == "rate_limited"
        assert raises(openai.BadRequestError, model="status-400", stream=stream)
        assert raises(openai.InternalServerError, model="status-500", stream=stream).status_code == 502
        assert raises(openai.InternalServerError, model="breaks-at-once", stream=stream)
    e = raises(openai.APIError, model="breaks", stream=True)  # in the middle: no status any more
    assert e.code == "provider_error" and e.type == "server_error", (e.code, e.body)
    assert raises(openai.InternalServerError, model="breaks").code == "provider_error"
    again = client.with_options(max_retries=2).chat.completions.create(model="second-time-py", messages=HELLO)
    assert again.choices[0].message.content == "at last", again


def timeouts_and_cuts():
    impatient = client.with_options(timeout=0.3)
    try:
        impatient.chat.completions.create(model="sim:tokens=2,ttft=3s", messages=HELLO)
        raise AssertionError("it did not time out")
    except openai.APITimeoutError:
        pass
    raw = client.chat.completions.with_raw_response.create(model="sim:tokens=40,gap=20ms", messages=HELLO, stream=True)
    name = raw.headers["x-penstock-job"]
    stream = raw.parse()
    first = next(stream)
    stream.close()  # leaving is not cancelling
    assert first.id == "chatcmpl-" + name.removeprefix("job_"), (first, name)
    for id in (name, first.id):
        job = client.get(f"/jobs/{id}?wait=30s", cast_to=object)
        assert job["status"] == "completed" and len(job["output"][0]["message"]["content"].split()) == 40, job


def idempotent():
    headers = {"Idempotency-Key": "interop-python"}
    one, two = (
        client.chat.completions.create(model=QUICK, messages=HELLO, extra_headers=headers) for _ in range(2)
    )
    assert one.id == two.id and one.choices == two.choices, (one, two)
    try:
        client.chat.completions.create(model=QUICK, messages=HELLO, max_tokens=1, extra_headers=headers)
        raise AssertionError("another body was let in")
    except openai.UnprocessableEntityError as e:
        assert e.code == "idempotency_mismatch", e


def models():
    ids = [m.id for m in client.models.list()]
    assert "sim" in ids, ids
    assert client.models.retrieve("sim").owned_by == "sim"
    assert client.models.retrieve(QUICK).id == QUICK


def embeddings():
    floats = client.embeddings.create(model="vectors", input=["a", "b"])  # the SDK asks for base64 by itself
    assert [d.embedding for d in floats.data] == [[0.5, -1.0], [1.0, 0.25]] and floats.usage.prompt_tokens == 2, floats
    asked = client.embeddings.create(model="vectors", input=["a", "b"], encoding_format="float")
    assert [d.embedding for d in asked.data] == [[0.5, -1.0], [1.0, 0.25]], asked


async def many():
    async with openai.AsyncOpenAI(base_url=BASE, api_key="anything", max_retries=0, timeout=60) as c:

        async def one():
            text = ""
            async for chunk in await c.chat.completions.create(model=QUICK, messages=HELLO, stream=True):
                text += chunk.choices[0].delta.content or ""
            return text

        texts = await asyncio.gather(*(one() for _ in range(50)))
    assert len(set(texts)) == 1 and len(texts[0].split()) == 8, set(texts)


for check in (
    whole_and_streamed, beta_stream, structured, tools, several, errors, timeouts_and_cuts, idempotent, models, embeddings,
):
    check()
    print("ok", check.__name__)
asyncio.run(many())
print("ok many")
