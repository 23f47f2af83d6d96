// @ts-check
// A job's events over SSE, until the end. EventSource comes back by itself after
// a cut; after an answer that is no stream it gives up without a word, so that
// this asks what the answer was, and tries again where that may help.

import { jobPath, Problem, problemOf } from './api.js';
import { last } from './events.js';

/**
 * connecting: nothing yet; live: the stream is open; reconnecting: it was cut,
 * or the server cannot answer now; ended: nothing follows; refused: the server
 * will not tell, whatever one does.
 * @typedef {'connecting'|'live'|'reconnecting'|'ended'|'refused'} State
 *
 * @typedef {object} Handlers
 * @property {(event: import('./events.js').Event) => void} event
 * @property {(state: State, message: string) => void} state message in words, '' where there is none
 */

/** How long to wait before trying again, in ms: our own patience, and the longest that a server may ask for. */
const MAX_WAIT = 10_000;
const MAX_ASKED = 60_000;

export class Stream {
  /** @param {string} id @param {Handlers} handlers */
  constructor(id, handlers) {
    this.path = `${jobPath(id)}/events`;
    this.handlers = handlers;
    this.cursor = '';
    this.failures = 0;
    this.closed = false;
    /** @type {EventSource|null} */
    this.source = null;
    /** @type {AbortController|null} */
    this.probe = null;
    /** @type {ReturnType<typeof setTimeout>|undefined} */
    this.timer = undefined;
    this.tell('connecting');
    this.open();
  }

  /** Lets go of the connection. No handler is called after it. */
  close() {
    this.closed = true;
    this.source?.close();
    this.probe?.abort();
    clearTimeout(this.timer);
  }

  /** @param {State} state @param {string} [message] */
  tell(state, message = '') {
    if (!this.closed) this.handlers.state(state, message);
  }

  url() {
    return this.cursor ? `${this.path}?cursor=${encodeURIComponent(this.cursor)}` : this.path;
  }

  open() {
    const source = new EventSource(this.url());
    this.source = source;
    source.onopen = () => {
      this.failures = 0;
      this.tell('live');
    };
    source.onmessage = (message) => this.take(message);
    source.onerror = () => {
      if (this.closed) return;
      if (source.readyState === EventSource.CLOSED) void this.ask();
      else this.tell('reconnecting');
    };
  }

  /** @param {MessageEvent} message */
  take(message) {
    if (this.closed) return;
    if (message.lastEventId) this.cursor = message.lastEventId;
    let event;
    try {
      event = JSON.parse(message.data);
    } catch {
      return; // not one of ours; the cursor has moved on
    }
    if (typeof event?.type !== 'string') return;
    this.handlers.event(event);
    if (last(event)) this.end();
  }

  end() {
    this.tell('ended');
    this.close();
  }

  /** Asks what EventSource did not say. */
  async ask() {
    const probe = new AbortController();
    this.probe = probe;
    try {
      const answer = await fetch(this.url(), { signal: probe.signal, headers: { Accept: 'text/event-stream' } });
      if (answer.status === 204) return this.end();
      if (answer.ok) {
        const media = answer.headers.get('Content-Type') ?? '';
        probe.abort(); // it was only asked
        if (!media.startsWith('text/event-stream')) throw new Problem('The server’s answer is no stream of events.', answer.status);
        return this.later('', 0);
      }
      throw problemOf(answer.status, await answer.text(), answer.headers.get('Retry-After'));
    } catch (err) {
      if (this.closed) return;
      if (!(err instanceof Problem)) return this.later('The server cannot be reached.', 0);
      if (err.passing) return this.later(err.message, err.retryAfter);
      this.tell('refused', err.message);
      this.close();
    }
  }

  /** @param {string} message @param {number} atLeast seconds */
  later(message, atLeast) {
    if (this.closed) return;
    this.tell('reconnecting', message);
    const own = Math.min(MAX_WAIT, 500 * 2 ** Math.min(this.failures++, 6));
    this.timer = setTimeout(() => this.open(), Math.max(own, Math.min(MAX_ASKED, atLeast * 1000)));
  }
}
