// Puts the page together.

import * as api from "./api.js";
import * as calendar from "./calendar.js";
import * as deliveries from "./deliveries.js";
import * as dialog from "./dialog.js";
import * as header from "./header.js";
import { lastSeen, loadAfter, loadAll, loadHealth } from "./load.js";
import * as missed from "./missed.js";
import * as rules from "./rules.js";
import * as running from "./running.js";
import { note, onChange, readAddress, store } from "./store.js";
import { follow } from "./stream.js";
import { tick } from "./time.js";

const HEALTH = 30_000;
const TICK = 1_000;
const DRAW = 30_000; // what is drawn by the minute
const AGAIN = 5_000;

function draw() {
  header.draw();
  missed.draw();
  running.draw();
  running.drawLatest();
  calendar.draw();
  rules.draw();
  deliveries.draw();
}

function pressed(event) {
  const typing = event.target.closest("input, select, textarea, dialog[open]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") document.getElementById("filter-rule").focus();
  else if (event.key === "r") header.refresh();
  else if (!calendar.press(event.key)) return;
  event.preventDefault();
}

async function start() {
  readAddress();
  onChange(draw);
  header.ready();
  calendar.ready();
  missed.ready();
  dialog.ready();
  document.addEventListener("keydown", pressed);
  addEventListener("hashchange", () => {
    readAddress();
    header.showFilter();
    note();
    loadAll();
  });
  setInterval(tick, TICK);
  setInterval(note, DRAW);
  note();
  const session = await begin();
  note({ session });
  const prefect = document.getElementById("prefect");
  if (/^https?:\/\//i.test(session.prefect_url ?? "")) {
    prefect.href = session.prefect_url;
    prefect.hidden = false;
  }
  await loadAll();
  follow(lastSeen(), { heard: loadAfter, anew: loadAll });
  setInterval(loadHealth, HEALTH);
}

/** The session, as soon as the gateway answers. */
async function begin() {
  for (;;) {
    try {
      const session = await api.session();
      delete store.problems.session;
      return session;
    } catch (problem) {
      store.problems.session = problem.message;
      note();
      await new Promise((done) => setTimeout(done, AGAIN));
    }
  }
}

start();
