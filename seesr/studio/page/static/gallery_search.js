// Which pictures the gallery shows: a place (all, favourites, the trash or a board), words of the prompt, and filters.

import { ask, make, say } from "./state.js";
import { question } from "./question.js";

const PAUSE = 300;
const day = (text, days = 0) => {
  const date = new Date(`${text}T00:00`);
  date.setDate(date.getDate() + days);
  return date.toISOString();
};

export class GallerySearch {
  /** `changed` is called when other pictures are wanted, `failed` with an Error. */
  constructor(changed, failed) {
    this.changed = changed;
    this.failed = failed;
    this.place = "all";
    this.boards = [];
    const later = () => { clearTimeout(this.timer); this.timer = setTimeout(changed, PAUSE); };
    const field = (key, input) => make("label", {}, make("span", {}, say(key)), input);
    this.words = make("input", { type: "search", maxLength: 500, placeholder: say("gallery_search"), "aria-label": say("gallery_search"), oninput: later });
    this.tagNames = make("datalist", { id: "gallery-tags" });
    this.tags = make("input", { type: "text", placeholder: say("gallery_commas"), onchange: changed });
    this.tags.setAttribute("list", "gallery-tags");
    this.lora = make("select", { onchange: changed });
    this.checkpoint = make("select", { onchange: changed });
    this.since = make("input", { type: "date", onchange: changed });
    this.until = make("input", { type: "date", onchange: changed });
    this.fields = make("div", { className: "filters", hidden: true }, this.tagNames,
      field("tags", this.tags), field("gallery_lora", this.lora), field("gallery_checkpoint", this.checkpoint),
      field("gallery_since", this.since), field("gallery_until", this.until));
    this.fold = make("button", { type: "button", "aria-expanded": "false", onclick: () => this.toggle() }, say("gallery_filters"));
    this.chips = make("div", { className: "chips", role: "group", "aria-label": say("gallery_boards") });
    this.reset = make("button", { type: "button", className: "quiet", hidden: true, onclick: () => this.clear() }, say("gallery_clear"));
    this.clearTerms();
  }

  get isTrash() { return this.place === "trash"; }
  get board() { return this.boards.find(board => board.id === this.place); }
  get isNarrowed() { return this.place !== "all" || [this.words, ...this.fields.querySelectorAll("input, select")].some(field => field.value); }

  /** The search as the API takes it. */
  query(more = {}) {
    const used = [...this.fields.querySelectorAll("input, select")].filter(field => field.value).length;
    this.fold.textContent = used ? `${say("gallery_filters")} (${used})` : say("gallery_filters");
    this.reset.hidden = !used && !this.words.value;
    const query = new URLSearchParams(more);
    const add = (name, value) => { if (value) query.append(name, value); };
    add("words", this.words.value.trim());
    for (const tag of this.tags.value.split(",")) add("tag", tag.trim());
    add("lora", this.lora.value);
    add("checkpoint", this.checkpoint.value);
    add("since", this.since.value && day(this.since.value));
    add("until", this.until.value && day(this.until.value, 1));
    add("favourite", this.place === "favourites" && "true");
    add("trash", this.isTrash && "true");
    add("board", this.board?.id);
    return query;
  }

  clear() {
    for (const field of [this.words, ...this.fields.querySelectorAll("input, select")]) field.value = "";
    this.go("all");
  }

  go(place) {
    this.place = place;
    this.drawChips();
    this.changed();
  }

  async load() {
    this.boards = await ask("boards");
    if (!["all", "favourites", "trash"].includes(this.place) && !this.board) this.place = "all";
    this.drawChips();
  }

  drawChips() {
    const chip = (place, label) =>
      make("button", { type: "button", "aria-pressed": `${place === this.place}`, onclick: () => this.go(place) }, label);
    const tool = (key, work) => make("button", { type: "button", className: "quiet", onclick: () => this.change(work) }, say(key));
    const tools = [tool("gallery_new_board", () => this.make())];
    if (this.board) tools.push(tool("gallery_rename", () => this.rename()), tool("gallery_remove_board", () => this.remove()));
    this.chips.replaceChildren(
      chip("all", say("gallery_all")), chip("favourites", `★ ${say("gallery_favourites")}`), chip("trash", say("gallery_trash")),
      ...this.boards.map(board => chip(board.id, `${board.name} (${board.count})`)), ...tools);
  }

  async change(work) {
    try {
      const place = await work();
      await this.load();
      if (place) this.go(place);
    } catch (error) {
      this.failed(error);
    }
  }

  async make() {
    const answer = await question(this.chips.parentElement, say("gallery_new_board"), { line: say("gallery_board_name") });
    return answer && (await ask("boards", { method: "POST", json: { name: answer.line } })).id;
  }

  async rename() {
    const { id, name } = this.board;
    const answer = await question(this.chips.parentElement, say("gallery_rename"), { line: say("gallery_board_name"), value: name });
    if (answer) await ask(`boards/${id}`, { method: "PATCH", json: { name: answer.line } });
  }

  async remove() {
    const { id, name } = this.board;
    if (!(await question(this.chips.parentElement, say("gallery_remove_board_sure", { name })))) return null;
    await ask(`boards/${id}`, { method: "DELETE" });
    return "all";
  }

  /** A board for pictures, a new one if one is asked for; null without. */
  async choose(parent) {
    const choices = this.boards.map(board => [board.id, board.name]);
    const answer = await question(parent, say("gallery_add"), { choices, line: say("gallery_new_board") });
    if (!answer) return null;
    return answer.choice ?? (await ask("boards", { method: "POST", json: { name: answer.line } })).id;
  }

  async toggle() {
    this.fields.hidden = !this.fields.hidden;
    this.fold.setAttribute("aria-expanded", `${!this.fields.hidden}`);
    if (this.fields.hidden) return;
    try {
      const [tags, loras, checkpoints] = await Promise.all(["tag", "lora", "checkpoint"].map(kind => ask(`terms?kind=${kind}`)));
      this.clearTerms();
      const option = ({ name }) => make("option", { value: name }, name);
      this.tagNames.replaceChildren(...tags.map(option));
      this.lora.append(...loras.map(option));
      this.checkpoint.append(...checkpoints.map(option));
    } catch (error) {
      this.failed(error);
    }
  }

  clearTerms() {
    for (const select of [this.lora, this.checkpoint])
      select.replaceChildren(make("option", { value: "" }, say("gallery_any")), ...(select.value ? [make("option", { value: select.value, selected: true }, select.value)] : []));
  }
}
