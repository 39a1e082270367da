// A picture, or two over each other with a line between them: fitted or at any zoom, dragged, zoomed by wheel or two fingers.

import { make, say } from "./state.js";

const MAX_ZOOM = 16;

export class Viewer extends HTMLElement {
  connectedCallback() {
    if (this.isBuilt) return;
    this.isBuilt = true;
    this.after = make("img", { alt: say("after"), draggable: false });
    this.before = make("img", { alt: say("before"), draggable: false, className: "before", hidden: true });
    this.slider = make("input", { type: "range", min: 0, max: 100, step: 0.5, value: 50, hidden: true, "aria-label": say("compare"), oninput: () => this.place() });
    this.line = make("div", { className: "line", hidden: true });
    this.names = make("div", { className: "names", hidden: true, "aria-hidden": "true" }, make("span", {}, say("before")), make("span", {}, say("after")));
    this.field = make("div", { className: "field" }, this.after, this.before, this.line, this.names);
    const button = (text, label, onclick) => make("button", { type: "button", onclick, title: label, "aria-label": label }, text);
    this.tools = make("div", { className: "zoom" },
      button("−", say("zoom_out"), () => this.zoomBy(1 / 1.5)),
      button(say("fit"), say("fit"), () => this.fit()),
      button("1:1", "1:1", () => this.zoomTo(1 / devicePixelRatio)),
      button("+", say("zoom_in"), () => this.zoomBy(1.5)));
    this.missing = make("p", { className: "missing", role: "alert", hidden: true }, say("file_missing"));
    this.replaceChildren(this.field, this.slider, this.tools, this.missing);
    this.after.addEventListener("load", () => { this.measure(); this.isFitted ? this.fit() : this.place(); });
    this.before.addEventListener("error", () => this.compare(false));
    this.after.addEventListener("error", () => { this.after.hidden = !(this.missing.hidden = false); });
    new ResizeObserver(() => (this.isFitted ? this.fit() : this.place())).observe(this.field);
    this.isFitted = true;
    this.scale = 1;
    this.x = this.y = 0;
    this.watchPointers();
  }

  /** Shows a picture, and with `before` what it was made of. */
  show(after, before = null) {
    if (this.shown === `${after} ${before}`) return;
    this.shown = `${after} ${before}`;
    this.isFitted = this.missing.hidden = true;
    this.after.hidden = false;
    this.after.src = after;
    if (before) this.before.src = before;
    this.compare(Boolean(before));
  }

  compare(isOn) {
    for (const part of [this.before, this.slider, this.line, this.names]) part.hidden = !isOn;
    this.place();
  }

  measure() {
    this.width = this.after.naturalWidth;
    this.height = this.after.naturalHeight;
  }

  /** The scale at which all of the picture is seen. A small one is not blown up beyond twice its pixels. */
  fitted() { return Math.min(this.field.clientWidth / this.width, this.field.clientHeight / this.height, 2); }

  fit() {
    if (!this.width) return;
    this.isFitted = true;
    const { clientWidth: width, clientHeight: height } = this.field;
    this.scale = this.fitted();
    this.x = (width - this.width * this.scale) / 2;
    this.y = (height - this.height * this.scale) / 2;
    this.place();
  }

  zoomTo(scale, x = this.field.clientWidth / 2, y = this.field.clientHeight / 2) {
    scale = Math.min(MAX_ZOOM, Math.max(0.02, scale));
    this.isFitted = false;
    this.x = x - ((x - this.x) / this.scale) * scale;
    this.y = y - ((y - this.y) / this.scale) * scale;
    this.scale = scale;
    this.place();
  }

  zoomBy(factor, x, y) { this.zoomTo(this.scale * factor, x, y); }

  place() {
    if (!this.width) return;
    this.field.classList.toggle("fitted", this.isFitted);
    const size = { width: `${this.width * this.scale}px`, height: `${this.height * this.scale}px`, transform: `translate(${this.x}px, ${this.y}px)` };
    Object.assign(this.after.style, size);
    Object.assign(this.before.style, size);
    const isSharp = this.scale * devicePixelRatio >= 2;
    this.after.style.imageRendering = isSharp ? "pixelated" : "auto";
    const across = this.width * this.scale, left = Math.max(0, this.x), right = Math.min(this.field.clientWidth, this.x + across);
    const at = left + ((right - left) * this.slider.value) / 100;
    this.before.style.clipPath = `inset(0 ${Math.max(0, this.x + across - at)}px 0 0)`;
    this.line.style.transform = `translateX(${at}px)`;
  }

  watchPointers() {
    const pointers = new Map();
    let isLine = false;
    this.field.addEventListener("wheel", event => {
      // A fitted picture does not become smaller: the page is scrolled.
      const factor = Math.exp(-event.deltaY / 400);
      if (this.isFitted && factor < 1) return;
      event.preventDefault();
      if (this.scale * factor <= this.fitted()) return this.fit();
      const box = this.field.getBoundingClientRect();
      this.zoomBy(factor, event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    this.field.addEventListener("pointerdown", event => {
      const at = this.line.getBoundingClientRect();
      isLine = !this.line.hidden && Math.abs(event.clientX - at.left) < 24;
      pointers.set(event.pointerId, event);
      this.field.setPointerCapture(event.pointerId);
    });
    this.field.addEventListener("pointermove", event => {
      const last = pointers.get(event.pointerId);
      if (!last) return;
      const box = this.field.getBoundingClientRect();
      if (pointers.size === 2) {
        const other = [...pointers.values()].find(one => one.pointerId !== event.pointerId);
        const apart = one => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
        const middle = [(event.clientX + other.clientX) / 2 - box.left, (event.clientY + other.clientY) / 2 - box.top];
        this.zoomBy(apart(event) / Math.max(1, apart(last)), ...middle);
      } else if (isLine) {
        const left = Math.max(0, this.x), right = Math.min(box.width, this.x + this.width * this.scale);
        this.slider.value = ((event.clientX - box.left - left) / (right - left)) * 100;
      } else if (!this.isFitted) {
        this.x += event.clientX - last.clientX;
        this.y += event.clientY - last.clientY;
      }
      pointers.set(event.pointerId, event);
      this.place();
    });
    for (const end of ["pointerup", "pointercancel"])
      this.field.addEventListener(end, event => pointers.delete(event.pointerId));
    this.field.addEventListener("dblclick", () => (this.isFitted ? this.zoomTo(1 / devicePixelRatio) : this.fit()));
  }
}

customElements.define("seesr-viewer", Viewer);
