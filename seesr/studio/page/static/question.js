// A small dialog that asks: for one of several things, for a line of text, or whether to go on.

import { make, say } from "./state.js";

const MAX_LINE = 64;

/**
 * Asks, over everything else.
 *
 * `choices` are pairs of a value and its label; `line` labels a line of text, which begins with `value`.
 * Returns `{ choice }` or `{ line }`; null when nothing was chosen.
 */
export function question(parent, title, { choices = [], line = null, value = "" } = {}) {
  return new Promise(done => {
    let answer = null;
    const end = given => { answer = given; dialog.close(); };
    const input = line && make("input", { type: "text", value, required: true, maxLength: MAX_LINE, placeholder: line, "aria-label": line });
    const submit = event => {
      event.preventDefault();
      end(input ? { line: input.value.trim() } : {});
    };
    const buttons = choices.map(([choice, label]) => make("button", { type: "button", onclick: () => end({ choice }) }, label));
    const dialog = make("dialog", { className: "question", "aria-label": title, onclose: () => { dialog.remove(); done(answer); } },
      make("h2", {}, title),
      ...(buttons.length ? [make("div", { className: "choices" }, ...buttons)] : []),
      make("form", { onsubmit: submit }, input,
        make("div", { className: "tools" },
          make("button", { type: "submit", className: "main" }, say("gallery_ok")),
          make("button", { type: "button", onclick: () => dialog.close() }, say("cancel")))));
    parent.append(dialog);
    dialog.showModal();
    input?.select();
  });
}
