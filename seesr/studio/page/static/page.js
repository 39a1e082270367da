// The page's script: elements that Gradio does not have, and what its handlers call as `seesr`.
//
// seesr-header, seesr-footer   brand and user; the queue in one line
// seesr-drop                   pictures that are uploaded; with `mask` the mask is painted on it
// seesr-view                   the result: preview, progress, pictures; with `compare` before and after
// seesr-cancel, seesr-queue    ends the tab's jobs; all jobs
// seesr-models, seesr-preferences  what is fetched and removed; preferences, keys, users
// seesr-welcome                which upscaling model is here, until it is dismissed

import { get, put, set } from "./state.js";
import { lastSeed } from "./view.js";
import { settled } from "./drop.js";
import "./frame.js";
import "./queue.js";
import "./models.js";
import "./preferences.js";

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

Object.assign(window.seesr, { set, put, collect, ratio, lastSeed });
for (const values of window.seesr.early) set(...values);
