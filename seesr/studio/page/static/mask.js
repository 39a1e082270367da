// The mask, painted on a picture by mouse, pen or finger. It is uploaded as a PNG that is white where the picture is painted anew.

import { get, make, on, put, say, upload, uploadUrl } from "./state.js";
import { named } from "./parts.js";

const UNDO = 20;
/** Pixels of the canvas; the mask of a larger picture is enlarged by the pipeline. */
const MAX_SIDE = 2048;
/** Milliseconds after a stroke. */
const SAVED_AFTER = 1500;
const COLOUR = [217, 70, 239];
const PAINT = `rgb(${COLOUR})`;

export class Mask {
  constructor(tab) {
    this.tab = tab;
    this.picture = make("img", { alt: "", draggable: false });
    this.canvas = make("canvas", { "aria-label": say("brush"), role: "img" });
    this.pen = this.canvas.getContext("2d", { willReadFrequently: true });
    this.size = make("input", { type: "range", min: 2, max: 50, value: 12, "aria-label": say("size"), title: say("size") });
    this.brush = named("brush", () => this.choose(false));
    this.eraser = named("eraser", () => this.choose(true));
    this.file = make("input", { type: "file", accept: "image/*", "aria-label": say("upload_mask"), onchange: () => this.load(this.file.files[0]) });
    this.tools = make("div", { className: "tools" }, this.brush, this.eraser, this.size,
      named("undo", () => this.undo()), named("invert", () => this.invert()), named("clear", () => { this.remember(); this.clear(); }),
      make("label", { className: "button" }, this.file, say("upload_mask")));
    this.element = make("div", { className: "mask", hidden: true }, make("p", {}, say("paint")), make("div", { className: "paper" }, this.picture, this.canvas), this.tools);
    this.undone = [];
    this.choose(false);
    this.picture.addEventListener("load", () => this.fit());
    this.watchPointer();
    on(tab, "mask", hash => { if (hash && hash !== this.uploaded) this.restore(hash); });
  }

  show(hash) {
    this.element.hidden = !hash;
    if (hash && this.hash !== hash) {
      this.hash = hash;
      this.picture.src = uploadUrl(hash);
    }
  }

  fit() {
    const { naturalWidth: width, naturalHeight: height } = this.picture;
    const scale = Math.min(1, MAX_SIDE / Math.max(width, height));
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.undone = [];
    this.isChanged = false;
    const hash = get(this.tab, "mask");
    if (hash) this.restore(hash);
  }

  choose(isEraser) {
    this.isEraser = isEraser;
    this.brush.setAttribute("aria-pressed", `${!isEraser}`);
    this.eraser.setAttribute("aria-pressed", `${isEraser}`);
  }

  watchPointer() {
    let last = null;
    const at = event => {
      const box = this.canvas.getBoundingClientRect();
      return [((event.clientX - box.left) * this.canvas.width) / box.width, ((event.clientY - box.top) * this.canvas.height) / box.height];
    };
    const stroke = event => {
      const point = at(event);
      this.pen.globalCompositeOperation = this.isEraser ? "destination-out" : "source-over";
      this.pen.strokeStyle = PAINT;
      this.pen.lineCap = this.pen.lineJoin = "round";
      this.pen.lineWidth = (this.size.value / 100) * Math.max(this.canvas.width, this.canvas.height);
      this.pen.beginPath();
      this.pen.moveTo(...(last ?? point));
      this.pen.lineTo(...point);
      this.pen.stroke();
      last = point;
    };
    this.canvas.addEventListener("pointerdown", event => {
      if (event.button) return;
      event.preventDefault();
      this.canvas.setPointerCapture(event.pointerId);
      this.remember();
      last = null;
      stroke(event);
    });
    this.canvas.addEventListener("pointermove", event => {
      if (last === null || !this.canvas.hasPointerCapture(event.pointerId)) return;
      for (const part of event.getCoalescedEvents?.() ?? [event]) stroke(part);
    });
    this.canvas.addEventListener("pointerup", () => {
      last = null;
      // So that a closed tab loses nothing.
      clearTimeout(this.saving);
      this.saving = setTimeout(() => this.upload().catch(() => { this.isChanged = true; }), SAVED_AFTER);
    });
  }

  remember() {
    if (!this.canvas.width) return;
    this.undone = [...this.undone, this.pen.getImageData(0, 0, this.canvas.width, this.canvas.height)].slice(-UNDO);
    this.isChanged = true;
  }

  undo() {
    const last = this.undone.pop();
    if (last) this.pen.putImageData(last, 0, 0);
    this.isChanged = true;
  }

  clear() {
    this.pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.isChanged = true;
  }

  invert() {
    this.remember();
    this.pen.globalCompositeOperation = "xor";
    this.pen.fillStyle = PAINT;
    this.pen.fillRect(0, 0, this.canvas.width, this.canvas.height);
  }

  async load(file) {
    this.file.value = "";
    this.draw(await createImageBitmap(file));
    this.isChanged = true;
  }

  async restore(hash) {
    if (!this.canvas.width) return;
    this.uploaded = hash;
    const answer = await fetch(uploadUrl(hash));
    if (answer.ok) this.draw(await createImageBitmap(await answer.blob()));
  }

  /** Takes over a mask, whose bright parts are painted anew. */
  draw(image) {
    this.remember();
    const { width, height } = this.canvas;
    this.pen.globalCompositeOperation = "copy";
    this.pen.drawImage(image, 0, 0, width, height);
    const pixels = this.pen.getImageData(0, 0, width, height);
    for (let at = 0; at < pixels.data.length; at += 4) {
      const isOn = pixels.data[at + 3] > 127 && pixels.data[at] > 127;
      pixels.data.set([...COLOUR, isOn ? 255 : 0], at);
    }
    this.pen.putImageData(pixels, 0, 0);
    this.isChanged = false;
  }

  /** Uploads the mask if it was changed; one without anything painted is none. */
  async upload() {
    if (!this.isChanged || !this.canvas.width) return;
    this.isChanged = false;
    const { width, height } = this.canvas;
    const isEmpty = !this.pen.getImageData(0, 0, width, height).data.some((value, at) => at % 4 === 3 && value);
    if (isEmpty) return put(this.tab, "mask", "");
    const paper = make("canvas", { width, height }), pen = paper.getContext("2d");
    pen.drawImage(this.canvas, 0, 0);
    pen.globalCompositeOperation = "source-in";
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, width, height);
    pen.globalCompositeOperation = "destination-over";
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, width, height);
    const hash = await upload(await new Promise(done => paper.toBlob(done, "image/png")));
    this.uploaded = hash;
    put(this.tab, "mask", hash);
  }
}
