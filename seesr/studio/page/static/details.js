// A picture of the gallery, large and with its settings, or two compared; over everything else.

import { ask, make, pictureUrl, say, sentence, thumbnailUrl, uploadUrl, words } from "./state.js";
import { fetchJob, known } from "./jobs.js";
import { button } from "./parts.js";
import { fillFromPicture } from "./settings.js";
import { copy, RECEIVERS, send } from "./view.js";
import "./compare.js";

const local = date => new Date(date).toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" });
const labelOf = name => words[`field.${name}`] ?? sentence(name.replaceAll("_", " "));
const isEmpty = value => value == null || value === "" || (typeof value === "object" && !Object.keys(value).length);

function told(value) {
  if (Array.isArray(value)) return value.map(told).join(", ");
  if (value && typeof value === "object") return Object.entries(value).map(([name, one]) => `${name}: ${told(one)}`).join(", ");
  return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(6))) : String(value);
}

/** What a picture is called where it is not seen. */
export const titleOf = picture => picture.settings.prompt || say("gallery_picture", { date: local(picture.created) });

export class Details {
  constructor(gallery) {
    this.gallery = gallery;
    this.viewer = document.createElement("seesr-viewer");
    this.small = make("img", { alt: "", hidden: true });
    this.panel = make("div", { className: "panel" });
    const sign = (text, key, onclick, className) => make("button", { type: "button", className, title: say(key), "aria-label": say(key), onclick }, text);
    this.previous = sign("‹", "gallery_previous", () => this.walk(-1), "previous");
    this.next = sign("›", "gallery_next", () => this.walk(1), "next");
    this.stage = make("div", { className: "stage" }, this.viewer, this.small, this.previous, this.next);
    this.element = make("dialog",
      { className: "details", "aria-label": say("gallery_details"), onkeydown: event => this.key(event), onclose: () => this.closed() },
      this.stage, this.panel, sign("×", "gallery_close", () => this.element.close(), "close"));
  }

  get isOpen() { return this.element.open; }

  /** Opens with a picture, or shows it if it is open already. */
  async show(picture) {
    const isNew = this.picture?.id !== picture.id;
    this.picture = picture;
    this.others = null;
    if (!this.isOpen) this.element.showModal();
    this.viewer.hidden = Boolean(picture.trashed);
    this.small.hidden = !picture.trashed;
    if (picture.trashed) this.small.src = thumbnailUrl(picture.id);
    if (isNew) this.boards = this.job = null;
    this.draw();
    const job = picture.job && !picture.trashed ? known(picture.job) ?? (await fetchJob(picture.job)) : null;
    if (this.picture !== picture) return;
    this.job = job;
    if (!picture.trashed) this.viewer.show(pictureUrl(picture.id), before(job));
    if (isNew) {
      this.element.querySelector(".close").focus();
      this.panel.scrollTop = 0;
    }
    this.draw();
    await this.loadBoards();
  }

  async loadBoards() {
    const picture = this.picture;
    if (!picture) return;
    const boards = await ask(`boards?picture=${picture.id}`);
    if (this.picture?.id !== picture.id) return;
    this.boards = boards;
    this.draw();
  }

  /** Shows the older one of two pictures before the newer one, and what differs. */
  compare(pictures) {
    this.picture = this.job = null;
    const [before, after] = (this.others = pictures);
    this.element.showModal();
    this.viewer.hidden = !(this.small.hidden = true);
    this.viewer.show(pictureUrl(after.id), pictureUrl(before.id));
    this.previous.hidden = this.next.hidden = true;
    const names = [...new Set(pictures.flatMap(picture => Object.keys(picture.settings)))];
    const rows = names.map(name => [name, ...pictures.map(picture => (isEmpty(picture.settings[name]) ? "" : told(picture.settings[name])))]);
    this.panel.replaceChildren(make("h2", {}, say("gallery_compare")),
      table([["", say("before"), say("after")], ["made", ...pictures.map(picture => local(picture.created))], ...rows.filter(([, one, other]) => one !== other)]));
    this.element.querySelector(".close").focus();
  }

  closed() {
    // Chromium tells of a closing with the next frame: it may have been opened again by then.
    if (this.isOpen) return;
    const picture = this.picture;
    this.picture = this.others = this.job = null;
    this.gallery.closed(picture);
  }

  draw() {
    const { picture, job, gallery } = this, { settings } = picture;
    const group = (...children) => make("div", { className: "tools" }, ...children);
    this.previous.hidden = !gallery.next(picture, -1);
    this.next.hidden = !gallery.next(picture, 1);
    const tools = picture.trashed
      ? [group(button(say("gallery_restore"), () => gallery.restore([picture])))]
      : [
        group(
          button(`${picture.favourite ? "★" : "☆"} ${say("gallery_favour")}`, () => gallery.favour([picture]), { "aria-pressed": `${picture.favourite}` }),
          make("a", { href: pictureUrl(picture.id), download: "", className: "button" }, say("download")),
          button(say("gallery_add"), () => gallery.addToBoard([picture]).then(() => this.loadBoards())),
          button(say("gallery_delete"), () => gallery.remove([picture]))),
        group(make("span", { className: "label" }, say("send")),
          ...RECEIVERS.map(tab => button(say(tab), () => this.send(tab)))),
        group(
          ...(job ? [button(say("gallery_repeat"), () => this.repeat())] : []),
          ...(isEmpty(settings) ? [] : [button(say("use_settings"), () => this.use())]),
          button(say("copy"), event => copy(event.target, JSON.stringify(settings, null, 2))),
          button(say("gallery_link"), event => copy(event.target, location.href))),
      ];
    const { prompt, negative_prompt: negative, infotext, ...rest } = settings;
    const size = (picture.size / 1e6).toFixed(2);
    const facts = [["made", local(picture.created)], ["file", `${picture.width} × ${picture.height}, ${picture.media_type.split("/")[1].toUpperCase()}, ${size} MB`]];
    const tags = make("input", { type: "text", value: picture.tags.join(", "), placeholder: say("gallery_commas"), onchange: event => this.tag(event.target.value) });
    const boards = (this.boards ?? []).map(board =>
      button(`${board.name} ×`, () => gallery.takeOff([picture], board).then(() => this.loadBoards()), { "aria-label": `${say("gallery_take")}: ${board.name}` }));
    const place = this.panel.scrollTop, focused = [...this.panel.querySelectorAll("button, input, a")].indexOf(document.activeElement);
    this.panel.replaceChildren(
      ...(prompt ? [make("p", { className: "prompt" }, prompt)] : []),
      ...(negative ? [make("p", { className: "negative" }, negative)] : []),
      ...tools,
      make("label", {}, make("span", {}, say("tags")), tags),
      ...(boards.length ? [group(make("span", { className: "label" }, say("gallery_boards")), ...boards)] : []),
      table([...facts, ...Object.entries(rest).filter(([, value]) => !isEmpty(value)).map(([name, value]) => [name, told(value)])]),
      ...(infotext ? [make("pre", {}, infotext)] : []));
    this.panel.scrollTop = place;
    if (focused >= 0) [...this.panel.querySelectorAll("button, input, a")][focused]?.focus();
  }

  key(event) {
    if (!this.picture || event.target.closest("input, textarea, select, .question") || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      ArrowLeft: () => this.walk(-1),
      ArrowRight: () => this.walk(1),
      f: () => this.gallery.favour([this.picture]),
      Delete: () => this.gallery.remove([this.picture]),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  async walk(step) {
    const next = this.gallery.next(this.picture, step);
    if (next) this.gallery.show(next);
    if (step > 0 && !this.gallery.next(next ?? this.picture, 2)) await this.gallery.more();
    if (this.picture) this.draw();
  }

  send(tab) {
    const { id } = this.picture;
    this.element.close();
    send(id, tab).catch(error => this.gallery.failed(error));
  }

  /** Fills the fields of the tab that fits with the picture's settings. */
  use() {
    const { picture } = this;
    this.element.close();
    fillFromPicture(picture);
  }

  /** Puts the picture's job into the queue once more, for this one picture. */
  async repeat() {
    const { request } = this.job, { seed, variation_seed: variation } = this.picture.settings;
    const options = { ...request.options, seed };
    if (request.task !== "upscale") Object.assign(options, { batch_size: 1, batch_count: 1 }, variation == null ? {} : { variation_seed: variation });
    await this.gallery.act(async () => {
      await ask("jobs", { method: "POST", json: { request: { ...request, options } } });
      this.gallery.tell(say("gallery_repeated"));
    });
  }

  async tag(text) {
    const tags = text.split(",").map(tag => tag.trim()).filter(Boolean);
    await this.gallery.act(async () => this.gallery.update([await ask(`pictures/${this.picture.id}`, { method: "PATCH", json: { tags } })]));
  }
}

/** What a picture was made of, where both can be laid over each other. */
function before(job) {
  const { image, options } = job?.request ?? {};
  return image && !options.outpaint ? uploadUrl(image) : null;
}

function table(rows) {
  const head = name => ({ made: say("gallery_made"), file: say("gallery_file") })[name] ?? labelOf(name);
  return make("table", {}, make("tbody", {}, ...rows.map(([name, ...values]) => (name
    ? make("tr", {}, make("th", { scope: "row" }, head(name)), ...values.map(value => make("td", {}, value)))
    : make("tr", {}, make("td"), ...values.map(value => make("th", { scope: "col" }, value)))))));
}
