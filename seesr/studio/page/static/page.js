// The page's script: elements that Gradio does not have, and what its handlers call as `seesr`.
//
// seesr-header, seesr-footer   brand and user; the queue in one line
// seesr-drop                   pictures that are uploaded; with `mask` the mask is painted on it
// seesr-view                   the result: preview, progress, pictures; with `compare` before and after
// seesr-tokens, seesr-cards    the prompt's length; LoRAs and embeddings that put themselves into it
// seesr-choices, seesr-controls   checkpoint and VAE; units of ControlNet
// seesr-cancel, seesr-queue    ends the tab's jobs; all jobs
// seesr-settings               offers the settings in a picture's file
// seesr-sheet                  the table of a plot
// seesr-extras                 what a picture's file says, and its tags
// seesr-gallery                finished pictures
// seesr-models, seesr-preferences  what is fetched and removed; preferences, keys, users
// seesr-welcome                which upscaling model is here, until it is dismissed

import { get, put, set } from "./state.js";
import { lastSeed } from "./view.js";
import { settled } from "./drop.js";
import { filled, fillFrom, fillFromPicture } from "./settings.js";
import "./extras.js";
import "./sheet.js";
import { nativeSide } from "./choices.js";
import { controlsSettled } from "./controls.js";
import "./prompt.js";
import "./frame.js";
import "./retry.js";
import "./queue.js";
import "./models.js";
import "./preferences.js";
import "./gallery.js";

/** Fields that elements of ours write; the others' values come from Gradio. */
const OWN = ["pictures", "mask", "jobs", "checkpoint", "vae", "controls"];

/** The inputs of a handler, with what is still being uploaded. */
async function collect(tab, names, values) {
  await settled(tab);
  await controlsSettled(tab);
  return values.map((value, index) => (OWN.includes(names[index]) ? get(tab, names[index]) : value));
}

/** Sides in a ratio with as many pixels as before, in steps of 64, of small pictures 8. */
function ratio(tab, width, height, across, down) {
  const native = nativeSide(tab) ?? 512, area = (width || native) * (height || native), unit = area < 256 * 256 ? 8 : 64;
  const side = part => Math.min(2048, Math.max(64, Math.round(Math.sqrt(area * part) / unit) * unit));
  return [side(across / down), side(down / across)];
}

Object.assign(window.seesr, { set, put, collect, ratio, lastSeed, filled, fillFrom, fillFromPicture });
for (const values of window.seesr.early) set(...values);
