// @ts-check
// What a job's events say, folded into what the page shows. Pure: no page, no
// clock, no network.

/**
 * An event as it stands on the token topic, or a notice of the stream's own
 * (stream.gap), which has no seq.
 * @typedef {{type: string, time?: string, job?: string, attempt?: number, seq?: number, lane?: string, data?: any}} Event
 *
 * @typedef {{id: string, name: string, args: string, result: string|null, failed: boolean}} Tool
 * @typedef {{text: string, reasoning: string, refusal: string, finish: string, tools: Tool[]}} Choice
 * @typedef {{prompt_tokens?: number, completion_tokens?: number, total_tokens?: number}} Usage
 * @typedef {{code: string, message: string, retryable: boolean}} Failure
 * @typedef {'queued'|'running'|'completed'|'failed'|'cancelled'|'expired'} Status
 *
 * @typedef {object} View
 * @property {Status} status
 * @property {string} lane
 * @property {string} model     as the provider named it
 * @property {string} provider
 * @property {number} attempt   0 before the first event
 * @property {number} nextSeq   the seq that comes next, which is how many were seen where none is missing
 * @property {number} era       grows whenever what was shown is to be cleared
 * @property {Choice[]} choices
 * @property {number} deltas    of this attempt
 * @property {number} startedAt ms, of the first event; 0 before it
 * @property {number} firstAt   ms, of the attempt's first delta; 0 before it
 * @property {number} lastAt    ms, of its newest delta
 * @property {number} endedAt   ms; 0 before the end
 * @property {Usage|null} usage
 * @property {Failure|null} error
 * @property {string[]} notices newest last, MAX_NOTICES at most
 * @property {number} repeats   events that came a second time and were dropped
 * @property {boolean} gap      a gap was told, so that the next jump of seq is no news
 */

/** @type {Status[]} the states behind which there is none */
const ENDS = ['completed', 'failed', 'cancelled', 'expired'];
/** How many notices are kept. */
export const MAX_NOTICES = 8;
/** The largest index of a choice or a tool call that is taken from an event. */
export const MAX_INDEX = 127;

/** @returns {View} a job of which no event was seen */
export function initial() {
  return {
    status: 'queued', lane: '', model: '', provider: '', attempt: 0, nextSeq: 0, era: 0, choices: [], deltas: 0,
    startedAt: 0, firstAt: 0, lastAt: 0, endedAt: 0, usage: null, error: null, notices: [], repeats: 0, gap: false,
  };
}

/** @param {Status} status */
export function ended(status) {
  return ENDS.includes(status);
}

/** @param {Event} event @returns {boolean} whether nothing follows it */
export function last({ type, data }) {
  if (type === 'stream.snapshot') return ENDS.includes(data?.status);
  return type === 'output.completed' || type === 'output.failed' || type === 'output.cancelled';
}

/**
 * Folds one event in. An event whose seq was there already changes nothing.
 * @param {View} view
 * @param {Event} event
 * @returns {View}
 */
export function reduce(view, event) {
  if (event.type === 'stream.gap') {
    return note({ ...view, gap: true }, gapWords(event.data?.reason));
  }
  if (event.type === 'stream.snapshot') return restore(view, event.data ?? {});
  const seq = event.seq;
  if (typeof seq !== 'number') return view; // a claim, or a notice that this page does not know
  if (seq < view.nextSeq || ended(view.status)) return { ...view, repeats: view.repeats + 1 };

  let next = { ...view, nextSeq: seq + 1, gap: false, status: /** @type {Status} */ ('running') };
  if (seq > view.nextSeq && !view.gap) next = note(next, missingWords(view.nextSeq, seq - 1));
  const at = timeOf(event);
  next.lane = event.lane ?? next.lane;
  next.attempt = event.attempt ?? next.attempt;
  next.startedAt ||= at;
  return fold(next, event, at);
}

/** @param {View} v a view of our own, free to change @param {Event} event @param {number} at @returns {View} */
function fold(v, event, at) {
  const data = event.data ?? {};
  switch (event.type) {
    case 'output.started':
      return { ...v, model: data.model ?? v.model, provider: data.provider ?? v.provider };
    case 'output.delta':
      return { ...v, choices: say(v.choices, data), deltas: v.deltas + 1, firstAt: v.firstAt || at, lastAt: at };
    case 'output.tool_result':
      return { ...v, choices: answerTool(v.choices, data) };
    case 'output.superseded':
      return note({ ...v, choices: [], deltas: 0, firstAt: 0, lastAt: 0, era: v.era + 1 }, supersededWords(v.attempt, data.reason));
    case 'output.completed':
      return { ...v, status: 'completed', endedAt: at, model: data.model ?? v.model, usage: data.usage ?? null, choices: finish(sayRest(v.choices, data), data.choices) };
    case 'output.failed':
      return { ...v, status: data.code === 'expired' ? 'expired' : 'failed', endedAt: at, error: failure(data) };
    case 'output.cancelled':
      return { ...v, status: 'cancelled', endedAt: at, choices: sayRest(v.choices, data) };
    default:
      return v; // a type of a later version
  }
}

/**
 * @param {View} view
 * @param {any} data what was said through an event, in place of the events; with a
 *   status in place of that, all that was said, of a job whose end the log has lost
 * @returns {View}
 */
function restore(view, data) {
  const choices = [{ ...emptyChoice(), text: String(data.text ?? '') }];
  if (ENDS.includes(data.status)) return { ...view, status: data.status, era: view.era + 1, choices, gap: false };
  const through = Number(data.through_seq);
  if (!Number.isInteger(through) || through < view.nextSeq) return view;
  return { ...view, status: 'running', nextSeq: through + 1, era: view.era + 1, choices, gap: false };
}

/** @returns {Choice} */
function emptyChoice() {
  return { text: '', reasoning: '', refusal: '', finish: '', tools: [] };
}

/** @param {any} i @returns {i is number} */
function fits(i) {
  return Number.isInteger(i) && i >= 0 && i <= MAX_INDEX;
}

/**
 * @param {Choice[]} choices
 * @param {any} delta a Chat Completions choice delta
 * @returns {Choice[]}
 */
function say(choices, delta) {
  const index = delta.index ?? 0;
  if (!fits(index)) return choices;
  const all = choices.slice();
  while (all.length <= index) all.push(emptyChoice());
  const c = { ...all[index] };
  if (typeof delta.content === 'string') c.text += delta.content;
  if (typeof delta.reasoning === 'string') c.reasoning += delta.reasoning;
  if (typeof delta.refusal === 'string') c.refusal += delta.refusal;
  if (Array.isArray(delta.tool_calls)) c.tools = delta.tool_calls.reduce(callTool, c.tools);
  all[index] = c;
  return all;
}

/**
 * @param {Choice[]} choices
 * @param {any} data of an end, which holds what was not written as deltas
 * @returns {Choice[]}
 */
function sayRest(choices, data) {
  return Array.isArray(data.deltas) ? data.deltas.reduce((all, delta) => (delta ? say(all, delta) : all), choices) : choices;
}

/** @param {Tool[]} tools @param {any} part id and name come once, the arguments in pieces @returns {Tool[]} */
function callTool(tools, part) {
  const index = part?.index ?? 0;
  if (!fits(index)) return tools;
  const all = tools.slice();
  while (all.length <= index) all.push({ id: '', name: '', args: '', result: null, failed: false });
  const t = { ...all[index] };
  if (part.id) t.id = String(part.id);
  t.name += part.function?.name ?? '';
  t.args += part.function?.arguments ?? '';
  all[index] = t;
  return all;
}

/** @param {Choice[]} choices @param {any} data @returns {Choice[]} */
function answerTool(choices, data) {
  return choices.map((c) => ({
    ...c,
    tools: c.tools.map((t) => (t.id === data.call_id ? { ...t, result: String(data.content ?? ''), failed: data.is_error === true } : t)),
  }));
}

/** @param {Choice[]} choices @param {any} list how each choice ended @returns {Choice[]} */
function finish(choices, list) {
  if (!Array.isArray(list)) return choices;
  const all = choices.slice();
  for (const end of list) {
    if (!fits(end?.index)) continue;
    while (all.length <= end.index) all.push(emptyChoice());
    all[end.index] = { ...all[end.index], finish: String(end.finish_reason ?? '') };
  }
  return all;
}

/** @param {any} data @returns {Failure} */
function failure(data) {
  return {
    code: String(data.code ?? 'internal_error'),
    message: String(data.message || 'It failed, and did not say why.'),
    retryable: data.retryable === true,
  };
}

/** @param {View} view @param {string} text @returns {View} */
function note(view, text) {
  return { ...view, notices: [...view.notices, text].slice(-MAX_NOTICES) };
}

/** @param {number} attempt @param {unknown} reason */
function supersededWords(attempt, reason) {
  const why = typeof reason === 'string' && reason ? ` (${reason})` : '';
  return `Attempt ${attempt} was given up${why}. What it had said was cleared; the next one begins anew.`;
}

/** @param {number} from @param {number} to */
function missingWords(from, to) {
  return from === to ? `Event ${from} is missing.` : `Events ${from} to ${to} are missing.`;
}

/** @param {unknown} reason */
function gapWords(reason) {
  switch (reason) {
    case 'retention': return 'Some events are older than what the log keeps, and are gone.';
    case 'corrupt': return 'Some events cannot be read from the log.';
    case 'truncated': return 'The log has lost some events.';
    case 'recreated': return 'The topic was made anew: earlier events are gone.';
    default: return 'Some events are missing from the log.';
  }
}

/** @param {Event} event @returns {number} ms; 0 where it has none */
export function timeOf(event) {
  const at = Date.parse(event.time ?? '');
  return Number.isNaN(at) ? 0 : at;
}

/**
 * The figures beside an answer.
 * @param {View} view
 * @param {number} createdAt ms; 0 where it is not known
 * @param {number} now ms
 * @returns {{first: number|null, rate: number|null, exact: boolean, took: number|null}}
 *   first and took in ms; rate in tokens per second, counted in deltas until the usage is known
 */
export function figures(view, createdAt, now) {
  const spoke = view.lastAt - view.firstAt;
  const counted = view.usage?.completion_tokens;
  const tokens = typeof counted === 'number' ? counted : view.deltas;
  const end = ended(view.status) ? view.endedAt : now;
  return {
    first: view.firstAt && createdAt ? Math.max(0, view.firstAt - createdAt) : null,
    rate: spoke > 0 && tokens > 1 ? ((tokens - 1) * 1000) / spoke : null,
    exact: typeof counted === 'number',
    took: createdAt && end ? Math.max(0, end - createdAt) : null,
  };
}
