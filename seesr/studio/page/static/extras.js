// The tab Extras: the picture, what its file says, and its tags, which a job finds.

import { ask, get, make, on, put, putWhenDrawn, say, uploadUrl } from "./state.js";
import { ENDED, fetchJob, keep, known, watch } from "./jobs.js";
import { openTab } from "./frame.js";
import { factsOf, fillFrom } from "./settings.js";
import { copy, give } from "./view.js";
import { named } from "./parts.js";
import "./compare.js";

const TAB = "extras";
const hashOf = () => get(TAB, "pictures").split(" ")[0];
async function sendPrompt(text) {
  openTab("text");
  await putWhenDrawn("text", "prompt", text);
}

customElements.define("seesr-extras-tools", class extends HTMLElement {
  connectedCallback() {
    this.told = make("p", { className: "seesr-error", role: "alert" });
    this.tags = named("find_tags", () => this.findTags());
    this.buttons = [named("enlarge", () => give(hashOf(), "upscale")), this.tags];
    const others = ["image", "inpaint"].map(tab => named(tab, () => give(hashOf(), tab)));
    this.buttons.push(...others);
    this.replaceChildren(
      make("div", { className: "tools" }, ...this.buttons.slice(0, 2)),
      make("div", { className: "tools" }, make("span", {}, say("send")), ...others),
      this.told);
    on(TAB, "pictures", hash => { for (const one of this.buttons) one.disabled = !hash; });
  }

  async findTags() {
    this.told.textContent = "";
    try {
      const job = keep(await ask("jobs", { method: "POST", json: { request: { task: "tags", image: hashOf() } } }));
      put(TAB, "jobs", job.id);
    } catch (error) {
      this.told.textContent = error.message;
    }
  }
});

customElements.define("seesr-extras", class extends HTMLElement {
  connectedCallback() {
    this.viewer = make("seesr-viewer", { hidden: true });
    this.empty = make("p", { className: "empty" }, say("extras_empty"));
    this.tags = make("section", { hidden: true, "aria-label": say("tags") });
    this.facts = make("section", { hidden: true, "aria-label": say("settings") });
    this.replaceChildren(make("div", { className: "stage" }, this.viewer, this.empty), this.tags, this.facts);
    on(TAB, "pictures", () => this.load());
    on(TAB, "jobs", id => { if (id && !known(id)) fetchJob(id); else this.drawTags(); });
    this.stop = watch(id => { if (id === null || id === get(TAB, "jobs")) this.drawTags(); });
  }

  disconnectedCallback() { this.stop(); }

  async load() {
    const hash = hashOf();
    this.viewer.hidden = !hash;
    this.empty.hidden = Boolean(hash);
    this.facts.hidden = true;
    this.drawTags();
    if (!hash) return;
    this.viewer.show(uploadUrl(hash));
    try {
      const facts = await factsOf(hash);
      if (hash === hashOf()) this.drawFacts(facts);
    } catch (error) {
      this.facts.replaceChildren(make("p", { className: "wrong", role: "alert" }, error.message));
      this.facts.hidden = false;
    }
  }

  drawTags() {
    const job = known(get(TAB, "jobs"));
    this.tags.hidden = !job || job.request.image !== hashOf();
    if (this.tags.hidden) return;
    const found = Object.entries(job.result.tags ?? {}), title = make("h3", {}, say("tags"));
    if (job.state !== "done")
      return this.tags.replaceChildren(title, make("p", { role: "status", className: job.error ? "wrong" : "" },
        job.error ?? say(ENDED.includes(job.state) || job.state === "pending" ? job.state : "tag")));
    const prompt = found.map(([tag]) => tag).join(", ");
    this.tags.replaceChildren(title,
      found.length
        ? make("ul", { className: "chips" }, ...found.map(([tag, score]) => make("li", {}, tag, make("small", {}, ` ${score.toFixed(2)}`))))
        : make("p", { role: "status" }, say("tags_none")),
      ...(found.length ? [make("div", { className: "tools" },
        named("copy_prompt", event => copy(event.target, prompt)), named("send_prompt", () => sendPrompt(prompt)))] : []));
  }

  drawFacts(facts) {
    const settings = facts.settings && JSON.stringify(facts.settings, null, 2), text = facts.infotext ?? settings;
    const rows = [
      [say("fact_file"), `${facts.format}, ${facts.width} × ${facts.height}, ${(facts.size / 1000).toFixed(1)} kB`],
      ...(facts.made_by ? [[say("fact_program"), facts.made_by]] : []),
      ...Object.entries(facts.infotext ? {} : facts.settings ?? {})
        .filter(([, value]) => value !== "" && value !== null && typeof value !== "object")
        .map(([name, value]) => [name.replaceAll("_", " "), `${value}`]),
    ];
    const list = pairs => make("dl", {}, ...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
    const texts = Object.entries(facts.texts);
    this.facts.replaceChildren(
      make("h3", {}, say("settings")),
      ...(text ? [] : [make("p", { role: "status" }, say("settings_none"))]),
      ...(text ? [make("div", { className: "tools" },
        ...(facts.task ? [named("use_settings", () => fillFrom(facts.settings, facts.infotext))] : []),
        named("copy", event => copy(event.target, text)))] : []),
      ...(facts.infotext ? [make("pre", { tabIndex: 0, "aria-label": say("infotext") }, facts.infotext)] : []),
      list(rows),
      ...(texts.length ? [make("details", {}, make("summary", {}, say("texts", { count: texts.length })), list(texts))] : []));
    this.facts.hidden = false;
  }
});
