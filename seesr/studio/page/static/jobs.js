// The user's jobs as the page knows them, kept up to date by one stream of events.

import { api, ask } from "./state.js";

export const ENDED = ["done", "failed", "cancelled", "interrupted"];
const jobs = new Map(), watchers = new Set();
let isOnline = true;

/** Calls a function with the id of each job that changes, or null when all may have. */
export function watch(watcher) {
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

const changed = id => { for (const watcher of watchers) watcher(id); };
export const known = id => jobs.get(id);
export const online = () => isOnline;

/** A job, asked for if it is not known; null of one that is gone. */
export async function fetchJob(id) {
  try {
    return keep(await ask(`jobs/${id}`));
  } catch {
    jobs.delete(id);
    return null;
  }
}

export function keep(job) {
  // An answer that was overtaken by one that came later: a job that has ended stays as it is.
  if (ENDED.includes(jobs.get(job.id)?.state) && !ENDED.includes(job.state)) return jobs.get(job.id);
  jobs.set(job.id, { ...job, live: jobs.get(job.id)?.live ?? {} });
  changed(job.id);
  return jobs.get(job.id);
}

export const cancel = async id => keep(await ask(`jobs/${id}`, { method: "DELETE" }));
export const skip = id => ask(`jobs/${id}/skip`, { method: "POST" });

function take(message) {
  const { job: id, kind, data, preview } = message;
  const job = jobs.get(id);
  if (!job) {
    // It may be asked for at this moment, with an answer from before this event.
    if (["started", "picture", "done", "failed", "cancelled"].includes(kind)) fetchJob(id);
    return;
  }
  if (["started", "done", "failed", "cancelled"].includes(kind)) {
    fetchJob(id);
    for (const other of jobs.values()) if (other.state === "pending" && other.id !== id) fetchJob(other.id);
    return;
  }
  if (kind === "progress") job.live.progress = data;
  if (kind === "preview") job.live.preview = `data:${data.media_type};base64,${preview}`;
  if (kind === "tags") job.live.tags = data.tags;
  if (kind === "picture" && !job.pictures.some(one => one.id === data.id)) {
    job.pictures = [...job.pictures, data];
    job.live.preview = null;
  }
  if (job.state === "pending") job.state = "running";
  changed(id);
}

function listen() {
  const stream = new EventSource(new URL("events", api));
  stream.onmessage = event => take(JSON.parse(event.data));
  stream.onopen = () => {
    isOnline = true;
    for (const job of jobs.values()) if (!ENDED.includes(job.state)) fetchJob(job.id);
    changed(null);
  };
  stream.onerror = () => {
    isOnline = false;
    changed(null);
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  };
}

listen();
