// @ts-check
// Hands out what was recorded at the pace at which it happened. Pure: the clock
// is passed in.

/** How many items wait at most; beyond that the oldest are let go at once. */
export const MAX_WAITING = 20_000;

/** @template T */
export class Pacer {
  /** @param {number} speed 1 is the pace it had; 0 is all at once @param {number} [limit] */
  constructor(speed, limit = MAX_WAITING) {
    this.speed = speed;
    this.limit = limit;
    /** @type {{item: T, at: number}[]} */
    this.queue = [];
    this.head = 0; // of the queue; what is before it was handed out
    this.began = 0; // ms, by the caller's clock
    this.origin = 0; // ms, by the items' own times
    this.running = false;
  }

  /** @param {T} item @param {number} at ms, when it happened */
  push(item, at) {
    this.queue.push({ item, at });
  }

  get waiting() {
    return this.queue.length - this.head;
  }

  /** @param {number} now ms @returns {T[]} what is due, in order */
  due(now) {
    /** @type {T[]} */
    const out = [];
    while (this.waiting > 0) {
      const { item, at } = this.queue[this.head];
      if (!this.running) {
        this.running = true;
        this.began = now;
        this.origin = at;
      }
      const early = this.speed > 0 && (at - this.origin) / this.speed > now - this.began;
      if (early && this.waiting <= this.limit) break;
      out.push(item);
      this.head++;
    }
    if (this.head > 1024 || this.waiting === 0) {
      this.queue = this.queue.slice(this.head);
      this.head = 0;
    }
    return out;
  }
}
