// The page's script: elements that Gradio does not have, and what its handlers call as `seesr`.
//
// seesr-header, seesr-footer   brand and user; the queue in one line
// seesr-drop                   pictures that are uploaded; with `mask` the mask is painted on it
// seesr-view                   the result: preview, progress, pictures; with `compare` before and after
// seesr-cancel, seesr-queue    ends the tab's jobs; all jobs
// seesr-settings               offers the settings in a picture's file
// seesr-sheet                  the table of a plot
// seesr-extras                 what a picture's file says, and its tags
// seesr-gallery                finished pictures

import { get, put, set } from "./state.js";
import { lastSeed } from "./view.js";
import { settled } from "./drop.js";
import { filled, fillFrom, fillFromPicture } from "./settings.js";
import "./extras.js";
import "./sheet.js";
import "./frame.js";
import "./queue.js";
import "./gallery.js";

/** The inputs of a handler, with what is still being uploaded. */
async function collect(tab, names, values) {
  await settled(tab);
  return values.map((value, index) => (["pictures", "mask", "jobs"].includes(names[index]) ? get(tab, names[index]) : value));
}

/** Sides in a ratio with as many pixels as before, in steps of 64. */
function ratio(width, height, across, down) {
  const area = (width || 512) * (height || 512);
  const side = part => Math.min(2048, Math.max(64, Math.round(Math.sqrt(area * part) / 64) * 64));
  return [side(across / down), side(down / across)];
}

Object.assign(window.seesr, { set, put, collect, ratio, lastSeed, filled, fillFrom, fillFromPicture });
for (const values of window.seesr.early) set(...values);
