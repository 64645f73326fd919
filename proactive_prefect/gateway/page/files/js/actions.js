// What an operator does here: decide about what was missed, and run, pause or resume a rule.

import * as api from "./api.js";
import { askTime, close, confirm, toast } from "./dialog.js";
import { loadAll } from "./load.js";
import { store } from "./store.js";
import { distance, inputValue, short } from "./time.js";

export const mayAct = () => store.session.role === "operator";

const count = (number) => (number === 1 ? "1 missed run" : `${number} missed runs`);

async function attempt(work) {
  try {
    await work();
  } catch (problem) {
    toast(problem.message, "bad");
  }
  await loadAll();
}

function tellDecided(answer, done) {
  const { resolved, results } = answer;
  const already = results.filter((one) => one.status !== "resolved").length;
  const waits = results.filter((one) => one.status === "resolved" && !one.carried_out).length;
  const parts = [`${count(resolved)} ${done}`];
  if (waits) parts.push(`${waits} wait for their turn`);
  if (already) parts.push(`${already} had been decided already`);
  toast(parts.join("; "), resolved || !already ? "good" : "warn");
}

/** Let missed runs go, with their original times. `chosen`: what the API takes (ids, rule, all). */
export async function approve(chosen, number) {
  const text = `They run now, each with the time that it was due, a few at once.`;
  if (number > 1 && !(await confirm(`Run ${count(number)}?`, text, "Approve and run"))) return;
  await attempt(async () => tellDecided(await api.resolve({ action: "approve_backfill_run", ...chosen }), "approved"));
}

export async function reschedule(chosen, number) {
  const soon = inputValue(new Date(Date.now() + 3600_000));
  const at = await askTime(`Reschedule ${count(number)}`, "On this browser's clock.", soon);
  if (at === null) return;
  const target = at.toISOString();
  await attempt(async () => {
    tellDecided(await api.resolve({ action: "reschedule", target, ...chosen }), `rescheduled to ${short(target)}`);
  });
}

export async function drop(chosen, number) {
  const text = "Deleted ones never run. The account keeps that they were missed, and who decided.";
  if (!(await confirm(`Delete ${count(number)}?`, text, "Delete", { danger: true }))) return;
  await attempt(async () => tellDecided(await api.resolve({ action: "delete_missed", ...chosen }), "deleted"));
}

const DONE = { paused: "is paused", resumed: "is resumed", triggered: "runs now" };

/** `what`: run, pause or resume. */
export async function tellRule(rule, what) {
  close();
  await attempt(async () => {
    const { done } = await api.tell(rule, what);
    toast(`${rule} ${DONE[done] ?? done}`);
  });
}

/** In words: how late something is. */
export const lateness = (due) => `due ${distance(due)}`;
