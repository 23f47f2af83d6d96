import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import test from 'node:test';

import * as words from '../files/words.js';

const created = '2026-11-22T15:04:05.000Z';
const now = Date.parse(created) + 12_300;

test('durations read well', () => {
  const want = { 0: '0 ms', 999: '999 ms', 1000: '1.0 s', 9949: '9.9 s', 12_300: '12 s', 59_940: '60 s', 61_000: '1 min 1 s', 3_600_000: '1 h 0 min', 7_260_000: '2 h 1 min', 90_000_000: '1 d' };
  for (const [ms, text] of Object.entries(want)) assert.equal(words.duration(Number(ms)), text);
  assert.equal(words.duration(null), '–');
  assert.equal(words.duration(-5), '0 ms');
});

test('ages are whole', () => {
  assert.deepEqual([-5, 1999, 2000, 61_000, 7_200_000, 172_800_000].map(words.age), ['now', 'now', '2 s ago', '1 min ago', '2 h ago', '2 d ago']);
});

test('a job that waits says in which lane and since when', () => {
  const text = words.why({ lane: 'batch', created_at: created }, now);
  assert.match(text, /^Waits in the batch lane since \d\d:\d\d:\d\d \(12 s\): no processor has begun it yet\.$/);
  assert.match(words.why({}, now), /^Waits in its lane: no processor/);
});

test('a row says what matters of each state', () => {
  const job = { id: 'job_1', model: 'sim', lane: 'batch', created_at: created };
  assert.deepEqual(words.row({ ...job, status: 'queued' }, now), { label: 'waiting', age: '12 s ago', detail: 'waits in batch for 12 s · sim' });
  assert.equal(words.row({ ...job, status: 'running' }, now).detail, 'batch · sim');
  assert.equal(words.row({ ...job, status: 'completed', ended_at: '2026-11-22T15:04:06.500Z' }, now).detail, 'batch · 1.5 s · sim');
  assert.equal(words.row({ ...job, status: 'failed', error: { code: 'provider_error' } }, now).detail, 'batch · provider_error · sim');
  assert.deepEqual(words.row({ id: 'x', status: 'queued' }, now), { label: 'waiting', age: '', detail: 'waits in its lane' });
  assert.equal(words.row({ id: 'x', status: 'of_a_later_version' }, now).label, 'of_a_later_version');
});

test('rates and usage say what is a guess and what is not known', () => {
  assert.deepEqual([words.rate(null, false), words.rate(3.25, false), words.rate(120.4, true)], ['–', '≈ 3.3', '120']);
  assert.deepEqual([words.usage(null), words.usage({ prompt_tokens: 3, completion_tokens: 4 }), words.usage({})], ['–', '3 in, 4 out', '0 in, 0 out']);
  assert.match(words.clock(now), /^\d\d:04:17$/);
  assert.deepEqual([words.time(created), words.time(undefined), words.time('soon')], [Date.parse(created), 0, 0]);
});

test('a job’s head says what is known of it', () => {
  const view = { model: '', provider: '', lane: '' };
  assert.equal(words.about({ id: 'x', status: 'queued' }, view), '');
  const job = { id: 'x', status: 'queued', model: 'sim', lane: 'batch', request: { topic: 'penstock.requests.batch', partition: 3, offset: 12 } };
  assert.equal(words.about(job, view), 'sim · batch lane · penstock.requests.batch, partition 3, offset 12');
  assert.match(words.about(job, { ...view, model: 'sim-2', provider: 'simulated' }), /^sim-2 by simulated · /);
  assert.match(words.about(job, { ...view, model: 'sim', provider: 'sim' }), /^sim · /);
});

test('long ids are shortened, others are not', () => {
  assert.equal(words.shortId('job_06f3k2m8q0000000000000000000000a'), '…000000000a');
  assert.equal(words.shortId('invoice-17'), 'invoice-17');
});

test('what is quoted stays one word in a shell', () => {
  for (const text of ["it's", '$HOME `id` "x"', 'a b', "'"]) {
    assert.equal(execFileSync('sh', ['-c', `printf %s ${words.quote(text)}`], { encoding: 'utf8' }), text);
  }
});

test('the lines to copy name the job, its topic and its place', () => {
  assert.equal(words.curlLine('http://h:1', 'a:b'), "curl -N 'http://h:1/v1/jobs/a%3Ab/events'");
  const job = { id: 'job_1', created_at: created, request: { topic: 'penstock.requests.standard', partition: 3, offset: 12 } };
  assert.equal(words.kcatLine(job),
    `kcat -C -q -e -b "\${BROKER:-localhost:9092}" -t 'penstock.tokens' -p 3 -o s@${Date.parse(created)} | grep -F '"job":"job_1"'`);
  assert.match(words.kcatLine({ ...job, created_at: undefined }), / -o beginning /);
  assert.equal(words.kcatLine({ id: 'job_1' }), '');
});
