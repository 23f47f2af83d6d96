// @ts-check
// The answer's text. What is there stays as it is, and only what is new is
// appended, so that a long answer costs no more a frame than a short one.

import { make, write } from './dom.js';
import { ended } from './events.js';

/** @typedef {import('./events.js').Choice} Choice */

/** Text that grows. */
class Growing {
  /** @param {Element} parent */
  constructor(parent) {
    this.node = document.createTextNode('');
    this.length = 0; // of what is shown; node.length would be the same, and costs a call
    parent.append(this.node);
  }

  /** @param {string} text what is shown, and more */
  paint(text) {
    if (text.length === this.length) return;
    if (text.length < this.length) this.node.data = text;
    else this.node.appendData(text.slice(this.length));
    this.length = text.length;
  }
}

/** One choice of an answer; most answers have one. */
class Block {
  constructor() {
    this.root = make('div', 'choice');
    this.title = make('h3');
    this.title.hidden = true;
    this.text = new Growing(this.root.appendChild(make('p', 'text')));
    this.refusal = new Growing(this.root.appendChild(make('p', 'refusal')));
    this.tools = this.root.appendChild(make('ul', 'tools'));
    this.end = this.root.appendChild(make('p', 'hint'));
    this.root.prepend(this.title);
  }

  /** @param {Choice} choice @param {string} title '' for none */
  paint(choice, title) {
    write(this.title, title);
    this.title.hidden = title === '';
    this.text.paint(choice.text);
    this.refusal.paint(choice.refusal);
    choice.tools.forEach((tool, i) => {
      const item = this.tools.children[i] ?? this.tools.appendChild(make('li'));
      const result = tool.result === null ? '' : ` ${tool.failed ? 'failed' : 'gave'}: ${tool.result}`;
      write(item, `${tool.name}(${tool.args})${result}`);
    });
    write(this.end, choice.finish && choice.finish !== 'stop' ? `Ended: ${choice.finish}.` : '');
  }
}

export class Answer {
  /** @param {HTMLElement} root @param {HTMLElement} reasoning a details */
  constructor(root, reasoning) {
    this.root = root;
    this.reasoning = reasoning;
    this.era = -1;
    /** @type {Block[]} */
    this.blocks = [];
    /** @type {Growing|null} */
    this.thought = null;
  }

  clear() {
    this.root.replaceChildren();
    this.blocks = [];
    const text = /** @type {Element} */ (this.reasoning.querySelector('p'));
    text.replaceChildren();
    this.thought = new Growing(text);
  }

  /** @param {import('./events.js').View} view */
  paint(view) {
    if (view.era !== this.era || view.choices.length < this.blocks.length || !this.thought) {
      this.era = view.era;
      this.clear();
    }
    const atEnd = this.root.scrollHeight - this.root.scrollTop - this.root.clientHeight < 24;
    view.choices.forEach((choice, i) => {
      if (!this.blocks[i]) {
        this.blocks[i] = new Block();
        this.root.append(this.blocks[i].root);
      }
      this.blocks[i].paint(choice, view.choices.length > 1 ? `Choice ${i + 1}` : '');
    });
    const thought = view.choices[0]?.reasoning ?? '';
    this.thought?.paint(thought);
    this.reasoning.hidden = thought === '';
    const silent = view.choices.every((c) => !c.text && !c.refusal && c.tools.length === 0);
    this.root.dataset.empty = silent ? (ended(view.status) ? 'over' : 'yet') : '';
    this.root.dataset.live = String(view.status === 'running');
    if (atEnd) this.root.scrollTop = this.root.scrollHeight; // who scrolled up stays there
  }
}
