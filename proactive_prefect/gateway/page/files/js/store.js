// What the page knows and what is chosen on it. Whoever draws something is told of each change.

import { dayName, dayStart, weekStart } from "./time.js";
import { outcomeOf } from "./outcomes.js";

export const VIEWS = { day: "Day", week: "Week", agenda: "Agenda" };

export const store = {
  session: { role: "reader", prefect_url: null, push: true },
  calendar: null, // the part that is shown
  missed: null,
  rules: null,
  deliveries: null, // the latest of them
  state: null,
  latest: [],
  stream: "connecting",
  problems: {}, // by what was asked for
  selected: new Set(), // missed occurrences
  view: matchMedia("(max-width: 46rem)").matches ? "agenda" : "week",
  date: dayStart(new Date()),
  filter: { rule: "", kind: "", outcome: "" },
};

const listeners = new Set();
let waiting = false;

export const onChange = (listener) => listeners.add(listener);

/** Note something, and let everything be drawn that depends on it, once for all that is noted now. */
export function note(change = {}) {
  Object.assign(store, change);
  if (waiting) return;
  waiting = true;
  queueMicrotask(() => {
    waiting = false;
    for (const listener of listeners) listener(store);
  });
}

/** The part of the calendar that is shown: from a day's beginning to another's. */
export function range() {
  const start = store.view === "week" ? weekStart(store.date) : dayStart(store.date);
  return { start, end: dayStart(start, store.view === "day" ? 1 : 7), days: store.view === "day" ? 1 : 7 };
}

export function matchesRule(id, kind) {
  const { rule, kind: wanted } = store.filter;
  return (!rule || id.toLowerCase().includes(rule.toLowerCase())) && (!wanted || kind === wanted);
}

export function matches(entry) {
  const { outcome } = store.filter;
  if (!matchesRule(entry.source_ref, entry.source)) return false;
  return !outcome || outcomeOf(entry) === outcome || Boolean(entry.counts?.[outcome]);
}

/** Where one is, in the address: a reload, or a link for somebody else, leads there again. */
export function writeAddress() {
  const said = new URLSearchParams({ view: store.view });
  if (dayName(store.date) !== dayName(new Date())) said.set("date", dayName(store.date));
  for (const [name, value] of Object.entries(store.filter)) if (value) said.set(name, value);
  history.replaceState(null, "", `#${said}`);
}

export function readAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  if (said.get("view") in VIEWS) store.view = said.get("view");
  const date = new Date(`${said.get("date")}T00:00`);
  store.date = Number.isNaN(date.getTime()) ? dayStart(new Date()) : date;
  for (const name of Object.keys(store.filter)) store.filter[name] = said.get(name) ?? "";
}
