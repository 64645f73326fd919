// The calendar: what ran, runs, will run and was missed, as a day, a week, or a list.

import { agenda } from "./agenda.js";
import { grid } from "./grid.js";
import { h, redraw } from "./dom.js";
import { loadCalendar } from "./load.js";
import { matches, note, range, store, VIEWS, writeAddress } from "./store.js";
import { days as between, dayStart, longDay, zone } from "./time.js";

const body = () => document.getElementById("calendar-body");

export function draw() {
  drawViews();
  const { start, end, days } = range();
  const last = dayStart(end, -1);
  const said = days === 1 ? longDay(start) : between(start, last);
  document.getElementById("calendar-range").textContent = said;
  document.getElementById("calendar-range").title = `times in ${zone}`;
  const shown = store.calendar;
  const current = shown && new Date(shown.start_utc).getTime() === start.getTime();
  const entries = current ? shown.events.filter(matches) : [];
  const folded = current ? shown.always_running.filter(matches) : [];
  const minute = Math.floor(Date.now() / 60_000); // the line of now moves on
  const from = [current, store.view, start, entries, folded, store.problems.calendar, minute, store.session.role];
  redraw(body(), from, () => {
    if (!current) return h("p", { class: "dim" }, store.problems.calendar ?? "…");
    if (store.view === "agenda") return agenda(entries, folded, start, days);
    return grid(entries, folded, start, days, goToDay);
  });
}

function drawViews() {
  redraw(document.getElementById("calendar-views"), store.view, () =>
    Object.entries(VIEWS).map(([view, text]) =>
      h(
        "button",
        {
          type: "button",
          "data-key": `view-${view}`,
          "aria-pressed": String(view === store.view),
          "aria-keyshortcuts": view[0],
          title: `${text} (${view[0]})`,
          on: { click: () => show(view, store.date) },
        },
        text,
      ),
    ),
  );
}

function show(view, date) {
  note({ view, date: dayStart(date) });
  writeAddress();
  loadCalendar();
}

const goToDay = (date) => show("day", date);
const move = (way) => show(store.view, dayStart(store.date, way * range().days));

const KEYS = {
  d: () => show("day", store.date),
  w: () => show("week", store.date),
  a: () => show("agenda", store.date),
  t: () => show(store.view, new Date()),
  ArrowLeft: () => move(-1),
  ArrowRight: () => move(1),
};

export function ready() {
  document.getElementById("earlier").addEventListener("click", () => move(-1));
  document.getElementById("later").addEventListener("click", () => move(1));
  document.getElementById("today").addEventListener("click", KEYS.t);
}

/** A key that was pressed where nothing else takes it; whether it meant something here. */
export function press(key) {
  const meant = KEYS[key];
  meant?.();
  return Boolean(meant);
}
