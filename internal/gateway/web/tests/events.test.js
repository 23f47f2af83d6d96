import assert from 'node:assert/strict';
import test from 'node:test';

import { ended, figures, initial, last, MAX_NOTICES, reduce } from '../files/events.js';

const at = (ms) => new Date(Date.UTC(2026, 10, 22, 15, 4, 5) + ms).toISOString();
const start = Date.parse(at(0));

/** Events of one job, numbered from 0 and 10 ms apart. */
function script(...parts) {
  return parts.map(([type, data = {}, over = {}], seq) => ({
    type: `output.${type}`, v: 1, time: at(seq * 10), job: 'job_1', attempt: 1, seq, lane: 'standard', data, ...over,
  }));
}

const fold = (events, view = initial()) => events.reduce(reduce, view);
const delta = (content) => ['delta', { index: 0, content }];
const done = ['completed', { model: 'sim', choices: [{ index: 0, finish_reason: 'stop' }], usage: { prompt_tokens: 3, completion_tokens: 11, total_tokens: 14 } }];

test('an answer grows by its deltas and ends with its usage', () => {
  const view = fold(script(['started', { model: 'sim', provider: 'simulated' }], delta('Hello'), delta(', wörld'), done));
  assert.equal(view.choices[0].text, 'Hello, wörld');
  assert.equal(view.choices[0].finish, 'stop');
  assert.equal(view.status, 'completed');
  assert.equal(view.provider, 'simulated');
  assert.equal(view.usage.completion_tokens, 11);
  assert.equal(view.nextSeq, 4);
  assert.deepEqual(view.notices, []);
});

test('a view that was handed out never changes', () => {
  const events = script(['started'], delta('a'), delta('b'), ['superseded', { reason: 'x' }], delta('c'), done);
  let view = initial();
  for (const event of events) {
    const before = structuredClone(view);
    const held = view;
    view = reduce(view, event);
    assert.deepEqual(held, before);
  }
});

test('what comes twice is shown once, wherever the stream was cut', () => {
  const events = script(['started'], delta('one '), delta('two '), delta('three'), done);
  const whole = fold(events);
  for (let cut = 0; cut <= events.length; cut++) {
    for (let back = 0; back <= cut; back++) {
      const view = fold([...events.slice(0, cut), ...events.slice(back)]);
      assert.deepEqual({ ...view, repeats: 0 }, whole);
      assert.equal(view.repeats, cut - back);
    }
  }
});

test('a seq that is left out is told', () => {
  const events = script(['started'], delta('a'), delta('b'), delta('c'), delta('d'));
  assert.deepEqual(fold([events[0], events[2]]).notices, ['Event 1 is missing.']);
  assert.deepEqual(fold([events[0], events[4]]).notices, ['Events 1 to 3 are missing.']);
  assert.equal(fold([events[0], events[2]]).choices[0].text, 'b');
});

test('a gap that the stream told is not told again', () => {
  const events = script(['started'], delta('a'), delta('b'));
  const gap = { type: 'stream.gap', time: at(15), data: { reason: 'retention', cursor: 'x' } };
  const view = fold([events[0], gap, events[2]]);
  assert.deepEqual(view.notices, ['Some events are older than what the log keeps, and are gone.']);
  for (const reason of ['truncated', 'recreated', 'missing', undefined]) {
    assert.equal(fold([{ type: 'stream.gap', data: { reason } }]).notices.length, 1);
  }
});

test('a superseded attempt is cleared and said to be', () => {
  const events = script(['started'], delta('wrong'), ['superseded', { reason: 'the owner was replaced' }],
    ['started', {}, { attempt: 2 }], ['delta', { index: 0, content: 'right' }, { attempt: 2 }]);
  const cleared = fold(events.slice(0, 3));
  assert.deepEqual(cleared.choices, []);
  assert.equal(cleared.firstAt, 0);
  const view = fold(events.slice(3), cleared);
  assert.equal(view.choices[0].text, 'right');
  assert.equal(view.attempt, 2);
  assert.equal(view.era, 1);
  assert.match(view.notices[0], /^Attempt 1 was given up \(the owner was replaced\)\./);
});

test('a failure keeps what was said and gives the reason', () => {
  const view = fold(script(['started'], delta('half'), ['failed', { code: 'provider_error', message: 'the provider failed', retryable: true }]));
  assert.equal(view.status, 'failed');
  assert.equal(view.choices[0].text, 'half');
  assert.deepEqual(view.error, { code: 'provider_error', message: 'the provider failed', retryable: true });
  assert.equal(fold(script(['failed', { code: 'expired', message: 'too old' }])).status, 'expired');
  assert.notEqual(fold(script(['failed', {}])).error.message, '');
  assert.equal(fold(script(['cancelled'])).status, 'cancelled');
});

test('nothing follows the end', () => {
  const view = fold([...script(delta('a'), done), ...script(['started'], ['started'], delta('b'))]);
  assert.equal(view.choices[0].text, 'a');
  assert.equal(view.status, 'completed');
});

test('several choices, reasoning, refusals and tools are kept apart', () => {
  const view = fold(script(
    ['delta', { index: 0, reasoning: 'hm ' }], ['delta', { index: 0, reasoning: 'yes', content: 'A' }],
    ['delta', { index: 1, content: 'B', refusal: 'no' }],
    ['delta', { index: 1, tool_calls: [{ index: 0, id: 'call_1', function: { name: 'add', arguments: '{"a"' } }] }],
    ['delta', { index: 1, tool_calls: [{ index: 0, function: { arguments: ':1}' } }] }],
    ['tool_result', { call_id: 'call_1', content: '42', is_error: true }],
    ['completed', { choices: [{ index: 0, finish_reason: 'length' }, { index: 2, finish_reason: 'stop' }] }],
  ));
  assert.equal(view.choices[0].reasoning, 'hm yes');
  assert.equal(view.choices[1].refusal, 'no');
  assert.deepEqual(view.choices[1].tools, [{ id: 'call_1', name: 'add', args: '{"a":1}', result: '42', failed: true }]);
  assert.deepEqual(view.choices.map((c) => c.finish), ['length', '', 'stop']);
  assert.equal(view.usage, null);
});

test('an end may hold what was not said before', () => {
  const whole = { deltas: [{ index: 0, content: 'Hel' }, null, { index: 0, content: 'lo' }, { index: 1, content: 'B' }] };
  const view = fold(script(['completed', { ...whole, model: 'm', choices: [{ index: 0, finish_reason: 'stop' }] }]));
  assert.deepEqual(view.choices.map((c) => c.text), ['Hello', 'B']);
  assert.deepEqual([view.status, view.model, view.choices[0].finish, view.nextSeq], ['completed', 'm', 'stop', 1]);
  assert.equal(fold(script(['cancelled', whole])).choices[0].text, 'Hello');
  assert.equal(fold(script(['cancelled', { deltas: 7 }])).choices.length, 0);
});

test('what it does not know, or cannot be, changes nothing that is shown', () => {
  const view = fold([
    { type: 'lane.claimed', data: {} }, { type: 'stream.hello' },
    ...script(['of_a_later_version'], ['delta', { index: -1, content: 'x' }], ['delta', { index: 1e9, content: 'x' }],
      ['delta', { index: 0, content: 7, tool_calls: [{ index: 4096 }] }], ['delta', null], ['completed', { choices: [{ index: 'a' }, null] }]),
  ]);
  assert.equal(view.choices.map((c) => c.text).join(''), '');
  assert.equal(view.status, 'completed');
  assert.equal(view.nextSeq, 6);
});

test('a snapshot stands for the events that made it', () => {
  const events = script(['started'], delta('a'), delta('b'), delta('c'));
  const view = fold([{ type: 'stream.snapshot', data: { text: 'ab', through_seq: 2 } }, events[2], events[3]]);
  assert.equal(view.choices[0].text, 'abc');
  assert.deepEqual(view.notices, []);
  assert.deepEqual(reduce(view, { type: 'stream.snapshot', data: { text: 'old', through_seq: 1 } }), view);
  assert.deepEqual(reduce(view, { type: 'stream.snapshot' }), view);
});

test('a snapshot with a status stands for all that the log has lost', () => {
  const all = { type: 'stream.snapshot', data: { text: 'all of it', status: 'completed' } };
  const gap = { type: 'stream.gap', data: { reason: 'retention' } };
  for (const before of [[gap], [...script(['started'], delta('a')), gap]]) {
    const view = fold([...before, all]);
    assert.deepEqual([view.status, view.choices.map((c) => c.text), view.notices.length], ['completed', ['all of it'], 1]);
  }
  assert.equal(fold([{ ...all, data: { text: 'x', status: 'of a later version' } }]).status, 'queued');
  assert.deepEqual([all, { ...all, data: { text: 'ab', through_seq: 2 } }, gap, ...script(done)].map(last), [true, false, false, true]);
});

test('notices are bounded', () => {
  let view = initial();
  for (let i = 0; i < 50; i++) view = reduce(view, { type: 'stream.gap', data: {} });
  assert.equal(view.notices.length, MAX_NOTICES);
});

test('the figures come from the events, the same at every replay', () => {
  const events = script(['started'], delta('a'), delta('b'), delta('c'), done);
  const live = fold(events.slice(0, 4));
  assert.deepEqual(figures(live, start - 40, start + 100), { first: 50, rate: 100, exact: false, took: 140 });
  assert.deepEqual(figures(fold(events), start - 40, 0), { first: 50, rate: 500, exact: true, took: 80 });
  assert.deepEqual(figures(initial(), 0, start), { first: null, rate: null, exact: false, took: null });
  assert.equal(figures(fold(events.slice(0, 2)), start, start).rate, null);
  assert.equal(figures(live, start + 5000, start).took, 0, 'a clock that is behind makes no negative time');
});

test('the ends are known', () => {
  assert.deepEqual(['queued', 'running', 'completed', 'failed', 'cancelled', 'expired'].map(ended), [false, false, true, true, true, true]);
  assert.deepEqual(['output.completed', 'output.failed', 'output.cancelled', 'output.superseded', 'job.completed'].map((type) => last({ type })), [true, true, true, false, false]);
});
