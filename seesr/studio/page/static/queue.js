// The user's jobs: those that run and wait in their order, then those that have ended.

import { ask, make, say, sentence, thumbnailUrl } from "./state.js";
import { cancel, ENDED, keep, watch } from "./jobs.js";

const COUNT = 50;

class Queue extends HTMLElement {
  connectedCallback() {
    this.bar = make("div", { className: "tools" });
    this.told = make("p", { className: "seesr-error", role: "alert" });
    this.list = make("ol", { "aria-label": this.getAttribute("title") ?? "" });
    this.replaceChildren(this.bar, this.told, this.list);
    this.stop = watch(() => this.later());
    new IntersectionObserver(entries => { if (entries.at(-1).isIntersecting) this.load(); }).observe(this);
  }

  disconnectedCallback() { this.stop(); }

  later() {
    if (this.offsetParent) this.timer ||= setTimeout(() => { this.timer = 0; this.load(); }, 300);
  }

  async load() {
    try {
      const [user, queue, page] = await Promise.all([ask("me"), ask("queue"), ask(`jobs?count=${COUNT}`)]);
      this.draw(user, queue, page.jobs);
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

  draw(user, queue, jobs) {
    const count = queue.paused ? say("paused", { reason: queue.reason ?? "" }) : say("queue_count", queue);
    const change = queue.paused ? "resume" : "pause";
    const post = () => ask(`queue/${change}`, { method: "POST", ...(change === "pause" ? { json: {} } : {}) });
    this.bar.replaceChildren(
      make("span", { role: "status" }, count),
      ...(user.role === "admin" ? [make("button", { type: "button", onclick: () => this.act(post) }, say(change))] : []));
    const waiting = jobs.filter(job => job.state === "pending").sort((one, other) => one.ahead - other.ahead);
    const running = jobs.filter(job => job.state === "running"), ended = jobs.filter(job => ENDED.includes(job.state));
    const rows = [...running, ...waiting, ...ended].map(job => this.row(job, waiting));
    this.list.replaceChildren(...(rows.length ? rows : [make("li", { className: "empty" }, say("queue_empty"))]));
  }

  row(job, waiting) {
    const button = (key, work) => make("button", { type: "button", onclick: () => this.act(work) }, say(key));
    const move = before => ask(`jobs/${job.id}/move`, { method: "POST", json: { before } });
    const tools = [];
    if (job.state === "pending" && waiting[0] !== job) tools.push(button("first", () => move(waiting[0].id)));
    if (job.state === "pending" && waiting.at(-1) !== job) tools.push(button("later", () => move(null)));
    if (!ENDED.includes(job.state)) tools.push(button("cancel", () => cancel(job.id)));
    else if (job.state !== "done") tools.push(button("retry", () => ask(`jobs/${job.id}/retry`, { method: "POST" })));
    const picture = job.pictures[0];
    return make("li", { "data-state": job.state, "data-job": job.id },
      picture ? make("img", { src: thumbnailUrl(picture.id), alt: "", loading: "lazy" }) : make("span", { className: "blank" }),
      make("div", {},
        make("strong", {}, job.request.options?.prompt || sentence(job.request.task)),
        make("span", { className: job.error ? "wrong" : "" }, [say(job.state), sentence(job.request.task), job.error].filter(Boolean).join(" · "))),
      make("div", { className: "tools" }, ...tools));
  }
}

customElements.define("seesr-queue", Queue);
