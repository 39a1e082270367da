// The user's jobs, and for admins those of all: those that run and wait in their order, then those that have ended.

import { ask, make, say, sentence, thumbnailUrl, uploadUrl } from "./state.js";
import { cancel, ENDED, keep, watch } from "./jobs.js";
import { choice, labelled } from "./parts.js";

/** Jobs that have ended, and others, that are shown at most. */
const COUNT = 50, MOST = 200;
/** Milliseconds between two looks at the jobs of others, of which no event tells. */
const POLL = 3000;

class Queue extends HTMLElement {
  connectedCallback() {
    this.bar = make("div", { className: "tools" });
    this.told = make("p", { className: "seesr-error", role: "alert" });
    this.list = make("ol", { "aria-label": this.getAttribute("title") ?? "" });
    this.replaceChildren(this.bar, this.told, this.list);
    this.stop = watch(() => this.later());
    new IntersectionObserver(entries => { if (entries.at(-1).isIntersecting) this.load(); }).observe(this);
    this.clock = setInterval(() => { if (!this.dragged && !document.hidden) this.later(); }, POLL);
  }

  disconnectedCallback() {
    this.stop();
    clearInterval(this.clock);
  }

  later() {
    if (this.offsetParent) this.timer ||= setTimeout(() => { this.timer = 0; this.load(); }, 300);
  }

  async load() {
    if (this.isLoading) return void (this.again = true);
    this.isLoading = true;
    await this.loadOnce();
    this.isLoading = false;
    if (this.again) this.load(this.again = false);
  }

  async loadOnce() {
    try {
      const user = this.user ??= await ask("me");
      const of = user.role === "admin" && user.name !== "local" ? (this.of ?? "*") : user.name;
      const list = (states, count) => ask(`jobs?${states.map(state => `state=${state}&`).join("")}count=${count}&of=${encodeURIComponent(of)}`);
      const [queue, active, ended] = await Promise.all([ask("queue"), list(["running", "pending"], MOST), list(ENDED, COUNT)]);
      const jobs = [...active.jobs, ...ended.jobs], state = JSON.stringify([of, queue, jobs]);
      if (state !== this.drawn) this.draw(user, queue, jobs, of);
      this.drawn = state;
    } catch (error) {
      this.told.textContent = error.message;
    }
  }

  async act(work) {
    this.told.textContent = "";
    try {
      const job = await work();
      if (job?.request) keep(job);
    } catch (error) {
      this.told.textContent = error.message;
    }
    this.load();
  }

  draw(user, queue, jobs, of) {
    const focused = this.contains(document.activeElement) ? document.activeElement : null;
    const [job, key] = [focused?.closest("[data-job]")?.dataset.job, focused?.dataset.key];
    this.drawBar(user, queue, of);
    const waiting = jobs.filter(job => job.state === "pending").sort((one, other) => one.ahead - other.ahead);
    const running = jobs.filter(job => job.state === "running"), ended = jobs.filter(job => ENDED.includes(job.state));
    const rows = [...running, ...waiting, ...ended].map(job => this.row(job, waiting, of));
    this.list.replaceChildren(...(rows.length ? rows : [make("li", { className: "empty" }, say(of === "*" ? "queue_empty_all" : "queue_empty"))]));
    const row = job && this.querySelector(`[data-job="${job}"]`);
    (row?.querySelector(`[data-key="${key}"]`) ?? row?.querySelector("button") ?? this.bar.querySelector(`[data-key="${key}"]`))?.focus();
  }

  drawBar(user, queue, of) {
    const count = queue.paused ? say("paused", { reason: queue.reason ?? "" }) : say("queue_count", queue);
    const change = queue.paused ? "resume" : "pause";
    const post = () => ask(`queue/${change}`, { method: "POST", ...(change === "pause" ? { json: {} } : {}) });
    const tools = [make("span", { role: "status" }, count)];
    if (user.role === "admin") tools.push(make("button", { type: "button", "data-key": "pause", onclick: () => this.act(post) }, say(change)));
    if (user.role === "admin" && user.name !== "local") {
      const whose = choice([["*", say("everybody")], [user.name, say("only_mine")]], of, {
        "data-key": "whose", onchange: () => { this.of = whose.value; this.load(); } });
      tools.push(labelled(say("jobs_of"), whose));
    }
    this.bar.replaceChildren(...tools);
  }

  row(job, waiting, of) {
    const button = (key, work) => make("button", { type: "button", "data-key": key, onclick: () => this.act(work) }, say(key));
    const move = before => ask(`jobs/${job.id}/move`, { method: "POST", json: { before } });
    // Turns between users come first: a job moves among those of its own user.
    const line = waiting.filter(other => other.user === job.user), place = line.indexOf(job);
    const tools = [], moves = place >= 0 && line.length > 1;
    const up = () => move(line[place - 1].id), down = () => move(line[place + 2]?.id ?? null);
    if (moves && place > 0) tools.push(button("first", () => move(line[0].id)), button("earlier", up));
    if (moves && place < line.length - 1) tools.push(button("afterwards", down), button("later", () => move(null)));
    if (!ENDED.includes(job.state)) tools.push(button("cancel", () => cancel(job.id)));
    else if (job.state !== "done") tools.push(button("retry", () => ask(`jobs/${job.id}/retry`, { method: "POST" })));
    const picture = job.pictures[0];
    const facts = [of === "*" && job.user, say(job.state), sentence(job.request.task), job.error].filter(Boolean).join(" · ");
    const row = make("li", { "data-state": job.state, "data-job": job.id },
      picture ? make("a", { href: `#picture=${picture.id}`, title: say("gallery_open"), "aria-label": say("gallery_open") }, make("img", { src: thumbnailUrl(picture.id), alt: "", loading: "lazy", onerror: event => event.target.classList.add("gone") })) : job.request.image ? make("img", { src: uploadUrl(job.request.image), alt: "" }) : make("span", { className: "blank" }),
      make("div", {},
        make("strong", {}, job.request.options?.prompt || sentence(job.request.task)),
        make("span", { className: job.error ? "wrong" : "" }, facts)),
      make("div", { className: "tools" }, ...tools));
    if (moves) this.drags(row, job, line, move);
    return row;
  }

  /** Lets a row be dragged to another place of its user's, or moved with Alt and the arrow keys. */
  drags(row, job, line, move) {
    const place = line.indexOf(job);
    row.draggable = true;
    row.addEventListener("dragstart", event => {
      this.dragged = job.id;
      event.dataTransfer.setData("text/plain", job.id);
      event.dataTransfer.effectAllowed = "move";
    });
    row.addEventListener("dragend", () => { this.dragged = null; });
    row.addEventListener("dragover", event => {
      const from = line.findIndex(other => other.id === this.dragged);
      if (from < 0 || from === place) return;
      event.preventDefault();
      row.classList.add("over");
    });
    row.addEventListener("dragleave", () => row.classList.remove("over"));
    row.addEventListener("drop", event => {
      event.preventDefault();
      const from = line.findIndex(other => other.id === this.dragged);
      this.dragged = null;
      const before = from < place ? line[place + 1]?.id ?? null : job.id;
      if (from >= 0 && from !== place) this.act(() => ask(`jobs/${line[from].id}/move`, { method: "POST", json: { before } }));
    });
    row.addEventListener("keydown", event => {
      const to = event.altKey && { ArrowUp: place - 1, ArrowDown: place + 1 }[event.key];
      if (to === false || to === undefined || to < 0 || to >= line.length) return;
      event.preventDefault();
      this.act(() => move(to < place ? line[to].id : line[to + 1]?.id ?? null));
    });
  }
}

customElements.define("seesr-queue", Queue);
