// A running job: its events, a progress bar, and a button to cancel it.

import { make } from "./dom.js";
import { parse } from "./json.js";
import { call, callJson, relativeUrl } from "./session.js";

const LAST_EVENTS = ["completed", "failed", "cancelled"];
const EVENTS = ["queued", "started", "progress", "preview", "image", ...LAST_EVENTS];
// Attempts to reconnect after a connection broke.
const MAX_RETRIES = 5;

// The events of a response as { name, id, data }.
export async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    const blocks = (rest + piece.value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(
        block.split("\n").map((line) => [line.split(":")[0], line.slice(line.indexOf(":") + 1).trim()]),
      );
      if (fields.event) yield { name: fields.event, id: fields.id, data: parse(fields.data) };
    }
  }
}

// The events of a stream until its last one. Reconnects if the connection breaks.
export async function* jobEvents(response) {
  let job = response.headers.get("X-Job-Id");
  let last = 0;
  let tries = 0;
  for (let current = response; current; current = await reconnect()) {
    try {
      for await (const event of eventsOf(current)) {
        [job, last, tries] = [event.data.job_id || job, event.id || last, 0];
        yield event;
        if (LAST_EVENTS.includes(event.name)) return;
      }
    } catch (error) {
      if (error.name === "AbortError" || !job) throw error;
    }
  }
  async function reconnect() {
    while (job && tries < MAX_RETRIES) {
      tries += 1;
      await new Promise((done) => setTimeout(done, 1000 * tries));
      try {
        const resumed = await call(`/api/jobs/${job}/events?after=${last}`);
        return resumed.status === 200 ? resumed : null;
      } catch {
        /* the service is not back yet */
      }
    }
    return null;
  }
}

// The events of a job by EventSource, which cannot send a key: the URL is signed.
export async function* watchedEvents(url) {
  const source = new EventSource(relativeUrl(url));
  const events = [];
  let wake = () => {};
  const put = (event) => {
    events.push(event);
    wake();
  };
  for (const name of EVENTS)
    source.addEventListener(name, (event) => put({ name, id: event.lastEventId, data: parse(event.data) }));
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) put(null);
  });
  try {
    while (true) {
      while (!events.length)
        await new Promise((done) => {
          wake = done;
        });
      const event = events.shift();
      if (event === null) return;
      yield event;
      if (LAST_EVENTS.includes(event.name)) return;
    }
  } finally {
    source.close();
  }
}

const seconds = (value) =>
  value === undefined || value === null ? "" : `, about ${value < 10 ? value.toFixed(1) : Math.round(value)} s left`;

// The progress of a job. The button calls `abort` until the id of the job is known, then cancels the job.
export class Progress {
  constructor(abort) {
    this.job = null;
    this.bar = make("progress", { max: 1, "aria-label": "Progress" });
    this.status = make("span", {}, "sent");
    this.preview = make("img", { class: "preview", alt: "Preview", hidden: "" });
    this.button = make("button", { type: "button", onclick: () => this.cancel(abort) }, "Cancel");
    this.element = make(
      "div",
      { class: "progress" },
      make("div", { class: "row" }, this.bar, this.status, this.button),
      this.preview,
    );
  }

  async cancel(abort) {
    this.button.disabled = true;
    this.status.textContent = "cancelling ...";
    try {
      if (this.job) await callJson(`/api/jobs/${this.job}`, { method: "DELETE" });
      else abort();
    } catch (error) {
      this.status.textContent = error.message;
      this.button.disabled = false;
    }
  }

  show({ name, data }) {
    this.job = data.job_id || this.job;
    if (name === "queued") this.status.textContent = `queued behind ${data.position}${seconds(data.eta_s)}`;
    if (name === "started") this.status.textContent = "started";
    if (name === "progress") {
      if (data.fraction !== undefined) this.bar.value = data.fraction;
      const steps = data.steps ? ` ${data.step} of ${data.steps}` : "";
      this.status.textContent = `${data.stage}${steps}${seconds(data.eta_s)}`;
    }
    if (name === "preview") {
      this.preview.src = data.image;
      this.preview.hidden = false;
    }
  }
}
