// @ts-check
// How to read the shown job without this page: lines to copy.

import { copy, make } from './dom.js';
import { curlLine, kcatLine } from './words.js';

/** How long, in ms, it is said that a line was copied. */
const SAID = 1500;

export class Lines {
  /** @param {HTMLElement} toggle @param {HTMLElement} region */
  constructor(toggle, region) {
    this.region = region;
    toggle.addEventListener('click', () => {
      region.hidden = !region.hidden;
      toggle.setAttribute('aria-expanded', String(!region.hidden));
    });
  }

  /** @param {import('./api.js').Job} job */
  show(job) {
    const lines = [['curl', curlLine(location.origin, job.id)], ['kcat', kcatLine(job)]];
    this.region.replaceChildren(...lines.filter(([, text]) => text).map(([name, text]) => lineOf(name, text)));
  }
}

/** @param {string} name @param {string} text */
function lineOf(name, text) {
  const line = make('div', 'line');
  const button = make('button', '', 'Copy');
  button.type = 'button';
  button.setAttribute('aria-label', `Copy the ${name} line`);
  button.addEventListener('click', async () => {
    button.textContent = (await copy(text)) ? 'Copied' : 'Cannot copy';
    setTimeout(() => (button.textContent = 'Copy'), SAID);
  });
  const code = make('code', '', text);
  code.tabIndex = 0; // it may be wider than the page, and then scrolls
  line.append(code, button);
  return line;
}
