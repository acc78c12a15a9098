// A job as it is drawn: its events, a bar, and a button that cancels it.

import { make } from "./dom.js";
import { parse } from "./exact.js";
import { call, callJson, nearby } from "./session.js";

const LAST = ["completed", "failed", "cancelled"];
const NAMES = ["queued", "started", "progress", "preview", "image", ...LAST];
// Times that a broken connection is taken up again.
const TRIES = 5;

// Events of a response, one after the other, each { name, id, data }.
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

// All events of a stream until its last one, also where the connection breaks on the way.
export async function* jobEvents(response) {
  let job = response.headers.get("X-Job-Id");
  let last = 0;
  let tries = 0;
  for (let current = response; current; current = await again()) {
    try {
      for await (const event of eventsOf(current)) {
        [job, last, tries] = [event.data.job_id || job, event.id || last, 0];
        yield event;
        if (LAST.includes(event.name)) return;
      }
    } catch (error) {
      if (error.name === "AbortError" || !job) throw error;
    }
  }
  async function again() {
    while (job && tries < TRIES) {
      tries += 1;
      await new Promise((done) => setTimeout(done, 1000 * tries));
      try {
        const found = await call(`/api/jobs/${job}/events?after=${last}`);
        return found.status === 200 ? found : null;
      } catch {
        /* not there yet */
      }
    }
    return null;
  }
}

// The same by EventSource, which can send no key: the address is signed.
export async function* watchedEvents(address) {
  const source = new EventSource(nearby(address));
  const events = [];
  let wake = () => {};
  const put = (event) => {
    events.push(event);
    wake();
  };
  for (const name of NAMES)
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
      if (LAST.includes(event.name)) return;
    }
  } finally {
    source.close();
  }
}

const seconds = (value) =>
  value === undefined || value === null ? "" : `, about ${value < 10 ? value.toFixed(1) : Math.round(value)} s left`;

// What is shown of a job that runs. The button calls `cancel` until the job is known, and can be cancelled itself.
export class Progress {
  constructor(cancel) {
    this.job = null;
    this.bar = make("progress", { max: 1, "aria-label": "Progress" });
    this.words = make("span", {}, "sent");
    this.preview = make("img", { class: "preview", alt: "Preview", hidden: "" });
    this.button = make("button", { type: "button", onclick: () => this.cancel(cancel) }, "Cancel");
    this.element = make(
      "div",
      { class: "progress" },
      make("div", { class: "row" }, this.bar, this.words, this.button),
      this.preview,
    );
  }

  async cancel(otherwise) {
    this.button.disabled = true;
    this.words.textContent = "cancelling ...";
    try {
      if (this.job) await callJson(`/api/jobs/${this.job}`, { method: "DELETE" });
      else otherwise();
    } catch (error) {
      this.words.textContent = error.message;
      this.button.disabled = false;
    }
  }

  show({ name, data }) {
    this.job = data.job_id || this.job;
    if (name === "queued") this.words.textContent = `queued, ${data.position} in front${seconds(data.eta_s)}`;
    if (name === "started") this.words.textContent = "started";
    if (name === "progress") {
      if (data.fraction !== undefined) this.bar.value = data.fraction;
      const steps = data.steps ? ` ${data.step} of ${data.steps}` : "";
      this.words.textContent = `${data.stage}${steps}${seconds(data.eta_s)}`;
    }
    if (name === "preview") {
      this.preview.src = data.image;
      this.preview.hidden = false;
    }
  }
}
