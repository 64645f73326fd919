// The inbox: what callers of webhooks sent, what became of it, and once more, or only as if. For operators.

import { mayAct } from "./actions.js";
import * as api from "./api.js";
import { confirm, open, toast } from "./dialog.js";
import { button, h, hidden, link, pair, redraw } from "./dom.js";
import { loadDeliveries } from "./load.js";
import { sign, word } from "./outcomes.js";
import { matchesRule, store } from "./store.js";
import { exact, relative } from "./time.js";

const shown = () => (store.deliveries?.deliveries ?? []).filter((one) => matchesRule(one.webhook, "webhook"));

export function draw() {
  const section = document.getElementById("deliveries");
  const known = store.deliveries?.deliveries ?? [];
  section.hidden = !mayAct() || (known.length === 0 && !store.rules?.rules.some((rule) => rule.kind === "webhook"));
  if (section.hidden) return;
  const items = shown();
  redraw(document.getElementById("deliveries-body"), [items, store.deliveries === null, store.problems.deliveries], () => {
    if (store.deliveries === null) return h("p", { class: "dim" }, store.problems.deliveries ?? "…");
    if (items.length === 0) {
      return h("p", { class: "dim" }, known.length ? "None that the filters let through." : "No webhook was called yet.");
    }
    return [
      h("ul", { class: "rows" }, items.map(row)),
      store.deliveries.next && h("p", { class: "dim" }, "Older ones: proactive deliveries list."),
    ];
  });
}

const size = (bytes) => (bytes < 1000 ? `${bytes} bytes` : `${(bytes / 1000).toFixed(1)} kB`);

function row(one) {
  return h(
    "li",
    { class: "row", "data-delivery": one.id },
    sign(one.status),
    h(
      "div",
      { class: "what" },
      h(
        "div",
        {},
        link(one.run_url, { class: "name" }, one.webhook),
        h("span", { class: "dim" }, ` ${word(one.status)} · ${size(one.payload_bytes)} · `, relative(one.received_at)),
      ),
      one.reason && h("div", { class: "said" }, one.reason),
    ),
    button(["Show", hidden(` delivery ${one.delivery_id} of ${one.webhook}`)], {
      key: `delivery-${one.id}`,
      class: "small",
      run: () => show(one.id),
    }),
  );
}

async function show(id) {
  let one;
  try {
    one = await api.delivery(id);
  } catch (problem) {
    toast(problem.message, "bad");
    return;
  }
  const told = h("div", { class: "told", role: "status" });
  open(`Delivery to ${one.webhook}`, facts(one), sent(one), one.erased_at === null && buttons(one, told), told);
}

function facts(one) {
  return h(
    "dl",
    { class: "facts" },
    pair("Status", sign(one.status), ` ${word(one.status)}`, one.run_url && [" · ", link(one.run_url, {}, "its run in Prefect")]),
    one.reason && pair("Reason", h("span", { class: "said" }, one.reason)),
    pair("Received", exact(one.received_at), " · ", relative(one.received_at)),
    pair("Its id", h("code", {}, one.delivery_id)),
    one.replay_of && pair("Replay of", h("code", {}, one.replay_of)),
    one.joined_to && pair("One run with", h("code", {}, one.joined_to)),
    one.erased_at && pair("Erased", exact(one.erased_at)),
  );
}

/** What a stranger wrote: text, and nothing else. */
function sent(one) {
  if (one.erased_at !== null) return h("p", { class: "dim" }, "Headers and payload were taken away.");
  const headers = Object.entries(one.headers).map(([name, value]) => pair(name, value));
  return h(
    "div",
    { class: "sent" },
    h("h3", {}, "Payload, untrusted"),
    h("pre", { tabindex: "0", "aria-label": "Payload" }, JSON.stringify(one.payload, null, 2)),
    h("details", {}, h("summary", {}, `${headers.length} headers`), h("dl", { class: "facts" }, headers)),
  );
}

function buttons(one, told) {
  const act = (name, text, run, more = {}) => button(text, { key: `delivery-${name}`, class: "small", run, ...more });
  return h(
    "div",
    { class: "buttons start" },
    act("replay", "Replay…", () => replay(one)),
    act("dry-run", "Dry run", () => dryRun(one, told), { title: "What this payload would do now; nothing is done" }),
    one.status !== "waiting" && act("erase", "Erase…", () => erase(one)),
  );
}

async function decide(question, text, yes, { danger = false, act, done }) {
  if (!(await confirm(question, text, yes, { danger }))) return;
  try {
    await act();
    toast(done);
  } catch (problem) {
    toast(problem.message, "bad");
  }
  loadDeliveries();
}

const replay = (one) =>
  decide("Replay this delivery?", `${one.webhook} gets it once more, as a new delivery with a run of its own.`, "Replay", {
    act: () => api.replay(one.id),
    done: `${one.webhook} gets it once more`,
  });

const erase = (one) =>
  decide("Erase what the caller sent?", "Its headers and its payload are taken away; what became of it stays.", "Erase", {
    danger: true,
    act: () => api.erase(one.id),
    done: "headers and payload are gone",
  });

const WOULD = {
  run: "It would run.",
  skip: "It would be skipped",
  hold: "Its run would wait for somebody to resume it",
  join: "It would wait for others, and be one run with them.",
  repeat: "It would be told that it came before.",
  greet: "It would be answered as its sender's ping, and make no run.",
};

async function dryRun(one, told) {
  try {
    const answer = await api.dryRun(one.webhook, one.payload);
    const text = WOULD[answer.would] ?? answer.would;
    told.replaceChildren(h("p", { class: "notice" }, answer.reason ? `${text.replace(/\.$/, "")}: ${answer.reason}` : text));
  } catch (problem) {
    told.replaceChildren(h("p", { class: "notice bad" }, problem.message));
  }
}
