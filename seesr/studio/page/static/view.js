// The result of a tab: what its newest jobs do, and their pictures, with those that were asked for before them as thumbnails.

import { api, ask, drawn, get, make, on, pictureUrl, put, say, thumbnailUrl, upload, uploadUrl } from "./state.js";
import { ENDED, fetchJob, known, skip, watch } from "./jobs.js";
import { openTab } from "./frame.js";
import "./compare.js";

/** Tabs that take a picture. */
export const RECEIVERS = ["upscale", "image", "inpaint", "extras"];
const ARCHIVED = 50;

const groups = tab => get(tab, "jobs").split("|").map(part => part.split(/\s+/).filter(Boolean)).filter(part => part.length);
/** Ids of the jobs that a tab shows, the newest group first. */
export const tabJobs = tab => groups(tab).flat();

/** The seed of the newest picture of a tab; null without one. */
export function lastSeed(tab) {
  for (const id of tabJobs(tab)) {
    const seed = known(id)?.pictures.at(-1)?.settings?.seed;
    if (seed !== undefined) return seed;
  }
  return null;
}

/** Gives a picture of the gallery to a tab as its input, and opens it. */
export async function send(picture, tab) {
  const answer = await fetch(pictureUrl(picture));
  if (!answer.ok) throw new Error(say("file_missing"));
  const file = await answer.blob();
  await give(await upload(new File([file], "picture")), tab);
}

/** Opens a tab with an upload as its input. */
export async function give(hash, tab) {
  openTab(tab);
  await drawn(tab, "pictures");
  if (tab === "inpaint") put(tab, "mask", "");
  put(tab, "pictures", hash);
  document.querySelector(`seesr-drop[tab=${tab}]`)?.scrollIntoView({ block: "nearest" });
}

class View extends HTMLElement {
  connectedCallback() {
    this.tab = this.getAttribute("tab");
    this.viewer = document.createElement("seesr-viewer");
    this.preview = make("img", { className: "preview", alt: "", hidden: true });
    this.empty = make("p", { className: "empty" }, say("empty"));
    this.status = make("p", { className: "status", role: "status" });
    this.bar = make("progress", { max: 1, "aria-label": say("running") });
    this.tools = make("div", { className: "tools" });
    this.facts = make("p", { className: "facts" });
    this.strip = make("div", { className: "strip" });
    this.stage = make("div", { className: "stage" }, this.viewer, this.preview, this.empty);
    this.replaceChildren(this.stage, this.bar, this.status, this.tools, this.facts, this.strip);
    this.chosen = null;
    on(this.tab, "jobs", () => this.load());
    this.stop = watch(id => { if (id === null || tabJobs(this.tab).includes(id)) this.later(); });
  }

  disconnectedCallback() { this.stop(); }

  async load() {
    this.chosen = null;
    this.draw();
    // On a phone the result lies above what was pressed.
    if (this.isLoaded && this.offsetParent) this.scrollIntoView({ block: "nearest", behavior: "smooth" });
    this.isLoaded ||= tabJobs(this.tab).length > 0;
    await Promise.all(tabJobs(this.tab).slice(0, 60).filter(id => !known(id)).map(fetchJob));
    this.draw();
  }

  /** Shows one of the pictures, by its id. */
  choose(picture) {
    this.chosen = picture;
    this.draw();
  }

  later() {
    this.timer ||= requestAnimationFrame(() => { this.timer = 0; this.draw(); });
  }

  /** What can be shown: each finished picture, and each job that has none or makes more. */
  items(ids) {
    return ids.flatMap(id => {
      const job = known(id);
      if (!job) return [];
      const items = job.pictures.map(picture => ({ key: picture.id, job, picture }));
      return items.length && ENDED.includes(job.state) ? items : [...items, { key: id, job }];
    });
  }

  draw() {
    const [newest = [], ...older] = groups(this.tab);
    const items = this.items(newest), past = this.items(older.flat()).filter(item => item.picture || !ENDED.includes(item.job.state));
    const active = items.find(item => !item.picture && item.job.state === "running");
    const finished = items.filter(item => item.picture);
    const item = [...items, ...past].find(one => one.key === this.chosen) ?? active ?? finished[0] ?? items[0];
    this.drawStage(item);
    this.drawStatus(item);
    this.drawTools(item, finished);
    this.drawStrip([...items, ...past], item);
  }

  drawStage(item) {
    const preview = item && !item.picture && item.job.live.preview;
    this.viewer.hidden = !item?.picture;
    this.preview.hidden = !preview;
    this.empty.hidden = Boolean(item?.picture || preview);
    this.stage.classList.toggle("busy", Boolean(item && !item.picture && item.job.state === "running"));
    if (preview) this.preview.src = preview;
    if (item?.picture) {
      const before = item.job.request.task === "upscale" && this.hasAttribute("compare") ? uploadUrl(item.job.request.image) : null;
      this.viewer.show(pictureUrl(item.picture.id), before);
    }
  }

  drawStatus(item) {
    const job = item?.job, progress = job?.live.progress;
    const isActive = job && !item.picture && !ENDED.includes(job.state);
    this.bar.hidden = !isActive;
    this.status.classList.toggle("wrong", Boolean(job?.error && !item.picture));
    if (!job) this.status.textContent = "";
    else if (item.picture) this.status.textContent = about(item);
    else if (job.state === "pending") this.status.textContent = job.ahead ? say("waiting", { ahead: job.ahead }) : say("pending");
    else if (job.state === "running") this.status.textContent = progress ? told(progress) : say("running");
    else this.status.textContent = job.error ? `${job.error[0].toUpperCase()}${job.error.slice(1)}` : say(job.state);
    this.empty.textContent = this.status.textContent || say("empty");
    if (isActive && progress?.steps > 1) this.bar.value = progress.step / progress.steps;
    else this.bar.removeAttribute("value");
  }

  drawTools(item, finished) {
    const key = `${item?.key} ${item?.job.state} ${finished.length}`;
    if (this.drawn === key) return;
    this.drawn = key;
    const tools = [], picture = item?.picture;
    if (item && !picture && item.job.state === "running" && item.job.request.options?.batch_count > 1)
      tools.push(make("button", { type: "button", onclick: () => skip(item.job.id).catch(() => {}) }, say("skip")));
    if (item && !picture && ["failed", "interrupted"].includes(item.job.state))
      tools.push(make("button", { type: "button", onclick: () => this.retry(item.job.id) }, say("retry")));
    if (picture) {
      tools.push(make("a", { href: pictureUrl(picture.id), download: "", className: "button" }, say("download")));
      if (finished.length > 1) {
        const ids = finished.slice(0, ARCHIVED).map(one => `id=${one.picture.id}`).join("&");
        tools.push(make("a", { href: new URL(`archive?${ids}`, api).href, download: "", className: "button" }, say("download_all")));
      }
      tools.push(make("span", { className: "label" }, say("send")));
      for (const tab of RECEIVERS.filter(tab => tab !== this.tab))
        tools.push(make("button", { type: "button", onclick: () => this.send(picture.id, tab) }, say(tab)));
      tools.push(make("button", { type: "button", onclick: event => copy(event.target, JSON.stringify(picture.settings, null, 2)) }, say("copy")));
    }
    this.tools.replaceChildren(...tools);
    const tags = Object.entries(picture?.record?.tags ?? {}).map(([tag, score]) => `${tag} ${score.toFixed(2)}`);
    const named = tags.length ? tags : (item?.job.request.task === "upscale" && picture?.tags) || [];
    const notes = picture ? item.job.notes : [];
    this.facts.replaceChildren(
      ...(named.length ? [`${say("tags")}: ${named.join(", ")}`] : []),
      ...notes.map(note => make("span", { className: "note" }, note)));
  }

  drawStrip(items, chosen) {
    const shown = items.length > 1 ? items : [];
    const key = shown.map(item => item.key + (item.picture ? "" : item.job.state)).join() + chosen?.key;
    if (this.strip.drawn === key) return;
    this.strip.drawn = key;
    this.strip.replaceChildren(...shown.map((item, index) => {
      const inside = item.picture
        ? make("img", { src: thumbnailUrl(item.picture.id), alt: "", loading: "lazy" })
        : make("span", { className: item.job.state === "failed" ? "wrong" : "" }, say(item.job.state));
      const choose = () => { this.chosen = item.key; this.draw(); };
      const label = item.picture ? say("picture", { picture: index + 1, pictures: shown.length }) : say(item.job.state);
      return make("button", { type: "button", onclick: choose, "aria-label": label, "aria-pressed": `${item.key === chosen?.key}` }, inside);
    }));
  }

  async send(picture, tab) {
    try {
      await send(picture, tab);
    } catch (error) {
      this.status.textContent = error.message;
      this.status.classList.add("wrong");
    }
  }

  async retry(id) {
    const job = await ask(`jobs/${id}/retry`, { method: "POST" });
    put(this.tab, "jobs", get(this.tab, "jobs").replace(id, job.id));
  }
}

const STAGES = ["load", "read", "clean", "tag", "encode", "denoise", "vae_decode", "save"];

function told({ stage, step, steps, picture, pictures, eta, plan }) {
  const parts = [];
  if (pictures > 1) parts.push(say("picture", { picture: Math.min(picture + 1, pictures), pictures }));
  parts.push(STAGES.includes(stage) ? say(stage) : stage.replaceAll("_", " "));
  if (steps > 1) parts.push(say("step", { step: Math.min(step + 1, steps), steps }));
  if (eta != null) parts.push(say("left", { seconds: eta < 10 ? eta.toFixed(1) : Math.round(eta) }));
  if (plan) parts.push(say("plan", { plan }));
  return parts.join(" · ");
}

function about({ job, picture }) {
  const parts = [`${picture.width} × ${picture.height}`];
  const seconds = Object.values(job.result.seconds ?? {}).reduce((sum, one) => sum + one, 0);
  if (seconds) parts.push(say("took", { seconds: seconds.toFixed(1) }));
  if (job.result.plan) parts.push(say("plan", { plan: job.result.plan }));
  const seed = picture.settings?.seed;
  if (seed != null) parts.push(say("seed", { seed }));
  return parts.join(" · ");
}

/** Copies a text, which the button that was pressed tells. */
export async function copy(button, text) {
  const label = button.textContent;
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else {
    // Browsers offer no clipboard to pages that come by plain HTTP from another machine.
    const area = make("textarea", { value: text });
    button.after(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = say("copied");
  setTimeout(() => { button.textContent = label; }, 1500);
}

customElements.define("seesr-view", View);
