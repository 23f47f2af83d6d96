// What the official SDK for Node.js and the Vercel AI SDK do with Penstock; an
// assertion that fails ends it.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { zodFunction, zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, generateText, streamText, tool } from 'ai';

const baseURL = process.argv[2] + '/v1';
const client = new OpenAI({ baseURL, apiKey: 'anything', maxRetries: 0, timeout: 30_000 });
const messages = [{ role: 'user', content: 'tell me of rivers' }];
const quick = 'sim:tokens=8,ttft=0s,gap=0s';
const words = (s) => s.trim().split(/\s+/).length;

async function wholeAndStreamed() {
  const whole = await client.chat.completions.create({ model: quick, messages });
  assert.equal(words(whole.choices[0].message.content), 8);
  assert.ok(whole._request_id);
  let text = '', last;
  for await (const chunk of await client.chat.completions.create({ model: quick, messages, stream: true, stream_options: { include_usage: true } })) {
    assert.equal(chunk.object, 'chat.completion.chunk'); // an event line would have changed the shape
    text += chunk.choices[0]?.delta?.content ?? '';
    last = chunk;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.deepEqual([last.choices, last.usage.total_tokens], [[], whole.usage.total_tokens]);
  const final = await client.chat.completions.stream({ model: quick, messages }).finalChatCompletion();
  assert.equal(final.choices[0].message.content, text);
}

async function structured() {
  const City = z.object({ name: z.string(), people: z.number() });
  const answer = await client.chat.completions.parse({ model: 'structured', messages, response_format: zodResponseFormat(City, 'city') });
  assert.deepEqual(answer.choices[0].message.parsed, { name: 'Paris', people: 2 });
  const stream = client.chat.completions.stream({ model: 'structured', messages, response_format: zodResponseFormat(City, 'city') });
  assert.deepEqual((await stream.finalChatCompletion()).choices[0].message.parsed, { name: 'Paris', people: 2 });
}

async function tools() {
  const weather = zodFunction({ name: 'Weather', parameters: z.object({ city: z.string() }) });
  for (const answer of [
    await client.chat.completions.parse({ model: 'tools', messages, tools: [weather] }),
    await client.chat.completions.stream({ model: 'tools', messages, tools: [weather] }).finalChatCompletion(),
  ]) {
    assert.deepEqual(answer.choices[0].message.tool_calls.map((c) => [c.id, c.function.parsed_arguments.city]), [['call_1', 'Oslo'], ['call_2', 'Rome']]);
    assert.equal(answer.choices[0].finish_reason, 'tool_calls');
  }
}

async function several() {
  const two = await client.chat.completions.create({ model: 'two', messages, n: 2 });
  assert.deepEqual(two.choices.map((c) => c.message.content), ['heads', 'tails']);
  const streamed = await client.chat.completions.stream({ model: 'two', messages, n: 2 }).finalChatCompletion();
  assert.deepEqual(streamed.choices.map((c) => c.message.content), ['heads', 'tails']);
  const refused = await client.chat.completions.stream({ model: 'refuses', messages }).finalChatCompletion();
  assert.equal(refused.choices[0].message.refusal, 'I would rather not.');
}

async function errors() {
  for (const stream of [false, true]) {
    const failing = (request, kind, more) => assert.rejects(
      async () => { for await (const _ of [].concat(await client.chat.completions.create({ messages, stream, ...request }))); },
      (e) => { assert.ok(e instanceof kind, `${JSON.stringify(request)}: ${e}`); assert.partialDeepStrictEqual?.({ ...e }, more ?? {}); return true; },
    );
    await failing({ model: 'status-404' }, OpenAI.NotFoundError, { code: 'model_not_found' });
    await failing({ model: quick, n: 0 }, OpenAI.BadRequestError, { param: 'n' });
    await failing({ model: 'status-429' }, OpenAI.RateLimitError, { code: 'rate_limited' });
    await failing({ model: 'status-500' }, OpenAI.InternalServerError, { status: 502 });
  }
  const stream = await client.chat.completions.create({ model: 'breaks', messages, stream: true });
  let text = '';
  await assert.rejects(async () => { for await (const chunk of stream) text += chunk.choices[0].delta.content ?? ''; },
    (e) => e instanceof OpenAI.APIError && e.code === 'provider_error');
  assert.equal(text, 'half an ');
  const again = await client.chat.completions.create({ model: 'second-time-js', messages }, { maxRetries: 2 });
  assert.equal(again.choices[0].message.content, 'at last');
}

async function timeoutsAndCuts() {
  await assert.rejects(client.chat.completions.create({ model: 'sim:tokens=2,ttft=3s', messages }, { timeout: 300 }), OpenAI.APIConnectionTimeoutError);
  const { data: stream, response } = await client.chat.completions.create({ model: 'sim:tokens=40,gap=20ms', messages, stream: true }).withResponse();
  for await (const _ of stream) break; // leaving is not cancelling
  const job = await client.get(`/jobs/${response.headers.get('x-penstock-job')}?wait=30s`);
  assert.deepEqual([job.status, words(job.output[0].message.content)], ['completed', 40]);
}

async function models() {
  const ids = [];
  for await (const m of client.models.list()) ids.push(m.id);
  assert.ok(ids.includes('sim'), ids);
  assert.equal((await client.models.retrieve('sim')).owned_by, 'sim');
  await assert.rejects(client.chat.completions.create({ model: '', messages }), OpenAI.BadRequestError);
}

async function embeddings() {
  const got = await client.embeddings.create({ model: 'vectors', input: ['a', 'b'] });
  assert.deepEqual(got.data.map((d) => Array.from(d.embedding)), [[0.5, -1], [1, 0.25]]);
}

async function vercel() {
  const provider = createOpenAICompatible({ name: 'penstock', baseURL, apiKey: 'anything', includeUsage: true });
  const prompt = 'tell me of rivers';
  const whole = await generateText({ model: provider(quick), prompt, maxRetries: 0 });
  const stream = streamText({ model: provider(quick), prompt, maxRetries: 0 });
  let text = '';
  for await (const part of stream.textStream) text += part;
  assert.equal(text, whole.text);
  assert.equal((await stream.usage).outputTokens, 8);
  const thought = streamText({ model: provider('thinks'), prompt, maxRetries: 0 });
  assert.deepEqual([await thought.text, await thought.reasoningText], ['So.', 'hm, well']);
  const called = streamText({ model: provider('tools'), prompt, maxRetries: 0, tools: { Weather: tool({ inputSchema: z.object({ city: z.string() }) }) } });
  assert.deepEqual((await called.toolCalls).map((c) => c.input.city), ['Oslo', 'Rome']);
  await assert.rejects(generateText({ model: provider('status-429'), prompt, maxRetries: 0 }), (e) => APICallError.isInstance(e) && e.statusCode === 429);
  let failure;
  for await (const part of streamText({ model: provider('breaks'), prompt, maxRetries: 0, onError() {} }).fullStream) if (part.type === 'error') failure = part.error;
  assert.ok(failure, 'a failure in the middle was not seen');
}

for (const check of [wholeAndStreamed, structured, tools, several, errors, timeoutsAndCuts, models, embeddings, vercel]) {
  await check();
  console.log('ok', check.name);
}
