// @ts-check
// The little that the elements share. Data enters the page as text alone.

/**
 * The part of an element that is marked data-part="name".
 * @template {Element} [T=HTMLElement]
 * @param {Element} root @param {string} name @returns {T}
 */
export function part(root, name) {
  return find(root, `[data-part="${name}"]`);
}

/**
 * @template {Element} [T=HTMLElement]
 * @param {ParentNode} root @param {string} selector @returns {T}
 */
export function find(root, selector) {
  const found = root.querySelector(selector);
  if (!found) throw new Error(`the page has no ${selector}`);
  return /** @type {T} */ (/** @type {unknown} */ (found));
}

/** Sets text where it is another one: a node that stays is not announced, and its selection stays.
 * @param {Element} node @param {string} text */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Shows text, or hides the node where there is none. @param {HTMLElement} node @param {string} text */
export function tell(node, text) {
  write(node, text);
  node.hidden = text === '';
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag @param {string} [name] its class @param {string} [text]
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, name = '', text = '') {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text) node.textContent = text;
  return node;
}

/** @param {string} text @returns {Promise<boolean>} whether it is on the clipboard now */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text); // exists in secure contexts only
    return true;
  } catch {
    const area = make('textarea', 'sr');
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    return done;
  }
}
