// Where pictures come in: dropped, pasted or chosen, uploaded to the API at once; the field `pictures` holds their hashes.

import { get, make, on, put, say, upload, uploadUrl } from "./state.js";
import { Mask } from "./mask.js";

const pending = new Map();

/** Ends when nothing of a tab is being uploaded. */
export async function settled(tab) {
  await document.querySelector(`seesr-drop[tab="${tab}"]`)?.mask?.upload();
  await pending.get(tab);
}

class Drop extends HTMLElement {
  connectedCallback() {
    this.tab = this.getAttribute("tab");
    this.isMany = this.hasAttribute("many");
    const label = this.getAttribute("label");
    this.input = make("input", { type: "file", accept: "image/*,.jxl,.heic,.tif,.tiff,.dng,.nef,.cr2,.arw", multiple: this.isMany, "aria-label": label, onchange: () => this.add(this.input.files) });
    this.list = make("div", { className: "list" });
    this.told = make("p", { className: "seesr-error", role: "alert" });
    this.place = make("label", { className: "place" }, this.input, make("span", {}, label));
    if (this.getAttribute("mask") === "1") this.mask = new Mask(this.tab);
    this.replaceChildren(this.list, this.mask?.element ?? "", this.place, this.told);
    for (const name of ["dragover", "dragleave", "drop"])
      this.addEventListener(name, event => {
        event.preventDefault();
        this.classList.toggle("over", name === "dragover");
        if (name === "drop") this.add(event.dataTransfer.files);
      });
    this.pasted = event => {
      if (this.offsetParent && event.clipboardData?.files.length) this.add(event.clipboardData.files);
    };
    document.addEventListener("paste", this.pasted);
    on(this.tab, "pictures", () => this.draw());
  }

  disconnectedCallback() { document.removeEventListener("paste", this.pasted); }

  hashes() { return get(this.tab, "pictures").split(/\s+/).filter(Boolean); }

  add(files) {
    files = [...files].slice(0, this.isMany ? undefined : 1);
    this.input.value = "";
    this.told.textContent = "";
    const work = (pending.get(this.tab) ?? Promise.resolve()).then(async () => {
      this.classList.add("uploading");
      for (const file of files) {
        try {
          const hash = await upload(file);
          if (!this.isMany && hash !== this.hashes()[0]) this.mask?.clear();
          put(this.tab, "pictures", [...new Set(this.isMany ? [...this.hashes(), hash] : [hash])].join(" "));
        } catch (error) {
          this.told.textContent = `${file.name}: ${error.message}`;
        }
      }
      this.classList.remove("uploading");
    });
    pending.set(this.tab, work);
  }

  draw() {
    const hashes = this.hashes();
    this.classList.toggle("filled", hashes.length > 0);
    if (this.mask) return this.mask.show(hashes[0] ?? "");
    this.list.replaceChildren(...hashes.map(hash => {
      const remove = () => put(this.tab, "pictures", this.hashes().filter(one => one !== hash).join(" "));
      return make("figure", {},
        make("img", { src: uploadUrl(hash), alt: "", loading: "lazy" }),
        make("button", { type: "button", title: say("remove"), "aria-label": say("remove"), onclick: remove }, "×"));
    }));
  }
}

customElements.define("seesr-drop", Drop);
