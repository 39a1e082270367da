// Which upscaling model is here, what it can do, and how the full one is fetched: above the tabs until it is dismissed.

import { ask, make, say } from "./state.js";
import { bytes, button, copied, link } from "./parts.js";

// Asked for before Gradio draws, so that nothing moves later.
const facts = Promise.all([ask("upscaling-model"), ask("me/preferences")]).catch(() => [null, null]);

/** What is to be said of the model. */
export function told(model) {
  if (model.embedded) {
    return [
      make("p", {}, make("strong", {}, say("model_small")), " ", say("model_small_can")),
      make("p", {}, say("model_full_is", { size: bytes(model.megabytes * 1e6) }), " ", link(model.licence, model.licence_page), ". ", say("model_full_how")),
      copied(model.command, say("copy_command"), say("copied")),
    ];
  }
  return [make("p", {}, make("strong", {}, model.name === "full" ? say("model_full") : say("model_other", { name: model.name })))];
}

export const isTold = () => document.querySelector("seesr-welcome section") !== null;

customElements.define("seesr-welcome", class extends HTMLElement {
  async connectedCallback() {
    const [model, preferences] = await facts;
    if (!model?.embedded || preferences.welcomed) return this.replaceChildren();
    const dismiss = async () => {
      await ask("me/preferences", { method: "PATCH", json: { welcomed: true } });
      preferences.welcomed = true;
      this.replaceChildren();
      for (const note of document.querySelectorAll("seesr-models .note")) note.hidden = false;
    };
    const [about, ...full] = told(model);
    const more = make("details", {}, make("summary", {}, say("model_full_get")), ...full);
    this.replaceChildren(make("section", { "aria-label": say("model_small") }, about, more, button(say("dismiss"), dismiss)));
  }
});
