// The calendar as a list, day by day: for narrow screens, and for who wants to read reasons.

import { h } from "./dom.js";
import { showEntry } from "./entry.js";
import { chip } from "./grid.js";
import { outcomeOf, sign, word } from "./outcomes.js";
import { clock, dayStart, longDay, sameDay, span } from "./time.js";

export function agenda(entries, folded, start, days) {
  const all = Array.from({ length: days }, (_, n) => dayStart(start, n)).map((day) => ({
    day,
    single: entries.filter((entry) => sameDay(entry.scheduled_at_utc, day)),
    often: folded.filter((entry) => sameDay(entry.scheduled_at_utc, day)),
  }));
  const some = all.filter(({ single, often }) => single.length + often.length > 0);
  if (some.length === 0) return h("p", { class: "dim" }, "Nothing in these days.");
  return h("div", { class: "agenda" }, some.map(oneDay));
}

function oneDay({ day, single, often }) {
  return h(
    "section",
    { class: sameDay(day, new Date()) ? "today" : null },
    h("h3", {}, longDay(day)),
    often.length > 0 && h("ul", { class: "chips often" }, often.map((entry) => h("li", {}, chip(entry)))),
    h("ol", {}, single.map(row)),
  );
}

function row(entry) {
  const became = outcomeOf(entry);
  const took = entry.started_at && entry.ended_at && (new Date(entry.ended_at) - new Date(entry.started_at)) / 1000;
  return h(
    "li",
    {},
    h(
      "button",
      {
        type: "button",
        class: "plain line",
        "data-key": `entry-${entry.event_id}`,
        "data-entry": entry.event_id,
        "aria-haspopup": "dialog",
        on: { click: () => showEntry(entry) },
      },
      h("time", { datetime: entry.scheduled_at_utc }, clock(entry.scheduled_at_utc)),
      sign(became),
      h("span", { class: "name" }, entry.source_ref),
      h("span", { class: "dim", "aria-hidden": "true" }, word(became)),
      entry.reason && h("span", { class: "said" }, entry.reason),
      took !== null && took >= 0 && took !== false && entry.ended_at && h("span", { class: "dim took" }, span(took)),
    ),
  );
}
