// The models that are there, by kind; for admins what more can be fetched, how far that is, and removing.

import { ask, make, say, sentence } from "./state.js";
import { bytes, button, careful, labelled, link, ticked } from "./parts.js";
import { isTold, told } from "./welcome.js";

const POLL = 700;
const ACTIVE = ["pending", "running"];
const path = name => name.split("/").map(encodeURIComponent).join("/");

class Models extends HTMLElement {
  connectedCallback() {
    this.note = make("section", { className: "note" });
    this.search = make("input", { type: "search", oninput: () => this.drawModels() });
    this.told = make("p", { className: "seesr-error", role: "alert" });
    this.lists = make("div", { className: "lists" });
    this.more = make("section", { hidden: true });
    this.replaceChildren(this.note, labelled(say("search_models"), this.search), this.told, this.lists, this.more);
    this.models = [];
    this.rows = new Map();
    this.buildMore();
    new IntersectionObserver(entries => { if (entries.at(-1).isIntersecting) this.load(); }).observe(this);
  }

  disconnectedCallback() { clearTimeout(this.timer); }

  async load() {
    try {
      const [user, models, system, upscaling, catalogue] = await Promise.all(
        ["me", "models", "system", "upscaling-model", "models/catalogue"].map(each => ask(each)));
      this.isAdmin = user.role === "admin";
      this.loaded = new Set(Object.values(system.devices).flatMap(device => device.loaded));
      [this.models, this.upscaling, this.catalogue] = [models, upscaling, catalogue];
      this.note.replaceChildren(...told(upscaling));
      this.note.hidden = isTold();  // above the tabs
      this.more.hidden = !this.isAdmin;
      this.drawModels();
      if (this.isAdmin) {
        this.drawCatalogue();
        await this.poll();
      }
    } catch (error) {
      this.told.textContent = error.message;
    }
  }

  isLoaded(model) {
    return model.kind === "checkpoints" && (this.loaded.has(model.name) || this.loaded.has(model.name.split("/").at(-1)));
  }

  drawModels() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.models.filter(model => {
      const text = [model.name, model.base, say(`kind_${model.kind}`), ...model.trigger_words].join(" ").toLowerCase();
      return words.every(word => text.includes(word));
    });
    const groups = this.getAttribute("kinds").split(" ").flatMap(kind => {
      const models = found.filter(model => model.kind === kind);
      if (!models.length && words.length) return [];
      const rows = models.length ? models.map(model => this.row(model)) : [make("li", { className: "empty" }, say("no_models"))];
      return [make("h3", {}, say(`kind_${kind}`)), make("ul", { "aria-label": say(`kind_${kind}`) }, ...rows)];
    });
    if (say("kind_upscalers").toLowerCase().includes(words.join(" ")) || this.upscaling?.name.includes(words.join(" ")))
      groups.unshift(make("h3", {}, say("kind_upscalers")), make("ul", { "aria-label": say("kind_upscalers") }, this.upscaler()));
    this.lists.replaceChildren(...(groups.length ? groups : [make("p", { className: "empty" }, say("nothing_found"))]));
  }

  upscaler() {
    const { name, embedded, megabytes, licence, licence_page } = this.upscaling;
    const facts = embedded ? [say("comes_with")] : name === "full" ? [bytes(megabytes * 1e6), " · ", link(licence, licence_page)] : [];
    return make("li", { "data-model": name }, make("div", {},
      make("strong", {}, name, make("span", { className: "mark" }, say("in_use"))), make("span", {}, ...facts)));
  }

  row(model) {
    const family = model.base && (model.kind === "checkpoints" ? model.base : say("for_family", { base: model.base }));
    const facts = [bytes(model.size), family, model.licence && link(model.licence, model.licence_page),
      model.trigger_words.length && model.trigger_words.slice(0, 5).join(", "), !model.is_own && say("of_others")].filter(Boolean);
    const remove = () => this.act(() => ask(`models/${model.kind}/${path(model.name)}`, { method: "DELETE" }));
    return make("li", { "data-model": model.name },
      make("div", {},
        make("strong", {}, model.name, this.isLoaded(model) ? make("span", { className: "mark" }, say("loaded")) : ""),
        make("span", {}, ...facts.flatMap((fact, index) => (index ? [" · ", fact] : [fact]))),
        model.problem ? make("span", { className: "wrong" }, sentence(model.problem)) : null),
      this.isAdmin && model.is_own
        ? careful(say("remove"), say("remove_sure", { name: model.name }), say("remove"), say("keep"), remove) : null);
  }

  async act(work) {
    this.told.textContent = "";
    try {
      await work();
    } catch (error) {
      this.told.textContent = error.message;
    }
    await this.load();
  }

  // Fetching.

  buildMore() {
    this.source = make("input", { type: "text", required: true, autocapitalize: "none", spellcheck: false, oninput: () => this.drawDigest() });
    this.digest = make("input", { type: "text", spellcheck: false });
    this.digestField = labelled(say("sha256"), this.digest);
    this.plan = make("div", { className: "plan" });
    this.refused = make("p", { className: "seesr-error", role: "alert" });
    const form = make("form", { onsubmit: event => { event.preventDefault(); this.look(); } },
      labelled(say("source"), this.source), this.digestField, make("button", { type: "submit" }, say("look_up")));
    this.pulls = make("ul", { "aria-label": say("fetched") });
    this.known = make("ul", { "aria-label": say("catalogue") });
    this.more.replaceChildren(make("h3", {}, say("get_more")), form, this.refused, this.plan, this.pulls,
      make("h3", {}, say("catalogue")), this.known);
    this.drawDigest();
  }

  drawDigest() { this.digestField.hidden = !this.source.value.includes("://"); }

  wanted() {
    return { source: this.source.value.trim(), sha256: this.digest.value.trim() || null };
  }

  async look() {
    this.refused.textContent = "";
    this.plan.replaceChildren(make("p", { role: "status" }, say("asking")));
    const wanted = this.wanted();
    try {
      this.drawPlan(wanted, await ask("models/plans", { method: "POST", json: wanted }));
    } catch (error) {
      this.plan.replaceChildren();
      this.refused.textContent = error.message;
    }
  }

  drawPlan(wanted, plan) {
    const accept = make("input", { type: "checkbox", onchange: () => { fetchIt.disabled = !accept.checked; } });
    const fetchIt = button(say("fetch"), () => this.fetch({ ...wanted, accept_licence: accept.checked }), { className: "strong" });
    fetchIt.disabled = plan.must_accept;
    const facts = [plan.size ? bytes(plan.size) : say("size_unknown"), plan.licence ? link(plan.licence, plan.licence_page) : say("no_licence")];
    this.plan.replaceChildren(
      make("p", {}, make("strong", {}, plan.name), " · ", facts[0], " · ", facts[1]),
      plan.must_accept ? ticked(say("accept"), accept) : "",
      make("div", { className: "tools" }, fetchIt, button(say("not_now"), () => this.plan.replaceChildren())));
    (plan.must_accept ? accept : fetchIt).focus();
  }

  async fetch(wanted) {
    try {
      await ask("models/pulls", { method: "POST", json: wanted });
      this.plan.replaceChildren();
      this.source.value = this.digest.value = "";
      this.drawDigest();
      this.poll();
    } catch (error) {
      this.refused.textContent = error.message;
    }
  }

  /** Shows how far each model is, again while one of them is fetched. */
  async poll() {
    clearTimeout(this.timer);
    const pulls = await ask("models/pulls");
    this.hasActive = pulls.some(pull => ACTIVE.includes(pull.state));
    for (const pull of pulls) this.drawPull(pull);
    const ended = pulls.filter(pull => !ACTIVE.includes(pull.state)).map(pull => `${pull.id} ${pull.sequence}`).join();
    const isNew = this.ended !== undefined && ended !== this.ended;
    this.ended = ended;
    if (isNew) this.load();
    else if (this.hasActive && this.offsetParent) this.timer = setTimeout(() => this.poll().catch(() => {}), POLL);
  }

  drawPull(pull) {
    let row = this.rows.get(pull.id);
    if (row?.sequence === pull.sequence) return;
    if (!row) {
      row = { bar: make("progress", { max: 1, "aria-label": pull.source }), text: make("span"), tools: make("span", { className: "tools" }) };
      row.element = make("li", { "data-pull": pull.id }, make("div", {}, make("strong", {}, pull.source), row.bar, row.text), row.tools);
      this.rows.set(pull.id, row);
      this.pulls.prepend(row.element);
    }
    if (row.state !== pull.state) {
      const post = (end, method) => async () => {
        try {
          await ask(`models/pulls/${pull.id}${end}`, { method });
          await this.poll();
        } catch (error) {
          this.refused.textContent = error.message;
        }
      };
      row.tools.replaceChildren(...(ACTIVE.includes(pull.state) ? [button(say("cancel"), post("", "DELETE"))]
        : pull.state === "done" ? [] : [button(say("retry"), post("/retry", "POST"))]));
      row.bar.hidden = !ACTIVE.includes(pull.state);
    }
    const size = pull.total ? say("bytes_of", { done: bytes(pull.done), total: bytes(pull.total) }) : bytes(pull.done);
    row.text.className = pull.error ? "wrong" : "";
    row.text.textContent = pull.error ? sentence(pull.error)
      : pull.state === "running" ? size : pull.state === "done" ? say("is_here", { name: pull.model?.name ?? "" }) : say(pull.state);
    if (pull.total) row.bar.value = pull.done / pull.total;
    [row.state, row.sequence] = [pull.state, pull.sequence];
  }

  drawCatalogue() {
    const here = new Set(this.models.map(model => model.name));
    const take = entry => {
      this.source.value = entry.name;
      this.digest.value = "";
      this.drawDigest();
      this.refused.scrollIntoView({ block: "nearest" });
      this.look();
    };
    this.known.replaceChildren(...this.catalogue.map(entry => make("li", { "data-entry": entry.name },
      make("div", {},
        make("strong", {}, entry.name),
        make("span", {}, entry.about),
        make("span", {}, say(`kind_${entry.kind}`), " · ", bytes(entry.megabytes * 1e6), " · ", link(entry.licence, entry.licence_page))),
      here.has(entry.name) ? make("span", { className: "mark" }, say("here")) : button(say("fetch"), () => take(entry), { "aria-label": `${say("fetch")} ${entry.name}` }))));
  }
}

customElements.define("seesr-models", Models);
