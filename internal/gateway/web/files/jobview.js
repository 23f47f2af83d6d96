// @ts-check
// <penstock-job>: one job, as its events tell it. Events are folded and painted
// once a frame, however many come. It fires "news" when the job's state changes.

import { cancelJob, getJob, Problem } from './api.js';
import { Answer } from './answer.js';
import { part, tell, write } from './dom.js';
import { ended, figures, initial, reduce, timeOf } from './events.js';
import { Lines } from './lines.js';
import { Pacer } from './pace.js';
import { RawEvents } from './rawevents.js';
import { Stream } from './stream.js';
import { about, duration, label, rate, time, usage, why } from './words.js';

/** @typedef {import('./api.js').Job} Job */
/** @typedef {import('./events.js').Event} Event */

/** How long, in ms, a job may wait before it is said why: most wait for less. */
const PATIENCE = 400;
/** @type {Record<import('./stream.js').State, string>} */
const wires = { connecting: 'connecting…', live: 'live', reconnecting: 'reconnecting…', ended: 'ended', refused: 'stopped' };

export class JobView extends HTMLElement {
  constructor() {
    super();
    /** @type {Job|null} */
    this.job = null;
    this.view = initial();
    /** @type {Stream|null} */
    this.stream = null;
    /** @type {import('./stream.js').State} */
    this.wire = 'connecting';
    this.trouble = ''; // why it reconnects or stopped
    /** @type {Pacer<Event>} */
    this.pacer = new Pacer(0);
    this.replaying = false;
    /** @type {'no'|'asked'|'refused'} */
    this.cancelling = 'no'; // whether this job's end was asked for
    this.refusal = ''; // why it was not taken
    this.shownAt = 0;
    this.frame = 0; // requested; 0 for none
    /** @type {ReturnType<typeof setInterval>|undefined} */
    this.tick = undefined;
    /** @type {AbortController|null} */
    this.asking = null;
    this.section = /** @type {HTMLElement} */ (this.querySelector('section'));
    this.answer = new Answer(part(this, 'answer'), part(this, 'reasoning'));
    this.raw = new RawEvents(part(this, 'raw'), part(this, 'table'));
    this.lines = new Lines(part(this, 'more'), part(this, 'lines'));
  }

  connectedCallback() {
    /** @type {HTMLSelectElement} */
    const speed = part(this, 'speed');
    part(this, 'replay').addEventListener('click', () => {
      if (this.job) this.watch(Number(speed.value), true);
    });
    part(this, 'cancel').addEventListener('click', () => void this.cancel());
    // A wait has no event that says how long it lasts.
    this.tick = setInterval(() => {
      if (this.job && !ended(this.view.status) && !document.hidden) this.schedule();
    }, 500);
  }

  /** Shows a job from its first event on. @param {string} id @param {Job} [job] what is known of it */
  show(id, job) {
    this.job = job ?? { id, status: 'queued' };
    this.cancelling = 'no';
    this.refusal = '';
    this.section.hidden = false;
    write(/** @type {Element} */ (this.querySelector('.job-id')), id);
    this.lines.show(this.job);
    this.watch(0, false);
    if (!job) void this.ask();
  }

  /** Shows none. */
  clear() {
    this.stream?.close();
    this.stream = null;
    this.asking?.abort();
    this.job = null;
    this.section.hidden = true;
  }

  /** Reads from the start. @param {number} speed 0: as fast as it comes @param {boolean} replaying */
  watch(speed, replaying) {
    if (!this.job) return;
    this.stream?.close();
    this.view = initial();
    this.pacer = new Pacer(speed);
    this.replaying = replaying;
    this.shownAt = Date.now();
    this.answer.clear();
    this.raw.clear();
    this.stream = new Stream(this.job.id, {
      event: (event) => {
        this.pacer.push(event, timeOf(event));
        if (this.pacer.waiting > this.pacer.limit) this.fold();
        this.schedule();
      },
      state: (state, message) => {
        this.wire = state;
        this.trouble = message;
        this.schedule();
      },
    });
    this.paint(); // what was shown before is gone at once
  }

  /** Asks for the job's end. That it has ended is told by its events. */
  async cancel() {
    const id = this.job?.id ?? '';
    this.cancelling = 'asked';
    this.refusal = '';
    this.paint();
    try {
      await cancelJob(id);
    } catch (err) {
      if (!(err instanceof Problem)) throw err;
      if (this.job?.id !== id) return;
      this.cancelling = 'refused';
      this.refusal = `It was not cancelled: ${err.message}`;
      this.paint();
    }
  }

  /** Asks for what the events do not say: when the job was created, and where it lies. */
  async ask() {
    this.asking?.abort();
    const asking = new AbortController();
    this.asking = asking;
    const id = this.job?.id ?? '';
    try {
      const job = await getJob(id, asking.signal);
      if (this.job?.id !== id) return;
      this.job = job;
      this.lines.show(job);
      this.schedule();
    } catch {
      // The stream tells what is wrong; without the answer some figures are missing.
    }
  }

  schedule() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.fold();
      if (this.pacer.waiting > 0) this.schedule();
      if (this.job) this.paint();
    });
  }

  /** Takes in the events that are due. */
  fold() {
    const before = this.view.status;
    for (const event of this.pacer.due(performance.now())) {
      this.view = reduce(this.view, event);
      this.raw.add(event);
    }
    if (this.view.status === before || !this.job) return;
    /** @type {Partial<Job>} */
    const news = { status: this.view.status };
    if (this.view.endedAt) news.ended_at = new Date(this.view.endedAt).toISOString();
    if (this.view.error) news.error = this.view.error;
    if (!this.replaying) this.dispatchEvent(new CustomEvent('news', { detail: { id: this.job.id, news } }));
  }

  paint() {
    const { view, job } = this;
    if (!job) return;
    const now = Date.now();
    const over = ended(view.status);
    this.paintHead(job, now);
    this.paintFigures(job, now);
    this.answer.paint(view);
    const error = view.error ? `${view.error.message} (${view.error.code})` : '';
    tell(part(this, 'error'), error || this.trouble || (over ? '' : this.refusal));
    this.paintCancel(over);
    part(this, 'answer').setAttribute('aria-busy', String(!over && view.nextSeq > 0));
    this.raw.paint();
  }

  /** @param {boolean} over */
  paintCancel(over) {
    /** @type {HTMLButtonElement} */
    const button = part(this, 'cancel');
    button.hidden = over || this.replaying || this.wire === 'refused' || (this.job !== null && ended(this.job.status));
    button.disabled = this.cancelling === 'asked';
    write(button, this.cancelling === 'asked' ? 'Cancelling…' : 'Cancel');
  }

  /** @param {Job} job @param {number} now */
  paintHead(job, now) {
    const { view } = this;
    write(part(this, 'about'), about(job, view));
    const known = view.nextSeq > 0 || ended(view.status) || this.replaying ? view.status : job.status;
    const pill = part(this, 'status');
    pill.dataset.status = known;
    write(pill, label(known));
    pill.hidden = this.wire === 'refused' && view.nextSeq === 0 && !job.created_at; // nothing is known of it
    const pacing = this.pacer.waiting > 0;
    const wire = part(this, 'wire');
    wire.dataset.state = pacing ? 'replaying' : this.wire;
    write(wire, pacing ? 'replaying' : wires[this.wire]);
    const waits = view.nextSeq === 0 && known === 'queued' && this.wire !== 'refused' && !this.replaying;
    tell(part(this, 'why'), waits && now - this.shownAt > PATIENCE ? why(job, now) : '');
    const list = part(this, 'notices');
    if (list.children.length !== view.notices.length || list.lastElementChild?.textContent !== view.notices.at(-1)) {
      list.replaceChildren(...view.notices.map((text) => Object.assign(document.createElement('li'), { textContent: text })));
    }
  }

  /** @param {Job} job @param {number} now */
  paintFigures(job, now) {
    const { view } = this;
    const f = figures(view, time(job.created_at), this.replaying ? view.lastAt : now);
    write(part(this, 'first'), duration(f.first));
    write(part(this, 'rate'), rate(f.rate, f.exact));
    write(part(this, 'took'), duration(f.took));
    write(part(this, 'seq'), String(view.nextSeq));
    write(part(this, 'attempt'), view.attempt ? String(view.attempt) : '–');
    write(part(this, 'usage'), usage(view.usage));
    part(this, 'seq').title = view.repeats > 0 ? `${view.repeats} came twice and were dropped` : '';
  }
}

customElements.define('penstock-job', JobView);
