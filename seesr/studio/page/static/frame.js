// Header and footer, the keyboard, errors at their fields, help on hover.

import { ask, make, say } from "./state.js";
import { fetchJob, known, online, watch, ENDED, cancel } from "./jobs.js";
import { tabJobs } from "./view.js";

/** What fields mean, by their ids. */
let help = {};

const tabButton = tab => document.querySelector(`#tab-${tab}-button`);
export const openTab = tab => tabButton(tab)?.click();
const visibleTab = () => document.querySelector('#tabs [role=tab][aria-selected=true]')?.id.replace(/^tab-|-button$/g, "");

// The address names the open tab, so that a reload and the browser's way back find it.
const HASH = /^#tab=(\w+)$/;
document.addEventListener("click", event => {
  const tab = event.target.closest?.("#tabs [role=tab]")?.id.replace(/^tab-|-button$/g, "");
  if (tab) tabButton(tab).scrollIntoView({ block: "nearest", inline: "center" });
  if (tab && location.hash !== `#tab=${tab}`) history.pushState(history.state, "", `#tab=${tab}`);
});
async function follow() {
  const tab = location.hash ? HASH.exec(location.hash)?.[1] : "upscale";
  for (let tries = 0; tab && tries < 200 && !visibleTab(); tries++) await new Promise(done => setTimeout(done, 50));
  if (tab && visibleTab() !== tab) openTab(tab);
}
addEventListener("popstate", follow);
if (HASH.test(location.hash)) follow();

customElements.define("seesr-header", class extends HTMLElement {
  connectedCallback() {
    this.replaceChildren(make("strong", {}, "ButterVision"));
    ask("me").then(user => {
      if (user.name === "local") return;
      const out = make("button", { type: "button", onclick: leave }, say("logout"));
      this.append(make("span", { className: "user" }, user.name), out);
    });
  }
});

async function leave() {
  await fetch(new URL("../logout", import.meta.url), { method: "POST" });
  location.replace(new URL("../login", import.meta.url));
}

customElements.define("seesr-footer", class extends HTMLElement {
  connectedCallback() {
    let timer = 0;
    help = JSON.parse(this.getAttribute("help"));
    this.stop = watch(() => { timer ||= setTimeout(() => { timer = 0; this.draw(); }, 500); });
    this.draw();
  }

  disconnectedCallback() { this.stop(); }

  async draw() {
    if (!online()) return this.replaceChildren(make("span", { role: "status" }, say("offline")));
    const queue = await ask("queue").catch(() => null);
    if (!queue) return;
    const count = queue.paused ? say("paused", { reason: queue.reason ?? "" }) : say("queue_count", queue);
    this.replaceChildren(
      make("span", {}, count),
      make("button", { type: "button", className: "link", onclick: () => openTab("queue") }, say("open_queue")),
    );
  }
});

customElements.define("seesr-cancel", class extends HTMLElement {
  connectedCallback() {
    const tab = this.getAttribute("tab");
    this.button = make("button", { type: "button", className: "plain", onclick: () => this.cancel(), disabled: true }, say("cancel"));
    this.replaceChildren(this.button);
    this.stop = watch(() => { this.button.disabled = !this.running(tab).length; });
  }

  disconnectedCallback() { this.stop(); }
  running(tab = this.getAttribute("tab")) {
    return tabJobs(tab).filter(id => known(id) && !ENDED.includes(known(id).state));
  }

  cancel() { for (const id of this.running()) cancel(id).catch(() => fetchJob(id)); }
});

document.addEventListener("keydown", event => {
  const tab = visibleTab();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    document.querySelector(`#${tab}-submit`)?.click();
  } else if (event.key === "Escape" && !document.querySelector("[role=listbox], .options")) {
    document.querySelector(`seesr-cancel[tab="${tab}"]`)?.cancel();
  }
}, true);

// Where Gradio draws anew, labels, help and errors are put right.
const NAMES = { swap: "swap", dice: "dice", recycle: "recycle" };
function tidy() {
  for (const [end, key] of Object.entries(NAMES))
    for (const button of document.querySelectorAll(`button[id$="-${end}"]:not([aria-label])`)) {
      button.setAttribute("aria-label", say(key));
      button.title = say(key);
    }
  for (const [id, text] of Object.entries(help)) {
    const field = document.getElementById(id);
    if (field && field.title !== text) field.title = text;
  }
  for (const field of document.querySelectorAll(".refused")) {
    if (!document.querySelector(`[data-field="${field.getAttribute("field") ?? field.id}"]`)) {
      field.classList.remove("refused");
      field.querySelector("[aria-invalid]")?.removeAttribute("aria-invalid");
    }
  }
  for (const error of document.querySelectorAll("[data-field]")) {
    const { field: id } = error.dataset;
    const field = id && (document.querySelector(`[field="${id}"]`) ?? document.getElementById(id));
    if (!field || field.classList.contains("refused")) continue;
    field.classList.add("refused");
    field.querySelector("input, textarea")?.setAttribute("aria-invalid", "true");
  }
}
let isTidying = false;
new MutationObserver(() => {
  if (isTidying) return;
  isTidying = true;
  requestAnimationFrame(() => { isTidying = false; tidy(); });
}).observe(document.documentElement, { childList: true, subtree: true });
