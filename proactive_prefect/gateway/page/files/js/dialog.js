// Questions and short answers: the one dialog of the page, and its passing notices.

import { h } from "./dom.js";

const dialog = () => document.getElementById("dialog");

/** Open the dialog with these contents. It closes by Escape, by its buttons, and when its outside is clicked. */
export function open(title, ...contents) {
  const box = dialog();
  box.replaceChildren(
    h("div", { class: "dialog-bar" }, h("h2", { id: "dialog-title" }, title), closer()),
    h("div", { class: "dialog-body" }, ...contents),
  );
  if (!box.open) box.showModal();
  return box;
}

export const close = () => dialog().close();

function closer() {
  return h("button", { type: "button", class: "plain", "aria-label": "Close", on: { click: close } }, "✕");
}

export function ready() {
  dialog().addEventListener("click", (event) => {
    if (event.target === dialog()) close();
  });
}

/** Ask before something is done; true if it may be. */
export function confirm(title, text, yes, { danger = false } = {}) {
  return new Promise((answer) => {
    let said = false;
    const agree = () => {
      said = true;
      close();
    };
    const box = open(
      title,
      h("p", {}, text),
      h(
        "div",
        { class: "buttons" },
        h("button", { type: "button", on: { click: close } }, "Cancel"),
        h("button", { type: "button", class: danger ? "danger" : "primary", autofocus: true, on: { click: agree } }, yes),
      ),
    );
    box.addEventListener("close", () => answer(said), { once: true });
  });
}

/** Ask for an instant in the future; null if there is none. */
export function askTime(title, text, value) {
  return new Promise((answer) => {
    let said = null;
    const input = h("input", { type: "datetime-local", id: "dialog-time", required: true, value, autofocus: true });
    const submit = (event) => {
      event.preventDefault();
      said = new Date(input.value);
      close();
    };
    const box = open(
      title,
      h(
        "form",
        { on: { submit } },
        h("p", {}, text),
        h("label", { for: "dialog-time" }, "When"),
        input,
        h(
          "div",
          { class: "buttons" },
          h("button", { type: "button", on: { click: close } }, "Cancel"),
          h("button", { type: "submit", class: "primary" }, "Reschedule"),
        ),
      ),
    );
    box.addEventListener("close", () => answer(said), { once: true });
  });
}

const STAYS = 6_000;

/** Say something in passing. */
export function toast(text, tone = "good") {
  const note = h("p", { class: `toast ${tone}` }, text);
  document.getElementById("toasts").append(note);
  setTimeout(() => note.remove(), tone === "bad" ? 2 * STAYS : STAYS);
}
