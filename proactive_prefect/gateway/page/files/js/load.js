// Brings what the page shows: all of it, or what an event may have changed. One request of a sort at a time, and at
// most one a second, however many events come.

import * as api from "./api.js";
import { note, range, store } from "./store.js";

const SOONEST = 1_000;
const GATHER = 120;
const LATEST = 30;

/** Ask for something now and again: calls that come while it is being asked for lead to one more. */
function asker(name, ask) {
  let busy = false;
  let wanted = false;
  let last = 0;
  const run = async () => {
    if (busy) {
      wanted = true;
      return;
    }
    busy = true;
    wanted = false;
    last = Date.now();
    try {
      await ask();
      delete store.problems[name];
    } catch (problem) {
      store.problems[name] = problem.message;
    }
    busy = false;
    note();
    if (wanted) soon();
  };
  let timer = 0;
  const soon = () => {
    wanted = true;
    if (busy || timer) return;
    timer = setTimeout(() => {
      timer = 0;
      run();
    }, Math.max(GATHER, last + SOONEST - Date.now()));
  };
  return { run, soon };
}

let seen = 0; // the last event that was heard of

const calendar = asker("calendar", async () => {
  const { start, end } = range();
  const found = await api.calendar(start, end);
  const now = range();
  if (now.start.getTime() !== start.getTime() || now.end.getTime() !== end.getTime()) calendar.soon();
  else note({ calendar: found });
  if ((found.last_event_seq ?? seen) < seen) calendar.soon(); // the projection is about to have it
});

const missed = asker("missed", async () => {
  const found = await api.missed();
  const there = new Set(found.items.map((item) => item.occurrence_id));
  for (const id of store.selected) if (!there.has(id)) store.selected.delete(id);
  note({ missed: found });
});

const changed = new Set();
const rules = asker("rules", async () => {
  const ids = store.rules === null || changed.has("*") || changed.size > 50 ? null : [...changed];
  changed.clear();
  if (ids?.length === 0) return; // whoever asked was answered already; to ask for none of them would bring them all
  try {
    const found = await api.rules(ids);
    if (ids === null) return note({ rules: found });
    const kept = store.rules.rules.filter((rule) => !ids.includes(rule.id));
    const all = [...kept, ...found.rules].sort((one, other) => (one.id < other.id ? -1 : 1));
    return note({ rules: { ...found, rules: all } });
  } catch (problem) {
    changed.add("*");
    throw problem;
  }
});

const deliveries = asker("deliveries", async () => note({ deliveries: await api.deliveries() }));

const state = asker("state", async () => note({ state: await api.state() }));

const latest = asker("latest", async () => {
  const head = await api.latest(0, 1);
  if (head.seq < seen) {
    store.latest = []; // it is another log than before
    seen = 0;
  }
  const page = await api.latest(Math.max(head.oldest_seq - 1, head.seq - LATEST, 0), LATEST);
  hear(page.events);
});

function hear(events) {
  const known = new Set(events.map((event) => event.seq));
  const all = [...events, ...store.latest.filter((event) => !known.has(event.seq))];
  all.sort((one, other) => other.seq - one.seq);
  seen = Math.max(seen, all[0]?.seq ?? 0);
  note({ latest: all.slice(0, LATEST) });
}

/** Everything, now. */
export async function loadAll() {
  changed.add("*");
  const more = [store.session.push && latest.run(), store.session.role === "operator" && deliveries.run()];
  await Promise.all([calendar.run(), missed.run(), rules.run(), state.run(), ...more]);
}

/** The calendar only: another part of it is to be shown. */
export const loadCalendar = () => calendar.run();

/** The inbox only: something was done there. */
export const loadDeliveries = () => deliveries.run();

/** What `event` may have changed. */
export function loadAfter(event) {
  hear([event]);
  changed.add(event.source_ref);
  rules.soon();
  calendar.soon();
  missed.soon();
  if (event.source === "webhook" && store.session.role === "operator") deliveries.soon();
}

/** The `seq` of the last event that is known; null before any is. */
export const lastSeen = () => seen || null;

/** What is not told by events: workers, and the server. */
export const loadHealth = () => state.run();
