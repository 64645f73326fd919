// The top of the page: whether it is live, what is wrong, and the filters.

import { logout } from "./api.js";
import { toast } from "./dialog.js";
import { h, redraw } from "./dom.js";
import { loadAll } from "./load.js";
import { OUTCOMES, word } from "./outcomes.js";
import { note, store, writeAddress } from "./store.js";

const STREAM = {
  connecting: ["connecting", "The stream of events is being opened."],
  live: ["live", "Events arrive as they happen."],
  lost: ["asks every 30 s", "The stream of events is down: this page asks instead, and tries the stream again."],
  asleep: ["asleep", "Nobody has looked at this page for a while."],
  off: ["asks every 30 s", "The stream of events is switched off here (PROACTIVE_PUSH_ENABLED)."],
};

export function draw() {
  const stream = document.getElementById("stream");
  const [text, title] = STREAM[store.stream];
  if (stream.textContent !== text) stream.textContent = text;
  stream.dataset.state = store.stream;
  stream.title = title;
  redraw(document.getElementById("notices"), notices(), () => notices().map(([tone, said]) => h("p", { class: `notice ${tone}` }, said)));
  const some = Object.values(store.filter).some(Boolean);
  document.getElementById("filter-clear").hidden = !some;
}

function notices() {
  const found = [];
  const problems = [...new Set(Object.values(store.problems))];
  for (const problem of problems) found.push(["bad", `Not up to date: ${problem}`]);
  const state = store.state;
  if (!state || store.problems.state) return found;
  if (!state.enabled) found.push(["warn", "No rule is enabled: nothing fires until the rules file says enabled = true."]);
  for (const pool of state.pools) {
    if (!pool.exists) found.push(["bad", `There is no work pool ${pool.name}: its rules cannot run.`]);
    else if (pool.online === 0) found.push(["bad", `No worker is online in the pool ${pool.name}: its rules do not run.`]);
  }
  for (const rule of state.rules) {
    if (rule.webhook && !rule.webhook.open) found.push(["warn", `The webhook ${rule.id} is closed: ${rule.webhook.problem}.`]);
  }
  return found;
}

/** Let the fields say what is filtered by. */
export function showFilter() {
  const form = document.getElementById("filters");
  for (const [name, value] of Object.entries(store.filter)) form.elements[name].value = value;
}

export function ready() {
  const form = document.getElementById("filters");
  const choice = document.getElementById("filter-outcome");
  choice.append(...Object.keys(OUTCOMES).filter((one) => one !== "expected").map((one) => h("option", { value: one }, word(one))));
  showFilter();
  const apply = () => {
    note({ filter: Object.fromEntries(Object.keys(store.filter).map((name) => [name, form.elements[name].value.trim()])) });
    writeAddress();
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply)); // the fields are empty only then
  document.getElementById("refresh").addEventListener("click", refresh);
  document.getElementById("logout").addEventListener("click", async () => {
    try {
      await logout();
    } catch (problem) {
      toast(problem.message, "bad");
      return;
    }
    location.assign("./");
  });
}

export async function refresh() {
  const button = document.getElementById("refresh");
  button.disabled = true;
  await loadAll();
  button.disabled = false;
  toast(Object.keys(store.problems).length ? "Not everything could be read" : "Up to date", Object.keys(store.problems).length ? "bad" : "good");
}
