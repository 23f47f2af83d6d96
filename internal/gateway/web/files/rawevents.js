// @ts-check
// The events as they stand, the newest MAX_ROWS of them.

import { find, make, part, write } from './dom.js';

/** @typedef {import('./events.js').Event} Event */

/** How many events are kept, and how many characters of one's data are shown. */
export const MAX_ROWS = 200;
const MAX_DATA = 160;

export class RawEvents {
  /** @param {HTMLElement} toggle @param {HTMLElement} region */
  constructor(toggle, region) {
    this.toggle = toggle;
    this.region = region;
    /** @type {HTMLTableSectionElement} */
    this.body = find(region, 'tbody');
    /** @type {Event[]} */
    this.events = []; // MAX_ROWS at most
    this.count = 0; // of all that came
    this.painted = 0; // of those
    toggle.addEventListener('click', () => {
      region.hidden = !region.hidden;
      toggle.setAttribute('aria-expanded', String(!region.hidden));
      this.paint();
    });
  }

  clear() {
    this.events = [];
    this.count = 0;
    this.painted = 0;
    this.body.replaceChildren();
  }

  /** @param {Event} event */
  add(event) {
    this.count++;
    this.events.push(event);
    if (this.events.length > MAX_ROWS) this.events.shift();
  }

  paint() {
    if (this.region.hidden) return;
    const atEnd = this.region.scrollHeight - this.region.scrollTop - this.region.clientHeight < 24;
    const news = Math.min(this.count - this.painted, this.events.length);
    this.painted = this.count;
    if (news > 0) this.body.append(...this.events.slice(-news).map(rowOf));
    while (this.body.rows.length > MAX_ROWS) this.body.deleteRow(0);
    const gone = this.count - this.events.length;
    write(part(this.region, 'dropped'), gone > 0 ? `The newest ${MAX_ROWS} of ${this.count}.` : '');
    if (atEnd) this.region.scrollTop = this.region.scrollHeight;
  }
}

/** @param {Event} event */
function rowOf(event) {
  const row = make('tr');
  const data = JSON.stringify(event.data ?? {});
  row.append(
    make('td', 'num', event.seq === undefined ? '–' : String(event.seq)),
    make('td', '', event.type),
    make('td', 'num', (event.time ?? '').replace(/^.*T|Z$/g, '')),
    make('td', 'data', data.length > MAX_DATA ? `${data.slice(0, MAX_DATA)}…` : data),
  );
  return row;
}
