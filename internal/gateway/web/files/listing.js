// @ts-check
// What the list shows: the server's rows, and above them what was sent from here
// and is not listed yet, since the projection may be behind or its database
// away. Pure.

import { ended } from './events.js';

/** @typedef {import('./api.js').Job} Job */

/** Jobs on a page, and how many pages the list holds at most. */
export const PAGE = 50;
export const MAX_PAGES = 6;
/** How many jobs are remembered beside the server's list. */
export const MAX_SENT = 20;

/** @param {string} status @returns {number} how far a job with it has come */
function rank(status) {
  if (status === 'queued') return 0;
  return status === 'running' ? 1 : 2;
}

/** What was sent from here, as far as it is ahead of the server's list. */
export class Sent {
  constructor() {
    /** @type {Map<string, Job>} oldest first */
    this.jobs = new Map();
  }

  get size() {
    return this.jobs.size;
  }

  /** @param {Job} job */
  add(job) {
    this.jobs.delete(job.id);
    this.jobs.set(job.id, job);
    for (const id of this.jobs.keys()) {
      if (this.jobs.size <= MAX_SENT) break;
      this.jobs.delete(id);
    }
  }

  /**
   * @param {string} id @param {Partial<Job>} news @param {Job|undefined} listed the server's row
   * @returns {boolean} whether the list changes
   */
  learn(id, news, listed) {
    const known = this.jobs.get(id) ?? listed;
    if (!known || rank(news.status ?? known.status) <= rank(known.status)) return false;
    this.add({ ...known, ...news });
    return true;
  }

  /** Lets go of what the server's list has come up with. @param {Job[]} listed */
  seen(listed) {
    for (const row of listed) {
      const mine = this.jobs.get(row.id);
      if (mine && rank(row.status) >= rank(mine.status)) this.jobs.delete(row.id);
    }
  }
}

/**
 * @param {Job[]} listed newest first @param {Sent} sent
 * @returns {Job[]} newest first, each once, in the state that is further
 */
export function merge(listed, sent) {
  const rest = new Map(sent.jobs);
  /** @type {Set<string>} */
  const seen = new Set();
  /** @type {Job[]} */
  const out = [];
  for (const row of listed) {
    if (seen.has(row.id)) continue; // it moved between two pages
    seen.add(row.id);
    const mine = rest.get(row.id);
    rest.delete(row.id);
    out.push(mine && !ended(row.status) ? { ...row, ...mine } : row);
  }
  return [...[...rest.values()].reverse(), ...out];
}
