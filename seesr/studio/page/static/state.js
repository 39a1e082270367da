// The values that Gradio's hidden fields hold, and small tools that all parts share.

export const words = window.seesr.words;
export const api = new URL("../api/v1/", import.meta.url);
const values = new Map(), listeners = new Map();

/** A message with its values in place. */
export const say = (key, given = {}) =>
  (words[`js.${key}`] ?? key).replace(/\{(\w+)\}/g, (_, name) => given[name] ?? "");

export const get = (tab, name) => values.get(`${tab}-${name}`) ?? "";

/** Calls a function with a value, now and whenever it changes. */
export function on(tab, name, listener) {
  const key = `${tab}-${name}`;
  listeners.set(key, [...(listeners.get(key) ?? []), listener]);
  listener(get(tab, name));
}

/** Takes over a value that Gradio's field has. */
export function set(tab, name, value) {
  const key = `${tab}-${name}`;
  if (values.get(key) === (value ?? "")) return;
  values.set(key, value ?? "");
  for (const listener of listeners.get(key) ?? []) listener(values.get(key));
}

const fieldOf = (tab, name) => document.querySelector(`#${tab}-${name} :is(textarea, input)`);

/** Ends when a field of a tab is there: Gradio draws a tab when it is opened for the first time. */
export async function drawn(tab, name) {
  for (let tries = 0; tries < 100 && !fieldOf(tab, name); tries++) await new Promise(done => setTimeout(done, 50));
}

/** Writes a value into Gradio's field, from which the server remembers it. */
export function put(tab, name, value) {
  const field = fieldOf(tab, name);
  if (field) {
    field.value = value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
  set(tab, name, value);
}

/** As `put`, into a field that may just be drawn: Gradio gives it its first value at a moment of its own. */
export async function putWhenDrawn(tab, name, value) {
  await drawn(tab, name);
  for (let stays = 0, tries = 0; stays < 3 && tries < 50; tries++) {
    stays = fieldOf(tab, name)?.value === value ? stays + 1 : 0;
    if (!stays) put(tab, name, value);
    await new Promise(done => setTimeout(done, 100));
  }
}

/** An answer of the API; an Error with its sentence when it is refused. */
export async function ask(path, options = {}) {
  if (options.json !== undefined)
    options = { ...options, body: JSON.stringify(options.json), headers: { "content-type": "application/json" } };
  const answer = await fetch(new URL(path, api), options);
  if (answer.status === 401) location.reload();
  const body = answer.status === 204 ? null : await answer.json();
  if (!answer.ok) throw new Error(sentence(body?.error?.message ?? `${answer.status}`));
  return body;
}

export const sentence = text => (/^https?:/.test(text) ? text : text.replace(/^./, letter => letter.toUpperCase()));

/** Uploads a picture; returns its content hash. */
export async function upload(file) {
  const form = new FormData();
  form.append("picture", file, file.name ?? "picture.png");
  return (await ask("uploads", { method: "POST", body: form })).hash;
}

export const pictureUrl = id => new URL(`pictures/${id}/file`, api).href;
export const thumbnailUrl = id => new URL(`pictures/${id}/thumbnail`, api).href;
export const uploadUrl = hash => new URL(`uploads/${hash}`, api).href;

/** An element with properties and children; `on…` are listeners, `aria-…` and `data-…` attributes. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter(child => child != null));
  return element;
}
