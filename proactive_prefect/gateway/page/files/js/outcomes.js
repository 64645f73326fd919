// What became of an occurrence: its word, its sign, and its tone. The sign says it without colours.

import { h, hidden } from "./dom.js";

export const OUTCOMES = {
  running: ["running", "▶", "live"],
  expected: ["due", "○", "soon"],
  scheduled: ["scheduled", "○", "soon"],
  completed: ["completed", "✓", "good"],
  quiet: ["quiet", "✓", "calm"],
  failed: ["failed", "✕", "bad"],
  timed_out: ["timed out", "✕", "bad"],
  unknown: ["unknown", "?", "bad"],
  missed: ["missed", "!", "warn"],
  approved: ["approved", "↻", "live"],
  rescheduled: ["rescheduled", "→", "calm"],
  skipped: ["skipped", "–", "calm"],
  cancelled: ["cancelled", "–", "calm"],
  deleted: ["deleted", "–", "calm"],
};

// They are not filtered by: what is scheduled at a time that its conditions rule out, and what deliveries may be.
const STATUSES = {
  will_skip: ["will be skipped", "–", "calm"],
  waiting: ["waiting", "○", "soon"],
  dispatched: ["has its run", "✓", "good"],
  joined: ["part of another's run", "✓", "calm"],
  undeliverable: ["undeliverable", "✕", "bad"],
};

const known = (outcome) => OUTCOMES[outcome] ?? STATUSES[outcome];

export const word = (outcome) => known(outcome)?.[0] ?? outcome;
export const tone = (outcome) => known(outcome)?.[2] ?? "calm";

/** The sign of an outcome; screen readers hear its word. */
export function sign(outcome) {
  const mark = h("span", { "aria-hidden": "true" }, known(outcome)?.[1] ?? "·");
  return h("span", { class: `sign ${tone(outcome)}`, title: word(outcome) }, mark, hidden(word(outcome)));
}

/** The outcome of a calendar's row: a run at work is running, whatever else is known of it. */
export function outcomeOf(entry) {
  if (entry.running) return "running";
  return entry.status === "scheduled" && entry.reason ? "will_skip" : entry.status;
}
