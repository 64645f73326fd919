// The stasis queue: what was missed and waits for somebody, with the three decisions, for one or for many.

import { approve, drop, mayAct, reschedule } from "./actions.js";
import { button, h, hidden, link, redraw } from "./dom.js";
import { matchesRule, note, store } from "./store.js";
import { relative, short } from "./time.js";

// What the state says of Prefect's own buttons; here there are others.
const IN_PREFECT = " Resume runs it, Cancel drops it.";

const before = () => document.getElementById("missed-before");

const shown = () => {
  const until = before().value ? new Date(before().value).getTime() : Infinity;
  return (store.missed?.items ?? []).filter(
    (item) =>
      matchesRule(item.rule_id, item.kind) &&
      ["", "missed", "approved"].includes(store.filter.outcome) &&
      new Date(item.due).getTime() < until,
  );
};

export function ready() {
  before().addEventListener("input", () => note());
}

const isOpen = (item) => item.turn === null;

export function draw() {
  const items = shown();
  const selected = items.filter((item) => store.selected.has(item.occurrence_id));
  const section = document.getElementById("missed");
  section.classList.toggle("some", items.some(isOpen));
  const total = store.missed?.total ?? 0;
  document.getElementById("missed-title").textContent = total ? `Missed · ${total}` : "Missed";
  document.getElementById("missed-before-field").hidden = total < 2 && !before().value;
  const same = items.map((item) => ({ ...item, late_by: null })); // told anew with each answer, and not shown
  const from = [same, [...store.selected], store.missed?.left_out, store.problems.missed, mayAct(), total];
  redraw(document.getElementById("missed-body"), from, () => {
    if (store.missed === null) return h("p", { class: "dim" }, store.problems.missed ?? "…");
    return [
      items.length
        ? [mayAct() && bulk(items, selected), h("ul", { class: "rows" }, items.map(row))]
        : h("p", { class: "dim" }, total ? "None that the filters let through." : "Nothing waits for a decision."),
      total > (store.missed.items.length || total) &&
        h("p", { class: "dim" }, `${total - store.missed.items.length} more wait, later ones than these.`),
      (store.missed.left_out ?? []).map(leftOut),
    ];
  });
}

function choose(ids, on) {
  for (const id of ids) {
    if (on) store.selected.add(id);
    else store.selected.delete(id);
  }
  note();
}

function bulk(items, selected) {
  const open = items.filter(isOpen);
  if (open.length === 0) return null;
  const all = selected.length === open.length;
  const ids = { ids: selected.map((item) => item.occurrence_id) };
  const none = selected.length === 0;
  const box = h("input", {
    type: "checkbox",
    "data-key": "missed-all",
    on: { change: (event) => choose(open.map((item) => item.occurrence_id), event.target.checked) },
  });
  box.checked = all;
  box.indeterminate = !none && !all;
  const act = (name, text, decide, more = {}) =>
    button(text, { key: `bulk-${name}`, disabled: none, run: () => decide(ids, selected.length), ...more });
  return h(
    "div",
    { class: "bulk", role: "group", "aria-label": "Decide about the chosen ones" },
    h("label", {}, box, ` All ${open.length}`),
    h("span", { class: "dim chosen" }, !none && `${selected.length} chosen`),
    act("approve", "Approve and run", approve, { class: "small primary" }),
    act("reschedule", "Reschedule…", reschedule, { class: "small" }),
    act("delete", "Delete…", drop, { class: "small" }),
  );
}

function row(item) {
  const id = item.occurrence_id;
  const named = `${item.rule_id}, due ${short(item.due)}`;
  const box = h("input", {
    type: "checkbox",
    "data-key": `missed-${id}`,
    "aria-label": `Choose ${named}`,
    on: { change: (event) => choose([id], event.target.checked) },
  });
  box.checked = store.selected.has(id);
  return h(
    "li",
    { class: "row", "data-missed": id },
    mayAct() && isOpen(item) && box,
    h(
      "div",
      { class: "what" },
      h("div", {}, link(item.url, { class: "name" }, item.rule_id), h("span", { class: "kind" }, item.kind)),
      h("div", { class: "dim" }, "due ", h("time", { datetime: item.due }, short(item.due)), " · ", relative(item.due)),
      item.reason && h("div", { class: "said" }, item.reason.replace(IN_PREFECT, "")),
      !isOpen(item) && h("div", { class: "dim" }, `approved; runs as number ${item.turn} of those that wait`),
      item.stale_at && h("div", { class: "dim" }, "skipped if nobody decides ", relative(item.stale_at)),
    ),
    mayAct() && isOpen(item) && decisions({ ids: [id] }, named, `missed-${id}`),
  );
}

/** The three decisions about one missed run. */
export function decisions(chosen, named, key) {
  const act = (name, text, decide, title) =>
    button([text, hidden(` ${named}`)], { key: `${key}-${name}`, class: "small", title, run: () => decide(chosen, 1) });
  return h(
    "div",
    { class: "acts" },
    act("approve", "Run", approve, "Approve: run it now, with the time it was due"),
    act("reschedule", "Later…", reschedule, "Reschedule it"),
    act("delete", "Delete…", drop, "Never run it"),
  );
}

function leftOut(one) {
  const text = `${one.rule_id}: ${one.count} more from ${short(one.since)} to ${short(one.until)} were left out`;
  return h("p", { class: "notice warn" }, one.reason ? `${text} (${one.reason})` : text);
}
