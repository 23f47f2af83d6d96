import assert from 'node:assert/strict';
import test from 'node:test';

import { Pacer } from '../files/pace.js';

function filled(speed, limit) {
  const pacer = new Pacer(speed, limit);
  for (const [item, at] of [['a', 1000], ['b', 1010], ['c', 1010], ['d', 1500]]) pacer.push(item, at);
  return pacer;
}

test('at speed 0 everything is due at once', () => {
  const pacer = filled(0);
  assert.deepEqual(pacer.due(77), ['a', 'b', 'c', 'd']);
  assert.equal(pacer.waiting, 0);
});

test('at speed 1 it takes as long as it took', () => {
  const pacer = filled(1);
  assert.deepEqual(pacer.due(50), ['a']);
  assert.deepEqual(pacer.due(59), []);
  assert.deepEqual(pacer.due(60), ['b', 'c']);
  assert.deepEqual(pacer.due(549), []);
  assert.equal(pacer.waiting, 1);
  assert.deepEqual(pacer.due(550), ['d']);
});

test('at speed 2 it takes half as long', () => {
  const pacer = filled(2);
  pacer.due(0);
  assert.deepEqual(pacer.due(249), ['b', 'c']);
  assert.deepEqual(pacer.due(250), ['d']);
});

test('what waits is bounded, and nothing is lost', () => {
  const pacer = filled(1, 2);
  assert.deepEqual(pacer.due(0), ['a', 'b']);
  assert.equal(pacer.waiting, 2);
});

test('what comes late, or has no time, holds nothing up', () => {
  const pacer = new Pacer(1);
  pacer.push('a', 1000);
  assert.deepEqual(pacer.due(0), ['a']);
  pacer.push('b', 0);
  pacer.push('c', 900);
  assert.deepEqual(pacer.due(1), ['b', 'c']);
});

test('order stays over thousands', () => {
  const pacer = new Pacer(1);
  const out = [];
  for (let i = 0; i < 5000; i++) pacer.push(i, i);
  for (let now = 0; pacer.waiting > 0; now += 7) out.push(...pacer.due(now));
  assert.deepEqual(out, Array.from({ length: 5000 }, (_, i) => i));
});
