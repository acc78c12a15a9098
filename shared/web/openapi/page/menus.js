// Menus: suggestions for fields, as the service lists them now. Other values can still be typed.

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
const values = (list) => list.map((value) => ({ value, label: "" }));
const PLAIN_UPSCALERS = ["Lanczos", "Nearest", "none"];

// The entries of each menu, by its name.
const menus = new Map();
let options = null;
let requests = 0;

// The id of the menu for a field, or for a part of a path; undefined if there is none.
export function menuFor(field, owner) {
  const list = LISTS[`${owner}.${field}`] || LISTS[owner] || LISTS[field];
  return list && `menu-${list}`;
}

const entriesFor = (field, owner) => menus.get((menuFor(field, owner) || "").slice(5)) || [];

export const newest = (field, owner) => entriesFor(field, owner)[0]?.value;

export const isListed = (value, field, owner) => entriesFor(field, owner).some((entry) => entry.value === value);

// The default of a field that depends on the model.
export function defaultOf(field, model) {
  if (!options) return undefined;
  const file = [...options.checkpoints, ...options.diffusion_models].find(({ name }) => name === model);
  return field === "model_name" ? options.defaults.model_name : (file?.defaults || options.defaults)[field];
}

async function fetchOptions() {
  const reply = await callJson("/api/options");
  const checkpoints = names(reply.checkpoints);
  return () => {
    options = reply;
    menus
      .set("models", [...checkpoints, ...names(reply.diffusion_models)])
      .set("checkpoints", checkpoints)
      .set("vaes", [{ value: "automatic", label: "the VAE of the checkpoint" }, ...names(reply.vaes)])
      .set("textEncoders", names(reply.text_encoders))
      .set("samplers", values(reply.samplers))
      .set("schedulers", values(reply.schedulers))
      .set("hiresUpscalers", values(reply.hires_upscalers))
      .set("upscalers", values([...new Set([...reply.upscalers, ...PLAIN_UPSCALERS])]))
      .set("loras", values(reply.loras))
      .set("faceModels", values(["codeformer", "gfpgan", ...reply.face_restoration.models]))
      .set("preprocessors", values(reply.preprocessors))
      .set("controlnets", names(reply.controlnets));
  };
}

async function fetchJobs() {
  const { jobs } = await callJson("/api/jobs?limit=30");
  const entry = (job) => ({
    value: job.job_id,
    label: `${job.kind}, ${job.state}: ${String(job.parameters.prompt || "").slice(0, 60)}`,
  });
  const pictures = jobs.flatMap((job) =>
    job.images.map((url) => ({
      value: decodeURIComponent(new URL(url).pathname.split("/").pop()),
      label: entry(job).label,
    })),
  );
  return () =>
    menus
      .set("jobs", jobs.map(entry))
      .set("runs", jobs.filter((job) => job.state === "completed").map(entry))
      .set("pictures", pictures);
}

async function fetchWorkflows() {
  const { workflows } = await callJson("/api/workflows");
  const entries = workflows.map(({ name, title, error }) => ({ value: name, label: title || error?.message || "" }));
  return () => menus.set("workflows", entries);
}

// Fetches the menus again and dispatches the event `menus`. If a list cannot be fetched, its menus stay as they are.
export async function refreshMenus() {
  const request = ++requests;
  const fetches = [fetchOptions(), fetchJobs(), ...(session.api.paths["/api/workflows"] ? [fetchWorkflows()] : [])];
  const results = await Promise.allSettled(fetches);
  // Replies to an older request may arrive later, and list jobs that were removed since.
  if (request !== requests) return;
  for (const { value: apply } of results) apply?.();
  document.getElementById("menus-note").textContent =
    results[0].status === "fulfilled" ? "" : `The menus may be out of date: ${results[0].reason.message}`;
  const elements = [...menus].map(([name, entries]) =>
    make(
      "datalist",
      { id: `menu-${name}` },
      ...entries.map(({ value, label }) => make("option", { value, label: label || undefined })),
    ),
  );
  document.getElementById("menus").replaceChildren(...elements);
  document.dispatchEvent(new Event("menus"));
}
