// Units of ControlNet: which one, the picture that it is steered by, how strongly and when. The field `controls` has them as JSON.

import { get, make, on, put, say, upload, uploadUrl } from "./state.js";
import { models, named, selectOf } from "./choices.js";

const PREPROCESSORS = ["none", "canny", "depth"];
const EMPTY = { name: "", image: "", weight: 1, start: 0, end: 1, preprocessor: "none" };
const pending = new Map();

/** Ends when no picture of a tab's units is being uploaded. */
export const controlsSettled = tab => pending.get(tab);

customElements.define("seesr-controls", class extends HTMLElement {
  connectedCallback() {
    this.tab = this.getAttribute("tab");
    this.most = Number(this.getAttribute("most"));
    this.summary = make("summary", {}, say("controls"));
    this.list = make("div", { className: "units" });
    this.more = make("button", { type: "button", onclick: () => this.write([...this.units(), EMPTY]) }, say("add_unit"));
    this.told = make("p", { className: "seesr-error", role: "alert" });
    this.drawer = make("details", { ontoggle: () => { if (this.drawer.open) this.load(); } }, this.summary, this.list, this.more, this.told);
    this.replaceChildren(this.drawer);
    on(this.tab, "controls", value => { if (value !== this.drawn) this.draw(); });
  }

  units() { return get(this.tab, "controls") ? JSON.parse(get(this.tab, "controls")) : []; }

  write(units, isDrawn = false) {
    const value = units.length ? JSON.stringify(units) : "";
    if (isDrawn) this.drawn = value;
    put(this.tab, "controls", value);
    this.count();
  }

  async load() {
    try {
      this.known = await models("controlnet");
      this.told.textContent = "";
    } catch (error) {
      this.told.textContent = error.message;
    }
    this.draw();
  }

  count() {
    const used = this.units().filter(unit => unit.name).length;
    this.summary.textContent = used ? `${say("controls")} (${used})` : say("controls");
    this.more.hidden = this.units().length >= this.most;
  }

  draw() {
    this.drawn = get(this.tab, "controls");
    this.count();
    if (!this.drawer.open) return;
    const units = this.units().length ? this.units() : [EMPTY];
    this.list.replaceChildren(...units.map((unit, index) => this.unit(unit, index, units)));
  }

  unit(unit, index, units) {
    const change = (values, isDrawn = true) => {
      const now = this.units().length ? this.units() : units;
      this.write(now.map((one, at) => (at === index ? { ...one, ...values } : one)), isDrawn);
    };
    const labelled = (key, input, className = "") => make("label", { className }, make("span", {}, say(key)), input);
    const options = [["", say("no_control")], ...(this.known ?? []).map(named)];
    const name = selectOf(say("control"), options, unit.name, () => change({ name: name.value }));
    const preprocessor = selectOf(say("preprocessor"), PREPROCESSORS.map(one => [one, say(`preprocessor_${one}`)]), unit.preprocessor, () => change({ preprocessor: preprocessor.value }));
    const number = (key, most) => {
      const input = make("input", { type: "number", min: 0, max: most, step: 0.05, value: unit[key], "aria-label": say(`unit_${key}`), oninput: () => { if (input.value !== "") change({ [key]: Number(input.value) }); } });
      return labelled(`unit_${key}`, input);
    };
    const remove = make("button", { type: "button", onclick: () => this.write(units.filter((_, at) => at !== index)) }, say("remove_unit"));
    return make("fieldset", {}, make("legend", {}, say("unit", { number: index + 1 })),
      labelled("control", name, "wide"), this.drop(unit, hash => change({ image: hash }, false)),
      labelled("preprocessor", preprocessor, "wide"), make("div", { className: "numbers" }, number("weight", 2), number("start", 1), number("end", 1)),
      units.length > 1 || unit.name || unit.image ? remove : null);
  }

  drop(unit, taken) {
    const input = make("input", { type: "file", accept: "image/*", "aria-label": say("control_picture"), onchange: () => take(input.files[0]) });
    const place = make("label", { className: "place" }, input,
      unit.image ? make("img", { src: uploadUrl(unit.image), alt: "" }) : make("span", {}, say("control_picture")));
    const take = file => {
      if (!file) return;
      place.classList.add("uploading");
      const work = upload(file).then(hash => { this.told.textContent = ""; taken(hash); }, error => { this.told.textContent = `${file.name}: ${error.message}`; })
        .finally(() => place.classList.remove("uploading"));
      pending.set(this.tab, Promise.all([pending.get(this.tab), work]));
    };
    for (const event of ["dragover", "dragleave", "drop"])
      place.addEventListener(event, moved => {
        moved.preventDefault();
        place.classList.toggle("over", event === "dragover");
        if (event === "drop") take(moved.dataTransfer.files[0]);
      });
    return place;
  }
});
