// Elements, made of data. Whatever comes from outside becomes a text node or an attribute: there is no way from a
// text to markup here, and the page's policy (trusted types) forbids every other way.

/** An element. `props`: attributes; `class`; `on: {event: listener}`; what is null, undefined or false is left out. */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** A link to another page, in a tab of its own; only its text where `url` is not one of the web. */
export function link(url, props, ...children) {
  if (!/^https?:\/\//i.test(url ?? "")) return h("span", { class: props.class }, ...children);
  return h("a", { ...props, href: url, target: "_blank", rel: "noopener noreferrer" }, ...children);
}

/** A button with a listener. `key` names it, so that the focus finds it again when its list is drawn anew. */
export function button(text, { key, run, ...props }) {
  return h("button", { type: "button", "data-key": key, on: { click: run }, ...props }, text);
}

/** A name and its value, for a `dl`. */
export const pair = (name, ...value) => [h("dt", {}, name), h("dd", {}, ...value)];

/** Text for screen readers only. */
export function hidden(text) {
  return h("span", { class: "hidden-text" }, text);
}

const drawn = new WeakMap();

/**
 * Draw `container` anew by `draw()`, if what it is drawn from has changed. Who had the focus in it has it afterwards.
 */
export function redraw(container, from, draw) {
  const now = JSON.stringify(from);
  if (drawn.get(container) === now) return;
  drawn.set(container, now);
  const had = container.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  const open = new Set([...container.querySelectorAll("details[open]")].map((one) => one.dataset.key));
  container.replaceChildren(...[draw()].flat(Infinity).filter(Boolean));
  for (const one of container.querySelectorAll("details")) one.open = open.has(one.dataset.key);
  if (had) container.querySelector(`[data-key="${CSS.escape(had)}"]`)?.focus({ preventScroll: true });
}
