// All about one row of the calendar, and what may be done with it.

import { mayAct, tellRule } from "./actions.js";
import { why } from "./api.js";
import { open } from "./dialog.js";
import { button, h, link, pair } from "./dom.js";
import { decisions } from "./missed.js";
import { outcomeOf, sign, word } from "./outcomes.js";
import { runUrl } from "./running.js";
import { store } from "./store.js";
import { exact, relative, short, span } from "./time.js";

export function showEntry(entry) {
  const box = open(entry.source_ref, facts(entry), mayAct() && buttons(entry), entry.always_running ? null : reasons(entry));
  return box;
}

function facts(entry) {
  const became = outcomeOf(entry);
  const at = entry.scheduled_at_utc;
  const took = entry.started_at && entry.ended_at ? (new Date(entry.ended_at) - new Date(entry.started_at)) / 1000 : null;
  const url = runUrl(entry.run_id);
  const about = entry.title?.replace(`${entry.source_ref}: `, "");
  return h(
    "dl",
    { class: "facts" },
    pair("Outcome", sign(became), ` ${word(became)}`),
    about && about !== entry.source_ref && pair("About", about),
    pair("Kind", entry.source),
    entry.always_running
      ? pair("Due", `from ${short(at)} to ${short(entry.scheduled_until_utc ?? at)}`)
      : pair("Due", h("time", { datetime: at }, exact(at)), " · ", relative(at)),
    entry.counts && pair("Of them", Object.entries(entry.counts).map(([one, n]) => `${n} ${word(one)}`).join(", ")),
    entry.reason && pair(["skipped", "will_skip"].includes(became) ? "Reason" : "Said", h("span", { class: "said" }, entry.reason)),
    entry.started_at && pair("Began", exact(entry.started_at)),
    entry.ended_at && pair("Ended", exact(entry.ended_at), took !== null && ` · took ${span(took)}`),
    entry.cause !== "schedule" && pair("Cause", entry.cause),
    entry.owner_id && entry.owner_id !== "local" && pair("Owner", entry.owner_id),
    url && pair("Run", link(url, {}, "in Prefect")),
  );
}

function buttons(entry) {
  const id = entry.source_ref;
  const rule = store.rules?.rules.find((one) => one.id === id);
  const act = (text, what) => button(text, { key: `dialog-${what}`, class: "small", run: () => tellRule(id, what) });
  return h(
    "div",
    { class: "buttons start" },
    entry.status === "missed" && entry.run_id && decisions({ run_ids: [entry.run_id] }, id, "dialog"),
    rule && act("Run rule now", "run"),
    rule && (rule.status === "paused" ? act("Resume rule", "resume") : act("Pause rule", "pause")),
  );
}

/** Why it became what it became, as the ledger tells it; asked for only when somebody wants to know. */
function reasons(entry) {
  const body = h("div", { class: "why" }, h("p", { class: "dim" }, "…"));
  const ask = async () => {
    try {
      const answer = await why(entry.source_ref, entry.scheduled_at_utc);
      const steps = (answer.steps ?? []).map((step) =>
        h("li", {}, h("time", { datetime: step.at, title: exact(step.at) }, short(step.at)), ` ${step.event_type.replaceAll("_", " ")}`,
          step.message && h("span", { class: "said" }, ` ${step.message}`)),
      );
      body.replaceChildren(h("p", {}, answer.text), h("ol", {}, steps));
    } catch (problem) {
      body.replaceChildren(h("p", { class: "dim" }, problem.message));
    }
  };
  return h("details", { class: "whys", on: { toggle: (event) => event.target.open && ask() } }, h("summary", {}, "Why?"), body);
}
