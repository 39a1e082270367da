// Small parts of the tabs that are lists: buttons that ask once more, labelled fields, sizes.

import { make, say } from "./state.js";

export const button = (label, work, more = {}) => make("button", { type: "button", onclick: work, ...more }, label);

/** A button whose label is the message `key`. */
export const named = (key, work, more = {}) => button(say(key), work, more);

/** A button that asks `question` in its place, and then does its work; the focus is on what changes nothing. */
export function careful(label, question, yes, no, work) {
  const place = make("span", { className: "tools" });
  const rest = () => { place.replaceChildren(first); first.focus(); };
  const first = button(label, () => {
    const keep = button(no, rest);
    place.replaceChildren(make("span", { className: "question" }, question), button(yes, work, { className: "strong" }), keep);
    keep.focus();
  });
  place.append(first);
  return place;
}

let count = 0;
/** A field below its label. */
export function labelled(label, field) {
  field.id ||= `seesr-part-${++count}`;
  return make("div", { className: "seesr-field" }, make("label", { htmlFor: field.id }, label), field);
}
export const ticked = (label, field) => make("label", { className: "seesr-tick" }, field, make("span", {}, label));

/** A choice of [value, text] pairs. */
export const choice = (pairs, value, properties = {}) => {
  const field = make("select", properties, ...pairs.map(([value, text]) => make("option", { value }, text)));
  field.value = value;
  return field;
};

/** Something to copy: its text, and a button, which selects it where browsers give pages no clipboard (plain HTTP). */
export function copied(text, label, done) {
  const code = make("code", {}, text);
  const press = button(label, async () => {
    if (!navigator.clipboard) return getSelection().selectAllChildren(code);
    await navigator.clipboard.writeText(text);
    press.textContent = done;
  });
  return make("span", { className: "copy" }, code, press);
}

export function bytes(count) {
  if (count >= 1e9) return `${(count / 1e9).toFixed(1)} GB`;
  return count >= 1e6 ? `${Math.round(count / 1e6)} MB` : `${Math.max(1, Math.round(count / 1e3))} kB`;
}

export const link = (text, address) =>
  /^https:/.test(address ?? "") ? make("a", { href: address, target: "_blank", rel: "noreferrer" }, text) : text;
