// @ts-check
// <penstock-prompt>: where a job is written and sent. It fires "accepted" with
// the job that the server answered.

import { createJob, jobBody, listModels, Outbox, Problem } from './api.js';
import { find, make, tell } from './dom.js';

export class Prompt extends HTMLElement {
  constructor() {
    super();
    this.outbox = new Outbox();
    this.busy = false;
    /** @type {HTMLFormElement} */
    this.form = find(this, 'form');
    /** @type {HTMLTextAreaElement} */
    this.text = find(this, 'textarea');
    /** @type {HTMLInputElement} */
    this.model = find(this, '[name=model]');
    /** @type {HTMLSelectElement} */
    this.lane = find(this, '[name=lane]');
    /** @type {HTMLButtonElement} */
    this.button = find(this, '[type=submit]');
    /** @type {HTMLElement} */
    this.problem = find(this, '.problem');
  }

  connectedCallback() {
    this.form.addEventListener('submit', (event) => {
      event.preventDefault();
      void this.send();
    });
    this.form.addEventListener('input', () => this.update());
    this.form.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
      event.preventDefault();
      void this.send();
    });
    this.update();
    void this.suggest();
  }

  /** Adds the models that the server has to those that the page knows of. */
  async suggest() {
    const list = find(this, 'datalist');
    try {
      for (const id of await listModels()) {
        if ([...list.children].some((o) => /** @type {HTMLOptionElement} */ (o).value === id)) continue;
        const option = make('option');
        option.value = id;
        list.append(option);
      }
    } catch (err) {
      if (!(err instanceof Problem)) throw err; // without the list a name can be typed all the same
    }
  }

  get ready() {
    return !this.busy && this.text.value.trim() !== '' && this.model.value.trim() !== '';
  }

  update() {
    this.button.disabled = !this.ready;
    this.button.textContent = this.busy ? 'Sending…' : 'Send';
  }

  async send() {
    if (!this.ready) return;
    const body = jobBody(this.text.value, this.model.value.trim(), this.lane.value);
    this.busy = true;
    this.update();
    try {
      const job = await createJob(body, this.outbox.keyOf(body));
      this.outbox.settle();
      tell(this.problem, '');
      this.dispatchEvent(new CustomEvent('accepted', { detail: job }));
    } catch (err) {
      tell(this.problem, this.wordsOf(err));
    } finally {
      this.busy = false;
      this.update();
    }
  }

  /** @param {unknown} err @returns {string} */
  wordsOf(err) {
    if (!(err instanceof Problem)) throw err;
    if (err.unknown) return `${err.message} Send it again: it has the same key, so it cannot run twice.`;
    this.outbox.settle();
    const later = err.retryAfter > 0 ? ` Try again in ${err.retryAfter} s.` : '';
    return err.message + later;
  }
}

customElements.define('penstock-prompt', Prompt);
