// The rules: when each is due, what comes, what became of it lately; run now, pause, resume.

import { mayAct, tellRule } from "./actions.js";
import { button, h, hidden, link, redraw } from "./dom.js";
import { OUTCOMES, sign, tone, word } from "./outcomes.js";
import { runUrl } from "./running.js";
import { matchesRule, store } from "./store.js";
import { exact, relative, short } from "./time.js";

const shown = () => {
  const { outcome } = store.filter;
  return (store.rules?.rules ?? []).filter(
    (rule) => matchesRule(rule.id, rule.kind) && (!outcome || rule.last.some((one) => one.outcome === outcome)),
  );
};

export function draw() {
  const rules = shown();
  const all = store.rules?.rules ?? [];
  document.getElementById("rules-title").textContent = all.length ? `Rules · ${all.length}` : "Rules";
  const ids = document.getElementById("rule-ids");
  redraw(ids, all.map((rule) => rule.id), () => all.map((rule) => h("option", { value: rule.id })));
  redraw(document.getElementById("rules-body"), [rules, mayAct(), store.problems.rules, all.length], () => {
    if (store.rules === null) return h("p", { class: "dim" }, store.problems.rules ?? "…");
    if (all.length === 0) return h("p", { class: "dim" }, "No rule is deployed: proactive apply deploys those of the file.");
    if (rules.length === 0) return h("p", { class: "dim" }, "None matches.");
    const head = ["Rule", "When", "Next", "Last", mayAct() ? "Actions" : null].filter(Boolean);
    return h(
      "table",
      { class: "rule-table" },
      h("thead", {}, h("tr", {}, head.map((text) => h("th", { scope: "col", class: text === "Actions" && "acts" }, text)))),
      h("tbody", {}, rules.map(row)),
    );
  });
}

function row(rule) {
  return h(
    "tr",
    { "data-rule": rule.id, class: rule.status },
    h(
      "th",
      { scope: "row" },
      h("div", {}, link(rule.url, { class: "name" }, rule.id), h("span", { class: "kind" }, rule.kind), badge(rule)),
      rule.description && h("div", { class: "description" }, rule.description),
    ),
    h("td", { class: "when" }, rule.when),
    h("td", { class: "next" }, next(rule)),
    h("td", { class: "last" }, last(rule)),
    mayAct() && h("td", { class: "acts" }, acts(rule)),
  );
}

function badge(rule) {
  return rule.status === "active" ? null : h("span", { class: "badge" }, rule.status);
}

function next(rule) {
  const [first, ...later] = rule.next_fires;
  if (!first) return h("span", { class: "dim" }, "–");
  if (later.length === 0) return relative(first);
  return h(
    "details",
    { "data-key": `next-${rule.id}` },
    h("summary", { "data-key": `next-summary-${rule.id}`, title: exact(first) }, relative(first)),
    h("ol", {}, [first, ...later].map((at) => h("li", {}, h("time", { datetime: at, title: exact(at) }, short(at))))),
  );
}

function last(rule) {
  const newest = rule.last.at(-1);
  if (!newest) return h("span", { class: "dim" }, "never yet");
  const now = outcome(newest);
  return [
    h("div", {}, sign(now), ` ${word(now)} `, h("span", { class: "dim" }, now === "running" && "due ", relative(newest.ended_at ?? newest.due))),
    h("ol", { class: "dots", "aria-label": `The last ${rule.last.length} of ${rule.id}` }, rule.last.map(dot)),
    newest.reason && h("div", { class: "said" }, newest.reason),
  ];
}

const outcome = (one) => (one.outcome === "expected" ? "running" : one.outcome);

function dot(one) {
  const became = outcome(one);
  const text = `${word(became)}, due ${exact(one.due)}${one.reason ? `: ${one.reason}` : ""}`;
  const mark = h("span", { "aria-hidden": "true" }, OUTCOMES[became]?.[1] ?? "·");
  return h("li", {}, link(runUrl(one.run_id), { class: `dot ${tone(became)}`, title: text }, mark, hidden(text)));
}

function acts(rule) {
  const act = (text, what) =>
    button([text, hidden(` ${rule.id}`)], { key: `${what}-${rule.id}`, class: "small", run: () => tellRule(rule.id, what) });
  return [act("Run now", "run"), rule.status === "paused" ? act("Resume", "resume") : act("Pause", "pause")];
}
