// The newest X/Y/Z plot of a tab: a table of pictures with its options and values, and the same as one picture.

import { make, on, pictureUrl, put, say, thumbnailUrl } from "./state.js";
import { ENDED, fetchJob, known, watch } from "./jobs.js";

const MAX_SIDE = 8192, MAX_CELL = 1024, GAP = 8;

class Sheet extends HTMLElement {
  connectedCallback() {
    this.tab = this.getAttribute("tab");
    this.told = make("span", { role: "status" });
    this.save = make("button", { type: "button", onclick: () => this.download() }, say("sheet_download"));
    const close = make("button", { type: "button", onclick: () => put(this.tab, "plot", "") }, say("sheet_close"));
    this.tables = make("div", { className: "tables", role: "group", tabIndex: 0, "aria-label": say("sheet") });
    this.replaceChildren(make("div", { className: "tools" }, this.save, close, this.told), this.tables);
    this.cells = [];
    on(this.tab, "plot", text => this.load(text));
    this.stop = watch(id => { if (id === null || this.jobs?.has(id)) this.later(); });
  }

  disconnectedCallback() { this.stop(); }

  later() {
    this.timer ||= requestAnimationFrame(() => { this.timer = 0; this.draw(); });
  }

  async load(text) {
    this.plot = text ? JSON.parse(text) : null;
    this.hidden = !this.plot;
    this.cells = [];
    this.tables.replaceChildren();
    this.jobs = new Set(this.plot?.jobs);
    if (!this.plot) return;
    const [x, y, z] = this.plot.axes;
    this.tables.replaceChildren(...z.map((name, depth) => make("table", {},
      make("caption", {}, name),
      make("thead", {}, make("tr", {}, make("td"), ...x.map(label => make("th", { scope: "col" }, label)))),
      make("tbody", {}, ...y.map((label, row) => make("tr", {},
        make("th", { scope: "row" }, label),
        ...x.map((column, place) => {
          const button = make("button", { type: "button", "aria-label": [column, label, name].filter(Boolean).join(", ") });
          this.cells.push({ button, id: this.plot.jobs[(depth * y.length + row) * x.length + place] });
          return make("td", {}, button);
        })))))));
    this.draw();
    for (const { id } of [...this.cells]) if (!known(id)) await fetchJob(id);
    this.draw();
  }

  draw() {
    for (const { button, id } of this.cells) {
      const job = known(id), picture = job?.pictures[0], shown = picture?.id ?? job?.state ?? "";
      if (button.dataset.shown === shown) continue;
      button.dataset.shown = shown;
      button.title = job?.error ?? "";
      button.onclick = picture ? () => document.querySelector(`seesr-view[tab="${this.tab}"]`)?.choose(picture.id) : null;
      button.replaceChildren(picture ? make("img", { src: thumbnailUrl(picture.id), alt: "", loading: "lazy" })
        : make("span", { className: job?.error ? "wrong" : "" }, job ? say(job.state) : ""));
    }
    const count = this.cells.length, done = this.cells.filter(({ id }) => known(id)?.pictures.length).length;
    this.told.textContent = say("sheet_done", { done, count });
    this.save.disabled = !done || this.cells.some(({ id }) => known(id) && !ENDED.includes(known(id).state));
  }

  /** Draws the tables into one PNG file, which the browser saves. */
  async download() {
    const images = await Promise.all(this.cells.map(({ id }) => loaded(known(id)?.pictures[0])));
    const [x, y, z] = this.plot.axes, font = 16;
    const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
    pen.font = `${font}px sans-serif`;
    const margin = Math.ceil(Math.min(320, Math.max(0, ...y.map(label => pen.measureText(label).width)))) + 2 * GAP;
    const head = (label => (label ? font + 2 * GAP : GAP));
    const heads = head(x.some(Boolean)), caption = head(z.some(Boolean));
    const wide = Math.max(...images.map(image => image?.naturalWidth ?? 1)), high = Math.max(...images.map(image => image?.naturalHeight ?? 1));
    const limits = [(MAX_SIDE - margin) / x.length - GAP, MAX_CELL], downwards = (MAX_SIDE / z.length - heads - caption) / y.length - GAP;
    const scale = Math.min(1, ...limits.map(limit => limit / wide), Math.min(downwards, MAX_CELL) / high);
    const width = Math.max(1, Math.round(wide * scale)), height = Math.max(1, Math.round(high * scale));
    const table = caption + heads + y.length * (height + GAP);
    // Columns are at least as wide as what stands above them.
    const column = Math.max(width, ...x.map(label => Math.min(240, Math.ceil(pen.measureText(label).width)))) + GAP;
    canvas.width = margin + x.length * column;
    canvas.height = z.length * table;
    Object.assign(pen, { fillStyle: "#fff", font: `${font}px sans-serif`, textBaseline: "middle" });
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.fillStyle = "#1c1917";
    const write = (text, align, left, top, most) => { pen.textAlign = align; pen.fillText(text, left, top, most); };
    z.forEach((name, depth) => {
      const top = depth * table;
      write(name, "left", GAP, top + caption / 2, canvas.width - 2 * GAP);
      x.forEach((label, place) => write(label, "center", margin + place * column + (column - GAP) / 2, top + caption + heads / 2, column - GAP));
      y.forEach((label, row) => {
        const line = top + caption + heads + row * (height + GAP);
        write(label, "right", margin - GAP, line + height / 2, margin - 2 * GAP);
        x.forEach((_, place) => {
          const image = images[(depth * y.length + row) * x.length + place];
          if (image) pen.drawImage(image, margin + place * column, line, image.naturalWidth * scale, image.naturalHeight * scale);
        });
      });
    });
    const url = URL.createObjectURL(await new Promise(done => canvas.toBlob(done, "image/png")));
    make("a", { href: url, download: "sheet.png" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }
}

function loaded(picture) {
  if (!picture) return null;
  return new Promise(done => {
    const image = make("img", { src: pictureUrl(picture.id), onload: () => done(image), onerror: () => done(null) });
  });
}

customElements.define("seesr-sheet", Sheet);
