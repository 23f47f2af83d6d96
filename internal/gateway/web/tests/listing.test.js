import assert from 'node:assert/strict';
import test from 'node:test';

import { MAX_SENT, merge, Sent } from '../files/listing.js';

const job = (id, status, more = {}) => ({ id, status, ...more });
const ids = (jobs) => jobs.map((j) => `${j.id}:${j.status}`);

test('what was just sent stands above the list until the list has it', () => {
  const sent = new Sent();
  sent.add(job('b', 'queued'));
  sent.add(job('c', 'queued'));
  assert.deepEqual(ids(merge([job('a', 'completed')], sent)), ['c:queued', 'b:queued', 'a:completed']);
  sent.seen([job('c', 'queued'), job('b', 'running')]);
  assert.equal(sent.size, 0);
});

test('the state that is further is shown, and the list has the last word', () => {
  const sent = new Sent();
  const listed = [job('a', 'running', { model: 'sim' })];
  assert.equal(sent.learn('a', { status: 'completed' }, listed[0]), true);
  assert.deepEqual(merge(listed, sent), [job('a', 'completed', { model: 'sim' })]);
  assert.deepEqual(ids(merge([job('a', 'failed')], sent)), ['a:failed']);
  sent.seen(listed);
  assert.equal(sent.size, 1, 'the list is behind still');
  sent.seen([job('a', 'completed')]);
  assert.equal(sent.size, 0);
});

test('a state never goes back, and a job that nobody knows is not made up', () => {
  const sent = new Sent();
  sent.add(job('a', 'completed'));
  assert.equal(sent.learn('a', { status: 'running' }, undefined), false);
  assert.equal(sent.learn('z', { status: 'running' }, undefined), false);
  assert.deepEqual(ids(merge([], sent)), ['a:completed']);
});

test('a job that is on two pages is shown once', () => {
  assert.deepEqual(ids(merge([job('a', 'queued'), job('b', 'queued'), job('a', 'queued')], new Sent())), ['a:queued', 'b:queued']);
});

test('what is remembered is bounded: the oldest goes first', () => {
  const sent = new Sent();
  for (let i = 0; i < MAX_SENT + 5; i++) sent.add(job(String(i), 'queued'));
  assert.equal(sent.size, MAX_SENT);
  assert.equal([...sent.jobs.keys()][0], '5');
});
