// @ts-check
// What is said to a person: times, states, lines to copy. Pure.

/** @typedef {import('./api.js').Job} Job */

/** @type {Record<string, string>} */
const labels = {
  queued: 'waiting', running: 'running', completed: 'completed', failed: 'failed', cancelled: 'cancelled', expired: 'expired',
};

/** @param {string} status */
export function label(status) {
  return labels[status] ?? status;
}

/** @param {number|null} ms @returns {string} a duration: 45 ms, 1.2 s, 3 min 5 s, 2 h 10 min, 3 d */
export function duration(ms) {
  if (ms === null || !Number.isFinite(ms)) return '–';
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(ms < 9_950 ? 1 : 0)} s`;
  const s = Math.round(ms / 1000);
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d`;
}

/** @param {number} ms @returns {string} how long ago, in whole units: a list that trembles is no calm list */
export function age(ms) {
  const s = Math.floor(Math.max(0, ms) / 1000);
  if (s < 2) return 'now';
  if (s < 60) return `${s} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ago`;
  return `${Math.floor(s / 86_400)} d ago`;
}

/** @param {number} ms @returns {string} the time of day where the reader is, 15:04:05 */
export function clock(ms) {
  const d = new Date(ms);
  return [d.getHours(), d.getMinutes(), d.getSeconds()].map((n) => String(n).padStart(2, '0')).join(':');
}

/** @param {number|null} rate @param {boolean} exact */
export function rate(rate, exact) {
  if (rate === null) return '–';
  return (exact ? '' : '≈ ') + (rate < 10 ? rate.toFixed(1) : String(Math.round(rate)));
}

/** @param {import('./events.js').Usage|null|undefined} usage */
export function usage(usage) {
  if (!usage) return '–';
  return `${usage.prompt_tokens ?? 0} in, ${usage.completion_tokens ?? 0} out`;
}

/** @param {string|undefined} text RFC 3339 @returns {number} ms; 0 where there is none */
export function time(text) {
  const at = Date.parse(text ?? '');
  return Number.isNaN(at) ? 0 : at;
}

/**
 * Why a job waits, as far as is known: nobody has begun it since.
 * @param {{lane?: string, created_at?: string}} job @param {number} now ms @returns {string}
 */
export function why(job, now) {
  const since = time(job.created_at);
  const lane = job.lane ? `in the ${job.lane} lane` : 'in its lane';
  if (!since) return `Waits ${lane}: no processor has begun it yet.`;
  return `Waits ${lane} since ${clock(since)} (${duration(wholeSeconds(now - since))}): no processor has begun it yet.`;
}

/** @param {number} ms */
function wholeSeconds(ms) {
  return Math.max(1000, Math.floor(ms / 1000) * 1000);
}

/**
 * A job's line in the list.
 * @param {Job} job @param {number} now ms
 * @returns {{label: string, age: string, detail: string}}
 */
export function row(job, now) {
  const created = time(job.created_at);
  const parts = [job.lane ?? ''];
  if (job.status === 'queued') {
    parts[0] = `waits in ${job.lane ?? 'its lane'}${created ? ` for ${duration(wholeSeconds(now - created))}` : ''}`;
  } else {
    const end = time(job.ended_at);
    if (created && end) parts.push(duration(end - created));
    if (job.error?.code) parts.push(job.error.code);
  }
  parts.push(job.model ?? ''); // last, since it may be long
  return { label: label(job.status), age: created ? age(now - created) : '', detail: parts.filter(Boolean).join(' · ') };
}

/**
 * Who is asked for what, and where the request lies, as far as it is known.
 * @param {Job} job @param {import('./events.js').View} view
 */
export function about(job, view) {
  const model = view.model || job.model || '';
  const lane = view.lane || job.lane;
  const place = job.request ? `${job.request.topic}, partition ${job.request.partition}, offset ${job.request.offset}` : '';
  return [view.provider && view.provider !== model ? `${model} by ${view.provider}` : model, lane && `${lane} lane`, place].filter(Boolean).join(' · ');
}

/** @param {string} id @returns {string} what tells it from others in a narrow list: the ids of one hour begin alike */
export function shortId(id) {
  return id.startsWith('job_') && id.length > 16 ? `…${id.slice(-10)}` : id;
}

/** @param {string} text @returns {string} quoted for a POSIX shell */
export function quote(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** @param {string} origin @param {string} id */
export function curlLine(origin, id) {
  return `curl -N ${quote(`${origin}/v1/jobs/${encodeURIComponent(id)}/events`)}`;
}

/**
 * How to read the job from Kafka itself; '' where it is not known where it lies.
 * @param {Job} job
 */
export function kcatLine(job) {
  const topic = job.request?.topic ?? '';
  const cut = topic.lastIndexOf('requests.');
  if (cut < 0 || job.request === undefined) return '';
  const from = time(job.created_at);
  return `kcat -C -q -e -b "\${BROKER:-localhost:9092}" -t ${quote(`${topic.slice(0, cut)}tokens`)} -p ${job.request.partition}` +
    ` -o ${from ? `s@${from}` : 'beginning'} | grep -F ${quote(`"job":"${job.id}"`)}`;
}
