// The gateway's API. What is asked goes by the session's cookie; the header says that it is this page that asks.

const HEADERS = { "X-Proactive-Page": "1", Accept: "application/json" };

/** What went wrong, in the gateway's own words. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", credentials: "same-origin", ...options });
  } catch {
    throw new Problem(0, "the gateway does not answer");
  }
  if (answer.status === 401) {
    location.reload(); // the session is over: the login form stands here then
    throw new Problem(401, "the session is over");
  }
  const body = await answer.text();
  let said = null;
  try {
    said = body ? JSON.parse(body) : null;
  } catch {
    said = null;
  }
  if (!answer.ok) throw new Problem(answer.status, said?.detail ?? `the gateway answered ${answer.status}`);
  return said;
}

export const get = (path, params = {}) => {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const one of [value].flat()) query.append(name, one);
  }
  return ask(`${path}${query.size ? `?${query}` : ""}`, { headers: HEADERS });
};

export const post = (path, body, headers = HEADERS) =>
  ask(path, {
    method: "POST",
    headers: body === undefined ? headers : { ...headers, "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });

const erased = (path) => ask(path, { method: "DELETE", headers: HEADERS });

const RULES = "api/v1/proactive/rules";

export const session = () => get("api/v1/proactive/session");
export const state = () => get("api/v1/proactive/state");
export const rules = (ids) => get(RULES, ids ? { rule: ids } : {});
export const missed = () => get("api/v1/proactive/missed", { limit: 500 });
export const why = (rule, at) => get("api/v1/proactive/why", { rule, at });
export const latest = (since, limit) => get("api/v1/ops/scheduling/events", { since_seq: since, limit });
export const calendar = (start, end) =>
  get("api/v1/ops/calendar/events", { start: start.toISOString(), end: end.toISOString() });

const told = (rule, what, headers) => post(`${RULES}/${encodeURIComponent(rule)}/${what}`, undefined, headers);

// By rule: the key of a click whose answer did not come. A click soon after it means the same run, which may be made.
const unsure = new Map();
const SOON = 120_000;

async function run(rule) {
  const before = unsure.get(rule);
  const now = Date.now();
  const asked = before && now - before.at < SOON ? before : { key: newKey(), at: now };
  unsure.set(rule, asked);
  try {
    const said = await told(rule, "run", { ...HEADERS, "Idempotency-Key": asked.key });
    unsure.delete(rule);
    return said;
  } catch (problem) {
    if (problem.status > 0 && problem.status < 500) unsure.delete(rule);
    throw problem;
  }
}

// Not randomUUID, which browsers have on https and localhost alone.
const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (one) => one.toString(16).padStart(2, "0")).join("");

export const tell = (rule, what) => (what === "run" ? run(rule) : told(rule, what));
export const resolve = (decision) => post("api/v1/proactive/missed/resolve", decision);
const DELIVERIES = "api/v1/proactive/deliveries";
const named = (id) => `${DELIVERIES}/${encodeURIComponent(id)}`;
export const deliveries = () => get(DELIVERIES, { limit: 50 });
export const delivery = (id) => get(named(id));
export const replay = (id) => post(`${named(id)}/replay`);
export const erase = (id) => erased(named(id));
export const dryRun = (webhook, payload) => post(`hooks/${encodeURIComponent(webhook)}?dry_run`, payload);

export const logout = () => post("logout");
