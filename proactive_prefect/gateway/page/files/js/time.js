// Instants as people read them, on this browser's wall clock.

const two = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const clockFormat = new Intl.DateTimeFormat(undefined, two);
const exactFormat = new Intl.DateTimeFormat(undefined, {
  weekday: "short", day: "numeric", month: "short", year: "numeric", ...two, second: "2-digit", timeZoneName: "short",
});
const dayFormat = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short" });
const longFormat = new Intl.DateTimeFormat(undefined, {
  weekday: "long", day: "numeric", month: "long", year: "numeric",
});

const rangeFormat = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });

export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

export const clock = (at) => clockFormat.format(new Date(at));
export const exact = (at) => exactFormat.format(new Date(at));
export const shortDay = (at) => dayFormat.format(new Date(at));
export const longDay = (at) => longFormat.format(new Date(at));

/** "16–22 November 2026". */
export const days = (from, to) => rangeFormat.formatRange(new Date(from), new Date(to));

/** "14:05" on the same day, else "Mon 3 Mar, 14:05". */
export function short(at) {
  return sameDay(new Date(at), new Date()) ? clock(at) : `${shortDay(at)}, ${clock(at)}`;
}

/** The beginning of the day, `days` later; on the wall clock, so that days with a change of it are right too. */
export function dayStart(at, days = 0) {
  const date = new Date(at);
  return new Date(date.getFullYear(), date.getMonth(), date.getDate() + days);
}

/** The Monday of that week. */
export function weekStart(at) {
  return dayStart(at, -((new Date(at).getDay() + 6) % 7));
}

export const sameDay = (one, other) => dayStart(one).getTime() === dayStart(other).getTime();

/** "2026-03-01", for addresses. */
export function dayName(at) {
  const date = new Date(at);
  const pad = (number) => String(number).padStart(2, "0");
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
}

/** "4m 10s", "2h 5m", "3d": at most two units. */
export function span(seconds) {
  let rest = Math.round(Math.abs(seconds));
  if (Math.abs(seconds) < 10 && Math.abs(seconds) !== rest) return `${Math.abs(seconds).toFixed(1)}s`;
  const parts = [];
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]]) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count) parts.push(`${count}${unit}`);
  }
  return parts.slice(0, 2).join(" ") || "0s";
}

/** "in 4m", "2h ago". */
export function distance(at, now = Date.now()) {
  const seconds = (new Date(at).getTime() - now) / 1000;
  if (Math.abs(seconds) < 1) return "now";
  const about = Math.abs(seconds) < 60 ? Math.round(seconds) : Math.round(seconds / 60) * 60;
  return seconds > 0 ? `in ${span(about)}` : `${span(about)} ago`;
}

/** What `datetime-local` inputs hold. */
export function inputValue(at) {
  return `${dayName(at)}T${clock(at)}`;
}

/** An element that says how far away an instant is, and goes on saying it. */
export function relative(at) {
  const node = document.createElement("time");
  node.dateTime = at;
  node.title = exact(at);
  node.dataset.relative = "";
  node.textContent = distance(at);
  return node;
}

export function tick() {
  for (const node of document.querySelectorAll("time[data-relative]")) {
    const text = distance(node.dateTime);
    if (node.textContent !== text) node.textContent = text;
  }
}
