// @ts-check
// The page: which job is shown stands in the address after '#', so that a reload,
// a bookmark or the back button comes back to it and reads it from the start.

import { find } from './dom.js';
import './joblist.js';
import './jobview.js';
import './prompt.js';

/** @type {import('./prompt.js').Prompt} */
const prompt = find(document, 'penstock-prompt');
/** @type {import('./jobview.js').JobView} */
const view = find(document, 'penstock-job');
/** @type {import('./joblist.js').JobList} */
const list = find(document, 'penstock-jobs');

/** @returns {string} the id in the address; '' for none */
function chosen() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return location.hash.slice(1);
  }
}

/** @param {import('./api.js').Job} [job] what is known of it */
function show(job) {
  const id = chosen();
  list.select(id);
  if (id) view.show(id, job?.id === id ? job : undefined);
  else view.clear();
}

prompt.addEventListener('accepted', (event) => {
  const job = /** @type {CustomEvent<import('./api.js').Job>} */ (event).detail;
  history.pushState(null, '', `#${encodeURIComponent(job.id)}`); // fires no hashchange
  list.add(job);
  show(job);
});

view.addEventListener('news', (event) => {
  const { id, news } = /** @type {CustomEvent} */ (event).detail;
  list.learn(id, news);
});

// Both fire where the reader changes the address or goes back.
for (const name of ['popstate', 'hashchange']) {
  addEventListener(name, () => {
    if (chosen() !== (view.job?.id ?? '')) show();
  });
}

show();
// On a phone the keyboard would cover the page that one came to see.
if (!chosen() && matchMedia('(min-width: 60rem)').matches) prompt.text.focus();
