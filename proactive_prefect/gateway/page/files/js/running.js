// What runs now, and what happened last.

import { h, link, redraw } from "./dom.js";
import { sign } from "./outcomes.js";
import { matches, matchesRule, store } from "./store.js";
import { exact, relative } from "./time.js";

export const runUrl = (id) => (id ? (store.calendar?.run_url ?? store.rules?.run_url)?.replace("{run_id}", id) : null);

export function draw() {
  const running = (store.calendar?.running ?? []).filter(matches);
  document.getElementById("running-title").textContent = running.length ? `Running now · ${running.length}` : "Running now";
  redraw(document.getElementById("running-body"), [running, store.calendar?.run_url, store.calendar === null], () => {
    if (store.calendar === null) return h("p", { class: "dim" }, "…");
    if (running.length === 0) return h("p", { class: "dim" }, "Nothing runs now.");
    return h("ul", { class: "rows" }, running.map(row));
  });
}

function row(entry) {
  return h(
    "li",
    { class: "row" },
    sign("running"),
    h(
      "div",
      { class: "what" },
      h(
        "div",
        {},
        link(runUrl(entry.run_id), { class: "name" }, entry.source_ref),
        h("span", { class: "kind" }, entry.source),
      ),
      h("div", { class: "dim" }, entry.started_at ? "began " : "due ", relative(entry.started_at ?? entry.scheduled_at_utc)),
    ),
  );
}

const SIGNS = { scheduled: "scheduled", started: "running", running: "running" };

export function drawLatest() {
  const events = store.latest.filter((event) => matchesRule(event.source_ref, event.source)).slice(0, 12);
  redraw(document.getElementById("latest-body"), [events, store.session.push], () => {
    if (events.length === 0) return h("p", { class: "dim" }, store.session.push ? "Nothing yet." : "Push is switched off.");
    return h("ol", { class: "log" }, events.map(logged));
  });
}

/** "run failed", without the kind, which stands beside it. */
const happened = (event) => event.event_type.replace(`${event.source}_`, "").replaceAll("_", " ");

function logged(event) {
  const { message, run_id: run } = event.payload;
  return h(
    "li",
    { "data-seq": event.seq },
    sign(SIGNS[event.status] ?? event.status),
    h(
      "div",
      { class: "what" },
      h(
        "div",
        {},
        link(runUrl(run), { class: "name" }, event.source_ref),
        h("span", { class: "dim", title: exact(event.occurred_at_utc) }, ` ${happened(event)}`),
      ),
      message && h("div", { class: "said" }, message),
    ),
    relative(event.occurred_at_utc),
  );
}
