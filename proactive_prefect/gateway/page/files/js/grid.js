// The day and the week as a table: a row for each hour, a column for each day. Rows are as high as what is in them, so
// that what is due together stands together and can be read.

import { h, hidden } from "./dom.js";
import { showEntry } from "./entry.js";
import { outcomeOf, sign, tone, word } from "./outcomes.js";
import { clock, dayStart, longDay, sameDay, shortDay } from "./time.js";

const MOST = { 1: 60, 7: 6 }; // chips in one cell, by the number of columns

/** `goToDay(date)` shows a day of its own, where a week's cell has no room for all. */
export function grid(entries, folded, start, days, goToDay) {
  const columns = Array.from({ length: days }, (_, n) => dayStart(start, n));
  const cells = new Map();
  for (const entry of entries) {
    const at = new Date(entry.scheduled_at_utc);
    const key = `${dayStart(at).getTime()} ${at.getHours()}`;
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(entry);
  }
  return h(
    "table",
    { class: days === 1 ? "grid day" : "grid" },
    h("caption", { class: "hidden-text" }, "By hour and day"),
    h(
      "thead",
      {},
      h("tr", {}, h("td", {}), columns.map((day) => h("th", { scope: "col", class: today(day) }, shortDay(day)))),
      folded.length > 0 && foldedRow(folded, columns),
    ),
    h("tbody", {}, Array.from({ length: 24 }, (_, hour) => hourRow(hour, columns, cells, goToDay))),
  );
}

const today = (day) => (sameDay(day, new Date()) ? "today" : null);

function foldedRow(folded, columns) {
  const middle = (entry) =>
    (new Date(entry.scheduled_at_utc).getTime() + new Date(entry.scheduled_until_utc ?? entry.scheduled_at_utc).getTime()) / 2;
  return h(
    "tr",
    { class: "folded" },
    h("th", { scope: "row" }, h("span", { title: "Due so often that a day is one entry" }, "often")),
    columns.map((day) =>
      h("td", { class: today(day) }, chips(folded.filter((entry) => sameDay(middle(entry), day)), day, 8)),
    ),
  );
}

function hourRow(hour, columns, cells, goToDay) {
  const found = columns.map((day) => cells.get(`${day.getTime()} ${hour}`) ?? []);
  const now = new Date();
  const empty = found.every((one) => one.length === 0);
  const current = now.getHours() === hour && columns.some((day) => sameDay(day, now));
  return h(
    "tr",
    { class: [empty && "empty", current && "now"].filter(Boolean).join(" ") || null },
    h("th", { scope: "row" }, `${String(hour).padStart(2, "0")}:00`),
    columns.map((day, n) =>
      h("td", { class: today(day) }, found[n].length > 0 && chips(found[n], day, MOST[columns.length], goToDay)),
    ),
  );
}

function chips(entries, day, most, goToDay) {
  const shown = entries.length > most ? entries.slice(0, most - 1) : entries;
  const rest = entries.length - shown.length;
  const more = () => goToDay?.(day);
  return h(
    "ul",
    { class: "chips" },
    shown.map((entry) => h("li", {}, chip(entry))),
    rest > 0 &&
      h(
        "li",
        {},
        h("button", { type: "button", class: "chip more", "data-key": `more-${day.getTime()}-${entries[0].event_id}`, on: { click: more } },
          `${rest} more`, hidden(` on ${longDay(day)}`)),
      ),
  );
}

const GRAVE = ["failed", "timed_out", "unknown", "missed"];

/** How many of a day's occurrences went wrong, by their signs. */
function worst(entry) {
  return GRAVE.filter((one) => entry.counts?.[one]).map((one) => [sign(one), `${entry.counts[one]} `]);
}

/** A row of the calendar as a button that tells the rest. */
export function chip(entry) {
  const became = outcomeOf(entry);
  const many = entry.always_running ? Object.values(entry.counts ?? {}).reduce((sum, one) => sum + one, 0) : 0;
  const counted = Object.entries(entry.counts ?? {}).map(([one, n]) => `${n} ${word(one)}`).join(", ");
  return h(
    "button",
    {
      type: "button",
      class: `chip ${tone(became)}`,
      "data-key": `entry-${entry.event_id}`,
      "data-entry": entry.event_id,
      "aria-haspopup": "dialog",
      title: [entry.source_ref, counted, entry.reason].filter(Boolean).join(" · "),
      on: { click: () => showEntry(entry) },
    },
    sign(became),
    !entry.always_running && h("time", { datetime: entry.scheduled_at_utc }, clock(entry.scheduled_at_utc)),
    h("span", { class: "name" }, entry.source_ref),
    many > 0 && h("span", { class: "many" }, worst(entry), `×${many}`),
  );
}
