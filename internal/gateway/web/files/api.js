// @ts-check
// The server's answers, and its errors in words. Only fetch is used of the browser.

/**
 * @typedef {object} Job
 * @property {string} id
 * @property {import('./events.js').Status} status
 * @property {string} [lane]
 * @property {string} [model]
 * @property {string} [created_at]
 * @property {string} [started_at]
 * @property {string} [ended_at]
 * @property {number} [attempt]
 * @property {import('./events.js').Usage} [usage]
 * @property {import('./events.js').Failure} [error]
 * @property {{topic: string, partition: number, offset: number}} [request]
 */

/** An answer that is an error, or none at all (status 0). */
export class Problem extends Error {
  /** @param {string} message @param {number} status @param {string} [code] @param {number} [retryAfter] seconds; 0: not known */
  constructor(message, status, code = '', retryAfter = 0) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }

  /** Whether the request may have been taken although no good answer came. */
  get unknown() {
    return this.status === 0 || this.status >= 500;
  }

  /** Whether the same request may succeed later. */
  get passing() {
    return this.unknown || this.status === 429 || this.status === 408;
  }
}

/** @param {string} id */
export function jobPath(id) {
  return `/v1/jobs/${encodeURIComponent(id)}`;
}

/**
 * The problem that an answer tells, in the server's words where it has some.
 * @param {number} status @param {string} text the body @param {string|null} [retryAfter] the header
 */
export function problemOf(status, text, retryAfter) {
  let message = '';
  let code = '';
  try {
    const error = JSON.parse(text)?.error;
    if (typeof error?.message === 'string') message = error.message;
    if (typeof error?.code === 'string') code = error.code;
  } catch {
    // Something in between answered, in a form of its own.
  }
  return new Problem(message || `The server answered with status ${status}.`, status, code, Number(retryAfter) || 0);
}

/**
 * @param {string} path
 * @param {RequestInit} [init]
 * @returns {Promise<any>} the answer's JSON
 * @throws {Problem}
 */
export async function call(path, init) {
  let status = 0;
  let text = '';
  try {
    const answer = await fetch(path, init);
    status = answer.status;
    text = await answer.text();
    if (!answer.ok) throw problemOf(status, text, answer.headers.get('Retry-After'));
    return JSON.parse(text);
  } catch (err) {
    if (err instanceof Problem || (err instanceof DOMException && err.name === 'AbortError')) throw err;
    if (err instanceof SyntaxError) throw new Problem('The server’s answer is not JSON.', status);
    throw new Problem('The server cannot be reached.', 0);
  }
}

/** @returns {string} a key that nobody else has; randomUUID exists in secure contexts only */
export function newKey() {
  if (typeof crypto.randomUUID === 'function') return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');
}

/**
 * Remembers the key of what may have been accepted, so that sending the same
 * again does not run it twice.
 */
export class Outbox {
  /** @param {() => string} [key] */
  constructor(key = newKey) {
    this.newKey = key;
    /** @type {{body: string, key: string}|null} */
    this.pending = null;
  }

  /** @param {string} body @returns {string} the key to send it with */
  keyOf(body) {
    if (this.pending?.body !== body) this.pending = { body, key: this.newKey() };
    return this.pending.key;
  }

  /** The server has answered, for good: the next is another one, even where it reads the same. */
  settle() {
    this.pending = null;
  }
}

/** @param {string} prompt @param {string} model @param {string} lane @returns {string} the body of POST /v1/jobs */
export function jobBody(prompt, model, lane) {
  return JSON.stringify({ lane, body: { model, messages: [{ role: 'user', content: prompt }] } });
}

/** @param {string} body @param {string} key @returns {Promise<Job>} */
export function createJob(body, key) {
  return call('/v1/jobs', { method: 'POST', headers: { 'Content-Type': 'application/json', 'Idempotency-Key': key }, body });
}

/** @param {string} id @param {AbortSignal} [signal] @returns {Promise<Job>} */
export function getJob(id, signal) {
  return call(jobPath(id), { signal });
}

/** Asks for a job's end. Asking twice is asking once. @param {string} id @returns {Promise<Job>} */
export function cancelJob(id) {
  return call(`${jobPath(id)}/cancel`, { method: 'POST' });
}

/** @param {AbortSignal} [signal] @returns {Promise<string[]>} the models that are served, by name */
export async function listModels(signal) {
  const answer = await call('/v1/models', { signal });
  return answer.data.map((/** @type {{id: string}} */ m) => m.id);
}

/**
 * @param {string} after an id, '' for the newest @param {number} limit @param {AbortSignal} [signal]
 * @returns {Promise<{data: Job[], has_more: boolean}>} newest first
 */
export function listJobs(after, limit, signal) {
  const query = new URLSearchParams({ limit: String(limit) });
  if (after) query.set('after', after);
  return call(`/v1/jobs?${query}`, { signal });
}
