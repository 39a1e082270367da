// The settings in a picture: read from its file by the server, and written into the fields of the tab that fits.

import { ask, make, on, put, say, upload } from "./state.js";
import { openTab } from "./frame.js";

/** What the file of an upload says of how it was made (`GET /uploads/HASH/facts`). */
export const factsOf = hash => ask(`uploads/${hash}/facts`);

/**
 * Opens the tab that fits settings and fills its fields; what cannot be filled is said there.
 *
 * `settings` are those of a picture of the gallery, or of a file; `infotext` is A1111's. `inputs` are hashes of uploads:
 * `pictures`, the picture that it was made from, and `mask`.
 */
export function fillFrom(settings, infotext = null, inputs = {}) {
  // What was imported with an infotext alone has no task of its own.
  if (settings?.infotext && !settings.version) [settings, infotext] = [null, settings.infotext];
  // The time tells the same settings apart that are taken once more.
  put("fill", "settings", JSON.stringify({ settings, infotext, ...inputs, time: Date.now() }));
}

/** As `fillFrom`, of a picture of the gallery, with the pictures that its job was given. */
export async function fillFromPicture(picture) {
  const request = picture.job ? (await ask(`jobs/${picture.job}`).catch(() => null))?.request : null;
  const inputs = request?.image ? { pictures: request.image, mask: request.mask ?? "" } : {};
  fillFrom(picture.settings, null, inputs);
}

/** Called when the server has filled the fields of a tab. */
export function filled(tab) {
  if (tab) openTab(tab);
}

// Offers the settings of the picture that a tab has; with `choose` also of one that is dropped on the tab or chosen here.
customElements.define("seesr-settings", class extends HTMLElement {
  connectedCallback() {
    if (this.isBuilt) return;
    this.isBuilt = true;
    this.tab = this.getAttribute("tab");
    this.told = make("span", { role: "status" });
    this.offer = make("div", { className: "tools", hidden: true }, this.told);
    this.replaceChildren(this.offer);
    if (this.hasAttribute("choose")) this.addChooser();
    else on(this.tab, "pictures", hash => this.show(hash.split(" ")[0]));
  }

  addChooser() {
    const input = make("input", { type: "file", accept: "image/*", "aria-label": say("settings_choose"), onchange: () => this.take(input.files[0]) });
    this.prepend(make("label", { className: "button" }, input, say("settings_choose")));
    const panel = this.closest("[role=tabpanel]") ?? this;
    panel.addEventListener("dragover", event => event.preventDefault());
    panel.addEventListener("drop", event => {
      event.preventDefault();
      if (event.dataTransfer.files.length) this.take(event.dataTransfer.files[0]);
    });
    document.addEventListener("paste", event => {
      if (this.offsetParent && event.clipboardData?.files.length) this.take(event.clipboardData.files[0]);
    });
  }

  async take(file) {
    try {
      await this.show(await upload(file), true);
    } catch (error) {
      this.say(error.message);
    }
  }

  async show(hash, isAsked = false) {
    this.hash = hash;
    this.offer.hidden = true;
    if (!hash) return;
    const facts = await factsOf(hash).catch(() => null);
    if (this.hash !== hash) return;
    if (!facts?.task) {
      if (isAsked) this.say(say("settings_none"));
      return;
    }
    this.say(say("settings_found", { program: facts.made_by ?? "" }));
    this.offer.append(make("button", { type: "button", onclick: () => { this.offer.hidden = true; fillFrom(facts.settings, facts.infotext); } }, say("use_settings")));
  }

  say(text) {
    this.told.textContent = text;
    this.offer.replaceChildren(this.told);
    this.offer.hidden = false;
  }
});
