// Choices over the models that the server has, read anew when a tab is opened: checkpoint and VAE, with what they ask for.

import { ask, get, make, on, put, say } from "./state.js";

const FRESH = 5000;
const answers = new Map();

/** An answer of the API that several elements need at the same time. */
function shared(path) {
  const known = answers.get(path);
  if (known && Date.now() - known.time < FRESH) return known.answer;
  const answer = ask(path);
  answers.set(path, { time: Date.now(), answer });
  return answer;
}

export const checkpoints = () => shared("checkpoints");
export const models = kind => shared(`models?kind=${kind}`);

/** What is known of a tab's checkpoint; null of one that is gone. */
export async function checkpointOf(tab) {
  const name = get(tab, "checkpoint");
  return (await checkpoints().catch(() => [])).find(one => (name ? one.name === name : one.is_default)) ?? null;
}

/** A model as an option: value, text, and why it cannot be chosen. */
export const named = ({ name, problem }) => [name, problem ? `${name} (${problem})` : name, problem];

const optionOf = ([value, text, problem]) => make("option", { value, disabled: Boolean(problem) }, text);

/** Chooses a value, which a list without it still names. */
function choose(select, value) {
  if (![...select.options].some(one => one.value === value)) select.append(optionOf([value, value]));
  select.value = value;
}

/** A list to choose one of. */
export function selectOf(label, options, value, onchange) {
  const select = make("select", { "aria-label": label, onchange }, ...options.map(optionOf));
  choose(select, value);
  return select;
}

/** Ids of fields, and what of the checkpoint stands in them while they are empty. */
const DEFAULTS = { width: "side", height: "side", steps: "steps", guidance_scale: "guidance_scale" };

customElements.define("seesr-choices", class extends HTMLElement {
  connectedCallback() {
    this.tab = this.getAttribute("tab");
    this.told = make("p", { className: "about" });
    this.fields = make("div", { className: "pair" });
    this.replaceChildren(this.fields, this.told);
    for (const name of ["checkpoint", "vae"]) on(this.tab, name, () => this.later());
    new IntersectionObserver(entries => { if (entries.at(-1).isIntersecting) this.draw(); }).observe(this);
  }

  later() { this.timer ||= setTimeout(() => { this.timer = 0; this.draw(); }); }

  async draw() {
    let known, vaes;
    try {
      [known, vaes] = await Promise.all([checkpoints(), models("vae")]);
    } catch (error) {
      this.told.textContent = error.message;
      return;
    }
    const usable = known.map(named), first = known.find(one => one.is_default);
    const options = {
      checkpoint: [["", say("default_is", { name: first.name })], ...usable],
      vae: [["", say("own_vae")], ...vaes.map(named)],
    };
    // What did not change is not drawn again: it may have the focus.
    if (this.drawn !== JSON.stringify(options)) {
      this.drawn = JSON.stringify(options);
      this.fields.replaceChildren(...Object.entries(options).map(([name, some]) => this.field(name, some)));
    }
    for (const select of this.fields.querySelectorAll("select")) choose(select, get(this.tab, select.name));
    const chosen = await checkpointOf(this.tab);
    this.told.textContent = chosen ? asks(chosen) : "";
    for (const [name, fact] of Object.entries(DEFAULTS)) {
      const input = document.querySelector(`#${this.tab}-${name} input`);
      if (input && chosen?.[fact] != null) input.placeholder = chosen[fact];
    }
  }

  field(name, options) {
    const select = selectOf(say(`choice_${name}`), options, get(this.tab, name), () => put(this.tab, name, select.value));
    select.name = name;
    return make("label", {}, make("span", {}, say(`choice_${name}`)), select);
  }
});

function asks({ base, side, steps, guidance_scale: guidance }) {
  return [base, side && `${side} × ${side}`, say("asks", { steps, guidance })].filter(Boolean).join(" · ");
}

/** The side in pixels of a tab's checkpoint, where that is known already. */
export function nativeSide(tab) {
  return Number(document.querySelector(`#${tab}-width input`)?.placeholder) || null;
}
