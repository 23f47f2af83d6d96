import assert from 'node:assert/strict';
import { webcrypto } from 'node:crypto';
import test from 'node:test';

import { call, createJob, getJob, jobBody, listJobs, newKey, Outbox, Problem, problemOf } from '../files/api.js';
import { Stream } from '../files/stream.js';

globalThis.crypto ??= webcrypto; // Node.js 18 keeps it to itself

const answer = (status, body, headers = {}) => new Response(body, { status, headers });
const fault = (message, code) => JSON.stringify({ error: { message, type: 'x', param: null, code } });

/** Runs f with globals of its own. */
async function having(globals, f) {
  const before = Object.fromEntries(Object.keys(globals).map((k) => [k, globalThis[k]]));
  Object.assign(globalThis, globals);
  try {
    return await f();
  } finally {
    Object.assign(globalThis, before);
  }
}

test('the server’s own words are shown, and there are some where it has none', () => {
  assert.equal(problemOf(400, fault('body.model: it is missing', 'invalid_request')).message, 'body.model: it is missing');
  for (const text of ['<html>', '{}', '{"error":{"message":7}}', '', 'null']) {
    assert.equal(problemOf(502, text).message, 'The server answered with status 502.');
  }
  assert.equal(problemOf(429, fault('full', 'overloaded'), '7').retryAfter, 7);
});

test('a problem tells whether the request may have been taken, and whether to try again', () => {
  const seen = [0, 400, 404, 408, 429, 500, 503].map((s) => [new Problem('', s).unknown, new Problem('', s).passing]);
  assert.deepEqual(seen, [[true, true], [false, false], [false, false], [false, true], [false, true], [true, true], [true, true]]);
});

test('calls give JSON, and everything else as a problem', async () => {
  const asked = [];
  const serve = (f) => ({ fetch: async (path, init) => (asked.push([path, init]), f()) });
  await having(serve(() => answer(200, '{"a":1}')), async () => {
    assert.deepEqual(await getJob('a/b'), { a: 1 });
    await listJobs('', 50);
    await listJobs('job_1', 50);
    await createJob('{}', 'k');
  });
  assert.deepEqual(asked.map(([path]) => path), ['/v1/jobs/a%2Fb', '/v1/jobs?limit=50', '/v1/jobs?limit=50&after=job_1', '/v1/jobs']);
  assert.equal(asked[3][1].headers['Idempotency-Key'], 'k');
  await having(serve(() => answer(503, fault('PostgreSQL is away', 'unavailable'))), () =>
    assert.rejects(call('/x'), (e) => e instanceof Problem && e.status === 503 && e.message === 'PostgreSQL is away'));
  await having(serve(() => answer(200, 'hello')), () => assert.rejects(call('/x'), /is not JSON/));
  await having(serve(() => { throw new TypeError('failed to fetch'); }), () => assert.rejects(call('/x'), /cannot be reached/));
  await having(serve(() => { throw new DOMException('', 'AbortError'); }), () => assert.rejects(call('/x'), { name: 'AbortError' }));
});

test('the same body has the same key until the server has answered', () => {
  let n = 0;
  const outbox = new Outbox(() => `key${++n}`);
  assert.equal(outbox.keyOf('a'), 'key1');
  assert.equal(outbox.keyOf('a'), 'key1');
  assert.equal(outbox.keyOf('b'), 'key2');
  outbox.settle();
  assert.equal(outbox.keyOf('b'), 'key3');
});

test('keys differ, with and without a secure context', () => {
  const keys = new Set([newKey(), newKey()]);
  const randomUUID = crypto.randomUUID;
  Object.defineProperty(crypto, 'randomUUID', { value: undefined, configurable: true });
  keys.add(newKey()).add(newKey());
  Object.defineProperty(crypto, 'randomUUID', { value: randomUUID, configurable: true });
  assert.equal(keys.size, 4);
  for (const key of keys) assert.match(key, /^[0-9a-f-]{32,36}$/);
});

test('a job’s body is what POST /v1/jobs takes', () => {
  assert.deepEqual(JSON.parse(jobBody('hi "you"', 'sim', 'batch')), { lane: 'batch', body: { model: 'sim', messages: [{ role: 'user', content: 'hi "you"' }] } });
});

/** An EventSource that does what the test says. */
class Source {
  static CLOSED = 2;
  static opened = [];
  constructor(url) {
    this.url = url;
    this.readyState = 0;
    Source.opened.push(this);
  }

  close() {
    this.readyState = 2;
  }

  say(event, id) {
    this.onmessage({ data: typeof event === 'string' ? event : JSON.stringify(event), lastEventId: id });
  }

  fail(readyState) {
    this.readyState = readyState;
    this.onerror();
  }
}

/** A stream, what it told, and its timers, which the test runs. */
async function stream(reply, f) {
  Source.opened = [];
  const told = [];
  const timers = [];
  const fetched = [];
  const globals = {
    EventSource: Source,
    fetch: async (url) => (fetched.push(url), reply()),
    setTimeout: (run, ms) => timers.push({ run, ms }),
    clearTimeout: () => {},
  };
  await having(globals, async () => {
    const s = new Stream('job_1', {
      event: (e) => told.push(e.type),
      state: (state, message) => told.push(message ? `${state}: ${message}` : state),
    });
    await f({ s, told, timers, fetched, source: () => Source.opened.at(-1) });
  });
}

const settled = () => new Promise((done) => setImmediate(done));

test('a stream is live, reconnects by itself, and ends after the terminal event', () =>
  stream(() => { throw new Error('nobody asks'); }, async ({ told, source }) => {
    source().onopen();
    source().say({ type: 'output.started', seq: 0 }, 'c0');
    source().fail(0);
    source().onopen();
    source().say('not JSON', 'c1');
    source().say({ no: 'type' }, 'c2');
    source().say({ type: 'output.completed', seq: 1 }, 'c3');
    source().onmessage({ data: '{"type":"late"}', lastEventId: '' });
    source().fail(2);
    assert.deepEqual(told, ['connecting', 'live', 'output.started', 'reconnecting', 'live', 'output.completed', 'ended']);
    assert.equal(source().readyState, 2);
  }));

test('after 204 nothing follows', () =>
  stream(() => answer(204, null), async ({ told, fetched, source }) => {
    source().say({ type: 'output.delta' }, 'c 7');
    source().fail(2);
    await settled();
    assert.deepEqual(fetched, ['/v1/jobs/job_1/events?cursor=c%207']);
    assert.deepEqual(told, ['connecting', 'output.delta', 'ended']);
  }));

test('a server that is away is asked again, ever more slowly, from where the stream was', () =>
  stream(() => answer(503, fault('Kafka is away', 'unavailable'), { 'Retry-After': '1' }), async ({ told, timers, source }) => {
    source().say({ type: 'output.delta' }, 'c7');
    for (let i = 0; i < 8; i++) {
      source().fail(2);
      await settled();
      timers.at(-1).run();
    }
    assert.equal(told.at(-1), 'reconnecting: Kafka is away');
    assert.deepEqual(timers.map((t) => t.ms), [1000, 1000, 2000, 4000, 8000, 10_000, 10_000, 10_000]);
    assert.equal(source().url, '/v1/jobs/job_1/events?cursor=c7');
    assert.equal(Source.opened.length, 9);
  }));

test('an answer that stays what it is ends the trying', () =>
  stream(() => answer(404, fault('there is no job "job_1"', 'not_found')), async ({ told, timers, source }) => {
    source().fail(2);
    await settled();
    assert.deepEqual(told, ['connecting', 'refused: there is no job "job_1"']);
    assert.equal(timers.length, 0);
  }));

test('a page in place of a stream is refused, a stream that is there again is taken', async () => {
  await stream(() => answer(200, '<html>', { 'Content-Type': 'text/html' }), async ({ told, source }) => {
    source().fail(2);
    await settled();
    assert.match(told.at(-1), /^refused: .*no stream/);
  });
  await stream(() => answer(200, '', { 'Content-Type': 'text/event-stream' }), async ({ timers, source }) => {
    source().fail(2);
    await settled();
    timers[0].run();
    assert.equal(Source.opened.length, 2);
  });
});

test('who let go hears nothing more', () =>
  stream(() => { throw new TypeError('unreachable'); }, async ({ s, told, timers, source }) => {
    source().fail(2);
    await settled();
    assert.equal(told.at(-1), 'reconnecting: The server cannot be reached.');
    timers[0].run();
    source().fail(2);
    s.close();
    await settled();
    source().say({ type: 'output.delta' }, 'x');
    source().fail(0);
    assert.equal(told.length, 2);
  }));
