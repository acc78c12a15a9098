// Menus: what there is to choose from, as the service tells it now. Anything else can still be typed.

import { make } from "./dom.js";
import { callJson, session } from "./session.js";

const LISTS = {
  model_name: "models",
  refiner_model: "checkpoints",
  vae_name: "vaes",
  text_encoders: "textEncoders",
  sampler_name: "samplers",
  hires_fix_sampler_name: "samplers",
  scheduler: "schedulers",
  hires_fix_scheduler: "schedulers",
  hires_fix_upscaler: "hiresUpscalers",
  upscaler: "upscalers",
  upscaler_model: "upscalers",
  upscaler_model_2: "upscalers",
  lora_name: "loras",
  face_restoration_model: "faceModels",
  preprocessor: "preprocessors",
  "ControlUnitBody.model": "controlnets",
  job_id: "jobs",
  run_id: "runs",
  filename: "pictures",
  "/api/images/{name}": "pictures",
  "/images/{name}": "pictures",
  "/api/workflows/{name}": "workflows",
};

const names = (files) => files.map((file) => ({ value: file.name, label: file.family || file.kind || "" }));
const words = (list) => list.map((value) => ({ value, label: "" }));
const PLAIN = ["Lanczos", "Nearest", "none"];

const found = new Map();
let options = null;

// The id of the menu for a field, or for a part of a path; undefined if there is none.
export function menuFor(field, owner) {
  const list = LISTS[`${owner}.${field}`] || LISTS[owner] || LISTS[field];
  return list && `menu-${list}`;
}

export const newest = (field, owner) => found.get((menuFor(field, owner) || "").slice(5))?.[0]?.value;

// What a field gets that is left out, where that depends on the model.
export function defaultOf(field, model) {
  if (!options) return undefined;
  const chosen = [...options.checkpoints, ...options.diffusion_models].find((file) => file.name === model);
  return field === "model_name" ? options.defaults.model_name : (chosen?.defaults || options.defaults)[field];
}

async function askOptions() {
  options = await callJson("/api/options");
  const checkpoints = names(options.checkpoints);
  found
    .set("models", [...checkpoints, ...names(options.diffusion_models)])
    .set("checkpoints", checkpoints)
    .set("vaes", [{ value: "automatic", label: "the checkpoint's own" }, ...names(options.vaes)])
    .set("textEncoders", names(options.text_encoders))
    .set("samplers", words(options.samplers))
    .set("schedulers", words(options.schedulers))
    .set("hiresUpscalers", words(options.hires_upscalers))
    .set("upscalers", words([...new Set([...options.upscalers, ...PLAIN])]))
    .set("loras", words(options.loras))
    .set("faceModels", words(["codeformer", "gfpgan", ...options.face_restoration.models]))
    .set("preprocessors", words(options.preprocessors))
    .set("controlnets", names(options.controlnets));
}

async function askJobs() {
  const { jobs } = await callJson("/api/jobs?limit=30");
  const entry = (job) => ({
    value: job.job_id,
    label: `${job.kind}, ${job.state}: ${String(job.parameters.prompt || "").slice(0, 60)}`,
  });
  found
    .set("jobs", jobs.map(entry))
    .set("runs", jobs.filter((job) => job.state === "completed").map(entry))
    .set(
      "pictures",
      jobs.flatMap((job) =>
        job.images.map((address) => ({
          value: decodeURIComponent(new URL(address).pathname.split("/").pop()),
          label: entry(job).label,
        })),
      ),
    );
}

async function askWorkflows() {
  const { workflows } = await callJson("/api/workflows");
  found.set(
    "workflows",
    workflows.map((each) => ({ value: each.name, label: each.title || each.error?.message || "" })),
  );
}

// Asks again. Tells who listens (`document`, event `choices`); what is away leaves its menus as they were.
export async function refreshChoices() {
  const questions = [askOptions(), askJobs(), ...(session.api.paths["/api/workflows"] ? [askWorkflows()] : [])];
  const [asked] = await Promise.allSettled(questions);
  document.getElementById("menus-note").textContent =
    asked.status === "fulfilled" ? "" : `The menus may be out of date: ${asked.reason.message}`;
  const menus = [...found].map(([name, entries]) =>
    make(
      "datalist",
      { id: `menu-${name}` },
      ...entries.map(({ value, label }) => make("option", { value, label: label || undefined })),
    ),
  );
  document.getElementById("menus").replaceChildren(...menus);
  document.dispatchEvent(new Event("choices"));
}
