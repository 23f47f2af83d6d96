// @ts-check
// <penstock-jobs>: the jobs, newest first, read again every two seconds while
// somebody can see them.

import { listJobs, Problem } from './api.js';
import { find, make, part, tell, write } from './dom.js';
import { MAX_PAGES, merge, PAGE, Sent } from './listing.js';
import { row, shortId } from './words.js';

/** @typedef {import('./api.js').Job} Job */

/** How long, in ms, a list is good. */
const FRESH = 2000;

export class JobList extends HTMLElement {
  constructor() {
    super();
    /** @type {Job[]} */
    this.listed = []; // as the server has it
    this.sent = new Sent(); // what was sent from here and the server may not list yet
    this.pages = 1;
    this.more = false;
    this.selected = '';
    /** @type {Map<string, HTMLLIElement>} */
    this.rows = new Map();
    /** @type {AbortController|null} */
    this.reading = null;
    /** @type {ReturnType<typeof setTimeout>|undefined} */
    this.timer = undefined;
    this.list = part(this, 'rows');
    /** @type {HTMLButtonElement} */
    this.older = part(this, 'more');
  }

  connectedCallback() {
    document.addEventListener('visibilitychange', () => (document.hidden ? this.pause() : void this.refresh()));
    this.list.addEventListener('keydown', (event) => this.move(event));
    this.older.addEventListener('click', () => {
      this.pages++;
      this.older.disabled = true;
      void this.refresh();
    });
    if (!document.hidden) void this.refresh();
  }

  pause() {
    this.reading?.abort();
    this.reading = null;
    clearTimeout(this.timer);
  }

  /** Reads every page that is shown, so that no row of it is stale. */
  async refresh() {
    this.pause();
    const reading = new AbortController();
    this.reading = reading;
    let wait = FRESH * this.pages;
    try {
      /** @type {Job[]} */
      const jobs = [];
      let more = true;
      for (let page = 0; page < this.pages && more; page++) {
        const answer = await listJobs(jobs.at(-1)?.id ?? '', PAGE, reading.signal);
        jobs.push(...answer.data);
        more = answer.has_more && answer.data.length > 0;
      }
      this.listed = jobs;
      this.more = more;
      this.sent.seen(jobs);
      this.classList.remove('stale');
      tell(part(this, 'problem'), '');
      part(this, 'empty').hidden = this.sent.size + jobs.length > 0;
    } catch (err) {
      if (!(err instanceof Problem)) return; // aborted: whoever did it goes on
      this.classList.add('stale');
      const others = err.status === 0 ? '' : ' Jobs can be sent and watched all the same.';
      tell(part(this, 'problem'), `The list cannot be read now: ${err.message}${others}`);
      wait = Math.max(wait, err.retryAfter * 1000);
    }
    if (this.reading !== reading) return;
    this.reading = null;
    this.paint();
    this.timer = setTimeout(() => void this.refresh(), wait);
  }

  /** @param {Job} job that was just accepted */
  add(job) {
    this.sent.add(job);
    part(this, 'empty').hidden = true;
    this.paint();
    if (!document.hidden) void this.refresh();
  }

  /** What the events of a job tell sooner than the list does. @param {string} id @param {Partial<Job>} news */
  learn(id, news) {
    const known = this.listed.find((j) => j.id === id);
    if (this.sent.learn(id, news, known)) this.paint();
  }

  /** @param {string} id '' for none */
  select(id) {
    this.selected = id;
    this.paint();
  }

  paint() {
    const now = Date.now();
    const jobs = merge(this.listed, this.sent);
    const keep = new Set(jobs.map((j) => j.id));
    for (const [id, node] of this.rows) {
      if (keep.has(id)) continue;
      node.remove();
      this.rows.delete(id);
    }
    const stop = keep.has(this.selected) ? this.selected : jobs[0]?.id; // the one that Tab goes to
    let place = this.list.firstElementChild;
    for (const job of jobs) {
      const node = this.rowOf(job.id);
      this.fill(node, job, now, job.id === stop);
      if (node === place) place = node.nextElementSibling;
      else this.list.insertBefore(node, place);
    }
    write(part(this, 'count'), jobs.length === 0 ? '' : `${jobs.length}${this.more ? '+' : ''}`);
    const full = this.pages >= MAX_PAGES;
    this.older.hidden = !this.more;
    this.older.disabled = full;
    write(this.older, full ? `The newest ${PAGE * MAX_PAGES} are shown; GET /v1/jobs has the rest` : 'Show older');
  }

  /** @param {string} id @returns {HTMLLIElement} */
  rowOf(id) {
    let node = this.rows.get(id);
    if (!node) {
      node = make('li');
      const link = make('a', 'row');
      link.title = id;
      link.href = `#${encodeURIComponent(id)}`;
      link.append(make('span', 'pill'), make('span', 'age'), make('code', 'row-id', shortId(id)), make('span', 'detail'));
      node.append(link);
      this.rows.set(id, node);
    }
    return node;
  }

  /** @param {HTMLLIElement} node @param {Job} job @param {number} now @param {boolean} stop */
  fill(node, job, now, stop) {
    /** @type {HTMLAnchorElement} */
    const link = find(node, 'a');
    const words = row(job, now);
    const pill = find(link, '.pill');
    pill.dataset.status = job.status;
    write(pill, words.label);
    write(find(link, '.age'), words.age);
    write(find(link, '.detail'), words.detail);
    link.tabIndex = stop ? 0 : -1;
    if (job.id === this.selected) link.setAttribute('aria-current', 'true');
    else link.removeAttribute('aria-current');
  }

  /** Arrows, Home and End go through the list. @param {KeyboardEvent} event */
  move(event) {
    const links = /** @type {HTMLAnchorElement[]} */ ([...this.list.querySelectorAll('a')]);
    const at = links.indexOf(/** @type {HTMLAnchorElement} */ (document.activeElement));
    /** @type {Record<string, number>} */
    const steps = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 };
    const to = steps[event.key];
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    links[Math.min(Math.max(to, 0), links.length - 1)]?.focus();
  }
}

customElements.define('penstock-jobs', JobList);
