// The gallery: a grid of finished pictures with endless paging, by mouse, finger or keyboard.

import { api, ask, make, say, thumbnailUrl } from "./state.js";
import { named } from "./parts.js";
import { known, online, watch } from "./jobs.js";
import { openTab } from "./frame.js";
import { Details, titleOf } from "./details.js";
import { GallerySearch } from "./gallery_search.js";
import { question } from "./question.js";

const COUNT = 60;
/** Pictures that the API takes by id in one archive. */
const ARCHIVED = 200;
/** Pixels below the screen's edge at which the next page is asked for. */
const AHEAD = 1200;
/** Milliseconds that a sentence is shown, and one whose deed can be taken back. */
const TOLD = 8000, UNDO_SHOWN = 60_000;
const LINK = /^#picture=([\w-]+)$/;

class Gallery extends HTMLElement {
  connectedCallback() {
    this.items = [];
    this.tiles = new Map();
    this.selected = new Set();
    this.turn = 0;
    this.search = new GallerySearch(() => this.reload(), error => this.failed(error));
    this.details = new Details(this);
    this.fresh = make("button", { type: "button", className: "fresh", hidden: true, onclick: () => this.takeFresh() });
    this.bar = make("div", { className: "bar" });
    this.grid = make("ul", { className: "grid", "aria-label": this.getAttribute("title"), onkeydown: event => this.key(event), onclick: event => this.click(event) });
    this.empty = make("div", { className: "empty", hidden: true });
    this.end = make("div", { className: "end" });
    this.notice = make("div", { className: "notice" });
    this.all = make("a", { className: "button", download: "" }, say("download_all"));
    this.replaceChildren(
      make("div", { className: "find" }, this.search.words, this.search.fold, this.search.reset, this.all, this.fresh),
      this.search.fields, this.search.chips, this.empty, this.grid, this.end, this.bar, this.notice, this.details.element);
    this.stop = watch(id => this.changed(id));
    this.pager = new IntersectionObserver(entries => { if (entries.at(-1).isIntersecting) this.more(); }, { rootMargin: `${AHEAD}px` });
    new IntersectionObserver(entries => this.seen(entries.at(-1).isIntersecting)).observe(this);
    this.scrolled = () => { if (this.isSeen && this.offsetParent) this.place = scrollY; };
    addEventListener("scroll", this.scrolled, { passive: true });
    this.drawBar();
  }

  disconnectedCallback() {
    this.stop();
    removeEventListener("scroll", this.scrolled);
  }

  /** The tab was opened or left: it comes back at its place. */
  seen(isSeen) {
    if (isSeen === Boolean(this.isSeen)) return;
    const place = this.place;
    this.isSeen = isSeen;
    if (!isSeen) return;
    if (!this.turn) return this.reload();
    if (place) scrollTo(0, place);
    this.refresh();
    this.search.load().catch(error => this.failed(error));
  }

  // What is listed.

  async reload() {
    const turn = (this.loading = ++this.turn);
    this.tell("");
    this.fresh.hidden = true;
    try {
      if (turn === 1) await this.search.load();
      const page = await ask(`pictures?${this.search.query({ count: COUNT })}`);
      if (turn !== this.turn) return;
      const focused = this.focused()?.id;
      this.items = [];
      this.tiles.clear();
      this.grid.replaceChildren();
      this.select([]);
      this.take(page);
      if (focused) this.focus(this.items.findIndex(picture => picture.id === focused));
    } catch (error) {
      if (turn === this.turn) this.failed(error);
    } finally {
      if (this.loading === turn) this.loading = null;
    }
  }

  async more() {
    const turn = this.turn, last = this.items.at(-1);
    if (this.loading === turn || this.isEnd) return;
    this.loading = turn;
    try {
      const page = await ask(`pictures?${this.search.query({ count: COUNT, ...(last && { before: last.id }) })}`);
      if (turn === this.turn) this.take(page);
    } catch (error) {
      this.failed(error);
    } finally {
      if (this.loading === turn) this.loading = null;
    }
  }

  take(page) {
    this.isEnd = page.next === null;
    this.insert(page.pictures, this.items.length);
    // What a link opened may be shown before its neighbours are known.
    if (this.details.picture) this.details.draw();
    // Asks again at once where the end is still near.
    this.pager.unobserve(this.end);
    if (!this.isEnd) this.pager.observe(this.end);
  }

  insert(pictures, at) {
    const fresh = pictures.filter(picture => !this.tiles.has(picture.id)), next = this.items[at];
    this.items.splice(at, 0, ...fresh);
    for (const picture of fresh) this.tiles.set(picture.id, tileOf(picture));
    const tiles = fresh.map(picture => this.tiles.get(picture.id));
    if (next) this.tiles.get(next.id).before(...tiles);
    else this.grid.append(...tiles);
    this.tidy();
  }

  /** After a change of what is listed: one stop of the tabulator, and a word where nothing is. */
  tidy() {
    if (!this.grid.querySelector(".open[tabindex='0']")) this.grid.querySelector(".open")?.setAttribute("tabindex", "0");
    this.empty.hidden = this.items.length > 0;
    this.all.hidden = !this.items.length || this.search.isTrash;
    this.all.href = new URL(`archive?${this.search.query()}`, api).href;
    this.drawBar();
    if (this.empty.hidden) return;
    this.empty.replaceChildren(make("p", {}, say(this.search.isNarrowed ? "gallery_none" : "gallery_empty")),
      ...(this.search.isNarrowed ? [make("button", { type: "button", onclick: () => this.search.clear() }, say("gallery_show_all"))] : []));
  }

  /** Takes over what has changed of pictures. */
  update(pictures) {
    for (const picture of pictures) {
      const at = this.items.findIndex(one => one.id === picture.id), tile = this.tiles.get(picture.id);
      if (at < 0) continue;
      this.items[at] = picture;
      mark(tile, picture);
    }
    const shown = pictures.find(picture => picture.id === this.details.picture?.id);
    if (shown) {
      this.details.picture = shown;
      this.details.draw();
    }
    this.drawBar();
  }

  /** Leaves pictures out; a picture that is shown gives way to the next one. */
  leaveOut(pictures) {
    const shown = pictures.find(picture => picture.id === this.details.picture?.id);
    const next = shown && (this.next(shown, 1) ?? this.next(shown, -1));
    const focused = this.items.indexOf(this.focused());
    const ids = new Set(pictures.map(picture => picture.id));
    this.items = this.items.filter(picture => !ids.has(picture.id));
    for (const id of ids) {
      this.tiles.get(id)?.remove();
      this.tiles.delete(id);
    }
    this.select([...this.selected].filter(id => !ids.has(id)));
    this.tidy();
    if (next) this.show(next);
    else if (shown) this.details.element.close();
    else if (focused >= 0) this.focus(Math.min(focused, this.items.length - 1));
    if (!this.items.length) this.more();
  }

  // New pictures.

  changed(id) {
    if (!this.turn || this.search.isTrash) return;
    const isNew = id === null ? online() : known(id)?.pictures.some(picture => !this.tiles.has(picture.id));
    if (isNew && this.isSeen) this.timer ||= setTimeout(() => { this.timer = 0; this.refresh(); }, 300);
  }

  /** Asks for what was made since; it comes into the grid at once only where nobody looks at it. */
  async refresh() {
    if (this.search.isTrash) return;
    const turn = this.turn;
    try {
      const page = await ask(`pictures?${this.search.query({ count: COUNT })}`);
      if (turn !== this.turn) return;
      const listed = page.pictures.findIndex(picture => this.tiles.has(picture.id));
      this.waiting = listed < 0 ? page.pictures : page.pictures.slice(0, listed);
      this.fresh.hidden = !this.waiting.length;
      this.fresh.textContent = say("gallery_fresh", { count: this.waiting.length });
      const isLookedAt = this.items.length && (this.details.isOpen || this.selected.size || this.grid.matches(":hover, :focus-within") || this.grid.getBoundingClientRect().top < 0);
      if (this.waiting.length && !isLookedAt) this.takeFresh();
    } catch (error) {
      this.failed(error);
    }
  }

  takeFresh() {
    this.fresh.hidden = true;
    if (this.waiting.length === COUNT) this.reload();  // there may be more between these and what is listed
    else this.insert(this.waiting, 0);
    if (this.grid.getBoundingClientRect().top < 0) scrollTo(0, 0);
  }

  // What is done with pictures.

  async act(work) {
    try {
      return await work();
    } catch (error) {
      this.failed(error);
      return null;
    }
  }

  favour(pictures) {
    const favourite = !pictures.every(picture => picture.favourite);
    return this.act(async () => {
      this.update(await Promise.all(pictures.map(picture => ask(`pictures/${picture.id}`, { method: "PATCH", json: { favourite } }))));
      if (favourite && this.search.place === "favourites") await this.reload();  // opened meanwhile
    });
  }

  remove(pictures) {
    if (this.search.isTrash || !pictures.length) return;
    return this.act(async () => {
      const places = pictures.map(picture => [this.items.findIndex(one => one.id === picture.id), picture]).sort(([one], [other]) => one - other);
      await this.post("trash", pictures);
      this.leaveOut(pictures);
      this.tell(say("gallery_trashed", { count: pictures.length }), () => this.undo(places));
      await this.search.load();
    });
  }

  async undo(places) {
    await this.act(async () => {
      const restored = await this.post("trash/restore", places.map(([, picture]) => picture));
      for (const [at, picture] of places)
        if (at >= 0) this.insert(restored.filter(one => one.id === picture.id), Math.min(at, this.items.length));
      this.tell(say("gallery_restored", { count: restored.length }));
      if (this.details.isOpen) this.show(restored[0]);
      await this.search.load();
    });
  }

  restore(pictures) {
    return this.act(async () => {
      await this.post("trash/restore", pictures);
      this.leaveOut(pictures);
      this.tell(say("gallery_restored", { count: pictures.length }));
    });
  }

  async emptyTrash() {
    if (!(await question(this, say("gallery_empty_sure")))) return;
    await this.act(() => ask("trash", { method: "DELETE" }));
    this.reload();
  }

  addToBoard(pictures) {
    return this.act(async () => {
      const id = await this.search.choose(this.details.isOpen ? this.details.element : this);
      if (!id) return;
      const board = await ask(`boards/${id}`, { method: "PATCH", json: { add: pictures.map(picture => picture.id) } });
      this.tell(say("gallery_added", { name: board.name }));
      await this.search.load();
    });
  }

  takeOff(pictures, board) {
    return this.act(async () => {
      await ask(`boards/${board.id}`, { method: "PATCH", json: { remove: pictures.map(picture => picture.id) } });
      if (this.search.place === board.id) this.leaveOut(pictures);
      await this.search.load();
    });
  }

  post(path, pictures) { return ask(path, { method: "POST", json: { pictures: pictures.map(picture => picture.id) } }); }

  /** A sentence at the screen's edge for a while, with a button that takes back what it tells. */
  tell(text, undo = null) {
    clearTimeout(this.telling);
    if (text) this.telling = setTimeout(() => this.notice.replaceChildren(), undo ? UNDO_SHOWN : TOLD);
    (this.details.isOpen ? this.details.element : this).append(this.notice);
    this.notice.replaceChildren(...(text ? [make("span", { role: "status" }, text)] : []),
      ...(undo ? [make("button", { type: "button", onclick: undo }, say("gallery_undo"))] : []));
  }

  failed(error) {
    this.tell("");
    this.notice.replaceChildren(make("p", { role: "alert", className: "seesr-error" }, error.message));
  }

  // One that is shown.

  next(picture, step) {
    const at = this.items.findIndex(one => one.id === picture.id);
    return at < 0 ? undefined : this.items[at + step];
  }

  show(picture) {
    // The way back closes what was opened.
    const link = `#picture=${picture.id}`;
    if (location.hash !== link) history[this.details.isOpen ? "replaceState" : "pushState"](history.state, "", link);
    return this.act(() => this.details.show(picture));
  }

  /** Opens a picture that a link names; it need not be listed. */
  link(id) {
    return this.act(async () => this.show(this.items.find(picture => picture.id === id) ?? (await ask(`pictures/${id}`))));
  }

  closed(picture) {
    if (LINK.test(location.hash)) history.replaceState(history.state, "", "#tab=gallery");
    this.append(this.notice);
    if (picture && this.isSeen && this.tiles.has(picture.id)) this.focus(this.items.findIndex(one => one.id === picture.id));
  }

  // The grid by mouse, finger and keyboard.

  pictureOf(element) {
    const id = element?.closest?.("[data-picture]")?.dataset.picture;
    return id && this.items.find(picture => picture.id === id);
  }

  focused() { return this.pictureOf(document.activeElement); }

  focus(at) {
    const picture = this.items[at];
    if (!picture) return;
    this.grid.querySelector(".open[tabindex='0']")?.setAttribute("tabindex", "-1");
    const button = this.tiles.get(picture.id).querySelector(".open");
    button.setAttribute("tabindex", "0");
    button.focus({ preventScroll: true });
    button.scrollIntoView({ block: "nearest" });
    if (at > this.items.length - COUNT / 4) this.more();
  }

  click(event) {
    const picture = this.pictureOf(event.target), button = event.target.closest("button, input");
    if (!picture || !button) return;
    if (button.matches(".star")) return this.favour([picture]);
    if (button.matches(".open") && !event.ctrlKey && !event.metaKey && !event.shiftKey && !(this.selected.size && event.detail)) return this.show(picture);
    this.toggle(picture, event.shiftKey);
  }

  toggle(picture, isRange = false) {
    const at = this.items.indexOf(picture), from = this.items.findIndex(one => one.id === this.anchor);
    const ids = new Set(this.selected);
    if (isRange && from >= 0)
      for (const one of this.items.slice(Math.min(at, from), Math.max(at, from) + 1)) ids.add(one.id);
    else if (!ids.delete(picture.id)) ids.add(picture.id);
    this.anchor = picture.id;
    this.select(ids);
  }

  select(ids) {
    this.selected = new Set(ids);
    for (const [id, tile] of this.tiles) {
      tile.querySelector("input").checked = this.selected.has(id);
      tile.classList.toggle("selected", this.selected.has(id));
    }
    this.classList.toggle("selecting", this.selected.size > 0);
    this.drawBar();
  }

  key(event) {
    const picture = this.focused();
    if (!picture || event.altKey) return;
    const at = this.items.indexOf(picture), columns = getComputedStyle(this.grid).gridTemplateColumns.split(" ").length;
    const chosen = () => (this.selected.size ? this.chosen() : [picture]);
    const act = event.ctrlKey || event.metaKey ? { a: () => this.select(this.tiles.keys()) }[event.key] : {
      ArrowLeft: () => this.focus(at - 1),
      ArrowRight: () => this.focus(at + 1),
      ArrowUp: () => this.focus(at - columns),
      ArrowDown: () => this.focus(Math.min(at + columns, this.items.length - 1)),
      Home: () => this.focus(0),
      End: () => this.focus(this.items.length - 1),
      " ": () => this.toggle(picture, event.shiftKey),
      f: () => this.favour(chosen()),
      Delete: () => this.remove(chosen()),
      Escape: () => this.select([]),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  chosen() { return this.items.filter(picture => this.selected.has(picture.id)); }

  /** The tools for what is selected. */
  drawBar() {
    const pictures = this.chosen(), board = this.search.board;
    const tools = [];
    if (this.search.isTrash) {
      if (pictures.length) tools.push(named("gallery_restore", () => this.restore(pictures)));
      if (this.items.length) tools.push(named("gallery_empty_trash", () => this.emptyTrash()));
    } else if (pictures.length) {
      const query = pictures.map(picture => `id=${picture.id}`).join("&");
      tools.push(
        pictures.length > ARCHIVED
          ? named("download", () => this.failed(new Error(say("gallery_many", { count: pictures.length, limit: ARCHIVED }))))
          : make("a", { href: new URL(`archive?${query}`, api).href, download: "", className: "button" }, say("download")),
        named("gallery_favour", () => this.favour(pictures)),
        named("gallery_add", () => this.addToBoard(pictures)),
        ...(board ? [named("gallery_take", () => this.takeOff(pictures, board))] : []),
        named("gallery_compare", () => this.details.compare(pictures.toReversed()), { disabled: pictures.length !== 2 }),
        named("gallery_delete", () => this.remove(pictures)));
    }
    if (pictures.length)
      tools.unshift(
        make("button", { type: "button", title: say("gallery_unselect"), "aria-label": say("gallery_unselect"), onclick: () => this.select([]) }, "×"),
        make("span", { role: "status" }, say("gallery_selected", { count: pictures.length })));
    this.bar.hidden = !tools.length;
    this.bar.replaceChildren(...tools);
  }
}

function tileOf(picture) {
  const tile = make("li", { "data-picture": picture.id },
    make("button", { type: "button", className: "open", tabIndex: -1 }, make("img", { src: thumbnailUrl(picture.id), alt: "", loading: "lazy", onerror: event => event.target.classList.add("gone"), draggable: false })),
    make("label", { className: "check" }, make("input", { type: "checkbox", tabIndex: -1, "aria-label": say("gallery_select") })),
    make("button", { type: "button", className: "star", tabIndex: -1, "aria-label": say("gallery_favour") }));
  mark(tile, picture);
  return tile;
}

function mark(tile, picture) {
  const [open, star] = tile.querySelectorAll("button"), title = titleOf(picture);
  open.setAttribute("aria-label", title);
  open.title = title.slice(0, 300);
  star.hidden = Boolean(picture.trashed);
  star.setAttribute("aria-pressed", `${picture.favourite}`);
  star.textContent = picture.favourite ? "★" : "☆";
}

customElements.define("seesr-gallery", Gallery);

/** Follows a link to a picture, once the tab is there. */
async function follow() {
  const id = LINK.exec(location.hash)?.[1];
  const find = () => document.querySelector("seesr-gallery");
  if (!id) return find()?.details?.isOpen && find().details.picture && find().details.element.close();
  while (!document.querySelector("#tab-gallery-button")) await new Promise(done => setTimeout(done, 50));
  openTab("gallery");
  while (!find()?.offsetParent) await new Promise(done => setTimeout(done, 50));
  await find().link(id);
}

addEventListener("hashchange", follow);
follow();
