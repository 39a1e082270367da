// What a prompt is written with: how many tokens it has, and cards of LoRAs and embeddings that put themselves into it.

import { api, ask, get, make, on, put, say } from "./state.js";
import { checkpointOf, checkpoints } from "./choices.js";

const PAUSE = 300;
const WEIGHT = 0.8;
/** Cards beyond which they can be searched. */
const MANY = 6;

customElements.define("seesr-tokens", class extends HTMLElement {
  connectedCallback() {
    const tab = this.getAttribute("tab");
    this.field = this.getAttribute("field");
    this.count = make("span", { role: "status", className: "count" });
    this.replaceChildren(this.count);
    for (const name of [this.field, "checkpoint"])
      on(tab, name, () => { clearTimeout(this.timer); this.timer = setTimeout(() => this.ask(tab), PAUSE); });
  }

  async ask(tab) {
    const prompt = get(tab, this.field), checkpoint = get(tab, "checkpoint") || null;
    const number = this.number = (this.number ?? 0) + 1;
    // What cannot be counted yet, such as a tag that is being written, is told when it is sent.
    const answer = await ask("tokens", { method: "POST", json: { prompt, checkpoint } }).catch(() => null);
    if (number !== this.number) return;
    const isLong = answer && answer.tokens > answer.limit;
    this.count.textContent = answer ? `${answer.tokens}/${answer.limit}` : "";
    this.count.classList.toggle("long", Boolean(isLong));
    this.count.title = isLong ? say("long_prompt", answer) : say("token_count");
    if (isLong) this.count.append(make("span", { className: "hint" }, ` ${say("long_prompt", answer)}`));
  }
});

const escaped = text => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
const tagOf = (name, before = "") => new RegExp(`${before}<(?:lora|lyco):${escaped(name)}(?::[^<>]*)?>`, "i");
const wordOf = name => new RegExp(`(?:,\\s*)?(?<![\\p{L}\\p{N}_])${escaped(name)}(?![\\p{L}\\p{N}_])`, "iu");

/** A prompt with a word more, after a comma. */
const withWord = (prompt, word) => (prompt.trim() ? `${prompt.trimEnd().replace(/,$/, "")}, ${word}` : word);

class Cards extends HTMLElement {
  connectedCallback() {
    this.tab = this.getAttribute("tab");
    this.weights = new Map();
    this.search = make("input", { type: "search", placeholder: say("card_search"), "aria-label": say("card_search"), oninput: () => this.filter() });
    this.list = make("div", { className: "cards" });
    this.told = make("p", { className: "empty" });
    this.drawer = make("details", { ontoggle: () => { if (this.drawer.open) this.load(); } },
      make("summary", {}, say("loras")), this.search, this.list, this.told);
    this.replaceChildren(this.drawer);
    on(this.tab, "prompt", () => this.mark());
    on(this.tab, "checkpoint", () => this.fit());
  }

  async load() {
    try {
      const [loras, embeddings] = await Promise.all([ask("models?kind=loras"), ask("models?kind=embeddings"), checkpoints()]);
      this.models = [...loras, ...embeddings];
      this.list.replaceChildren(...this.models.map(model => this.card(model)));
      this.search.hidden = this.models.length <= MANY;
      this.told.textContent = this.models.length ? "" : say("no_loras");
    } catch (error) {
      this.told.textContent = error.message;
    }
    this.filter();
    this.mark();
    this.fit();
  }

  prompt() { return get(this.tab, "prompt"); }
  write(prompt) { put(this.tab, "prompt", prompt); }
  weight(name) { return this.weights.get(name) ?? WEIGHT; }

  card(model) {
    const isLora = model.kind === "loras", short = model.name.split("/").at(-1);
    const toggle = make("button", { type: "button", className: "insert", title: model.name, onclick: () => this.toggle(model), disabled: Boolean(model.problem) },
      model.has_preview
        ? make("img", { src: new URL(`models/previews/${model.kind}/${model.name.split("/").map(encodeURIComponent).join("/")}`, api).href, alt: "", loading: "lazy" })
        : make("span", { className: "blank", "aria-hidden": "true" }, short.slice(0, 1).toUpperCase()),
      make("strong", {}, short));
    const words = model.trigger_words.map(word =>
      make("button", { type: "button", className: "word", title: say("insert_word"), onclick: () => this.insert(word) }, word));
    const shown = make("output", {}, this.weight(model.name).toFixed(2));
    const weight = make("input", { type: "range", min: -1, max: 2, step: 0.05, value: this.weight(model.name), "aria-label": say("weight_of", { name: short }),
      oninput: () => {
        shown.value = Number(weight.value).toFixed(2);
        this.weights.set(model.name, Number(weight.value));
        if (tagOf(model.name).test(this.prompt())) this.write(this.prompt().replace(tagOf(model.name), () => this.tag(model.name)));
      } });
    const card = make("article", { "data-name": model.name }, toggle,
      make("p", { className: "about" }), make("div", { className: "words" }, ...words),
      isLora ? make("label", { className: "weight" }, weight, shown) : null);
    Object.assign(card, { model, toggle, weight, shown });
    return card;
  }

  tag(name) { return `<lora:${name}:${Number(this.weight(name).toFixed(2))}>`; }

  /** Puts a LoRA or an embedding into the prompt, or takes it out. */
  toggle(model) {
    const isLora = model.kind === "loras", prompt = this.prompt(), short = model.name.split("/").at(-1);
    const pattern = isLora ? tagOf(model.name, "\\s*") : wordOf(short);
    if (pattern.test(prompt)) return this.write(prompt.replace(pattern, "").replace(/^,\s*/, ""));
    this.write(isLora ? `${prompt.trimEnd()}${prompt.trim() ? " " : ""}${this.tag(model.name)}` : withWord(prompt, short));
  }

  /** Puts a trigger word before the tags of LoRAs. */
  insert(word) {
    const prompt = this.prompt();
    if (wordOf(word).test(prompt.replace(/<[^<>]*>/g, ""))) return;
    const [, words, tags] = prompt.match(/^([^]*?)((?:\s*<(?:lora|lyco):[^<>]*>)*)\s*$/);
    this.write(withWord(words, word) + (tags && (tags.startsWith("<") ? ` ${tags}` : tags)));
  }

  filter() {
    const wanted = this.search.value.trim().toLowerCase();
    for (const card of this.list.children)
      card.hidden = ![card.model.name, ...card.model.trigger_words].some(text => text.toLowerCase().includes(wanted));
  }

  /** Shows which ones the prompt names. */
  mark() {
    const prompt = this.prompt();
    for (const card of this.list.children) {
      const { model } = card, tag = model.kind === "loras" ? prompt.match(tagOf(model.name)) : null;
      const isIn = tag ? true : model.kind !== "loras" && wordOf(model.name.split("/").at(-1)).test(prompt);
      card.toggle.setAttribute("aria-pressed", `${isIn}`);
      const written = Number(tag?.[0].match(/:([-+.\d]+)>$/)?.[1]);
      if (tag && Number.isFinite(written)) {
        this.weights.set(model.name, written);
        card.weight.value = written;
        card.shown.value = written.toFixed(2);
      }
    }
  }

  /** Tells of each whether it is for the chosen checkpoint. */
  async fit() {
    const checkpoint = await checkpointOf(this.tab);
    for (const { model, classList, children } of this.list.children) {
      const isOther = Boolean(model.base && checkpoint && model.base !== checkpoint.base);
      classList.toggle("unfit", isOther || Boolean(model.problem));
      const named = checkpoint?.base ? `${checkpoint.name} (${checkpoint.base})` : checkpoint?.name;
      children[1].textContent = model.problem ?? (isOther ? say("unfit", { base: model.base, checkpoint: named }) : model.base ?? say(`card_${model.kind}`));
    }
  }
}

customElements.define("seesr-cards", Cards);
