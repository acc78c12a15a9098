// An input for each field of a JSON body, from its schema. A control has an `element` and `show(value)`, and calls
// `put(path, value)` on changes; undefined removes the field.

import { defaultOf, menuFor } from "./menus.js";
import { fold, make } from "./dom.js";
import { fromText, isNumber } from "./json.js";
import { pictureChooser } from "./pictures.js";
import { defaultText } from "./reference.js";
import { isPicture, plain } from "./session.js";

// Fields that are not collapsed.
const COMMON = [
  "prompt",
  "negative_prompt",
  "input_image",
  "image",
  "file",
  "mask",
  "denoising_strength",
  "model_name",
  "width",
  "height",
  "steps",
  "cfg_scale",
  "sampler_name",
  "scheduler",
  "seed",
  "batch_size",
  "upscaler",
  "upscaler_model",
  "upscale_factor",
  "output_format",
  "lora_name",
  "model",
  "preprocessor",
  "weight",
  "units",
];

let count = 0;

// The controls of a model. `form` = { put, most, model, boxes }; `boxes` has the input of each path, for errors.
export function modelControls(schema, path, form, required = plain(schema).required || []) {
  const model = plain(schema);
  const controls = Object.entries(model.properties || {}).map(([name, field]) => [
    name,
    control([...path, name], name, field, form, model.title, required.includes(name)),
  ]);
  const few = controls.length <= 8;
  const common = controls.filter(([name]) => few || COMMON.includes(name) || required.includes(name));
  const others = controls.filter((entry) => !common.includes(entry));
  const place = ([name]) => (COMMON.includes(name) ? COMMON.indexOf(name) : COMMON.length);
  common.sort((one, other) => place(one) - place(other));
  const grid = (some) => make("div", { class: "fields" }, ...some.map(([, { element }]) => element));
  return {
    element: make("div", {}, grid(common), others.length ? fold(`${others.length} more fields`, grid(others)) : null),
    show: (value) => controls.forEach(([name, { show }]) => show(value?.[name], value)),
  };
}

function control(path, name, field, form, owner, required) {
  const schema = plain(field);
  if (isPicture(field)) return pictureControl(path, name, field, form, required);
  if (schema.type === "array" && schema.items && plain(schema.items).properties)
    return listControl(path, name, schema.items, form);
  if (schema.properties) return objectControl(path, name, schema, form);
  if (schema.type === "object") return graphControl(path, name, field, form);
  if (schema.type === "boolean" || schema.enum) return choiceControl(path, name, schema, field, form);
  return textControl(path, name, schema, field, form, owner, required);
}

function labelled(name, field, required, ...inside) {
  return make(
    "label",
    { class: required ? "required" : "", title: field.description || plain(field).description },
    make("span", {}, name),
    ...inside,
  );
}

function textControl(path, name, schema, field, form, owner, required) {
  const numeric = ["integer", "number"].includes(schema.type);
  const long = /prompt$/.test(name);
  const list = menuFor(name, owner);
  const box = make("input", {
    list,
    spellcheck: "false",
    autocomplete: "off",
    id: `box-${++count}`,
    inputmode: numeric ? "decimal" : undefined,
    oninput: () => form.put(path, parseInput(box.value)),
  });
  const parseInput = (text) => {
    if (text === "") return undefined;
    if (schema.type === "array")
      return text
        .split(",")
        .map((part) => part.trim())
        .filter(Boolean);
    return numeric ? fromText(text) : text;
  };
  form.boxes.set(path.join("."), box);
  return {
    element: make("div", { class: long ? "wide" : "" }, labelled(name, field, required, box)),
    show(value, siblings) {
      const text =
        value === undefined || value === null
          ? ""
          : isNumber(value) || typeof value !== "object"
            ? textOf(value)
            : (value.join?.(", ") ?? JSON.stringify(value));
      if (document.activeElement !== box) box.value = text;
      const usual = path.length === 1 ? defaultOf(name, siblings?.model_name) : undefined;
      box.placeholder = usual !== undefined && usual !== null ? `default: ${usual}` : placeholderText(field);
    },
  };
}

// The placeholder with the default; "" if there is none, or an empty text.
const placeholderText = (field) =>
  /^("")?$/.test(defaultText(field)) ? "" : `default: ${defaultText(field).replace(/"/g, "")}`;
const textOf = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));

function choiceControl(path, name, schema, field, form) {
  const words = schema.enum || ["true", "false"];
  const empty = placeholderText(field) || "default";
  const box = make(
    "select",
    { oninput: () => form.put(path, box.value === "" ? undefined : schema.enum ? box.value : box.value === "true") },
    make("option", { value: "" }, empty),
    ...words.map((word) => make("option", {}, word)),
  );
  form.boxes.set(path.join("."), box);
  return {
    element: make("div", {}, labelled(name, field, false, box)),
    show: (value) => {
      box.value = value === undefined || value === null ? "" : String(value);
    },
  };
}

function pictureControl(path, name, field, form, required) {
  const box = make("input", {
    spellcheck: "false",
    autocomplete: "off",
    placeholder: "a file, or the name of an upload",
    oninput: () => form.put(path, box.value === "" ? undefined : box.value),
  });
  const chooser = pictureChooser(path.join("."), form.most, (text) => form.put(path, text || undefined));
  form.boxes.set(path.join("."), box);
  return {
    element: make("div", { class: "wide" }, labelled(name, field, required, box), chooser.element),
    show(value) {
      const isData = typeof value === "string" && value.startsWith("data:");
      if (document.activeElement !== box) box.value = isData ? "" : (value ?? "");
      box.placeholder = isData ? "the picture below" : "a file, or the name of an upload";
      chooser.show(value);
    },
  };
}

// A graph is read from a file. It can also be pasted into the JSON below.
function graphControl(path, name, field, form) {
  const note = make("span", { class: "note", role: "alert" });
  const box = make("input", {
    type: "file",
    accept: ".json,application/json",
    onchange: async (event) => {
      event.stopPropagation();
      try {
        form.put(path, box.files[0] ? JSON.parse(await box.files[0].text()) : undefined);
        note.textContent = "";
      } catch (error) {
        note.textContent = `${box.files[0].name} is not JSON: ${error.message}`;
      }
    },
  });
  form.boxes.set(path.join("."), box);
  return {
    element: make("div", { class: "wide" }, labelled(name, field, false, box), note),
    show: (value) => {
      if (!value) box.value = "";
    },
  };
}

function objectControl(path, name, schema, form) {
  const inner = modelControls(schema, path, form, []);
  const details = fold(name, inner.element, { class: "nested" });
  return {
    element: make("div", { class: "wide" }, details),
    show(value) {
      if (value) details.open = true;
      inner.show(value);
    },
  };
}

function listControl(path, name, items, form) {
  let inner = [];
  let length = 0;
  const rows = make("div", {});
  const add = make("button", { type: "button", onclick: () => form.put([...path, length], {}) }, `Add to ${name}`);
  const build = (newLength) => {
    length = newLength;
    inner = Array.from({ length }, (_, index) => modelControls(items, [...path, index], form, []));
    rows.replaceChildren(
      ...inner.map(({ element }, index) =>
        make(
          "fieldset",
          {},
          make("legend", {}, `${name}[${index}]`),
          element,
          make("button", { type: "button", onclick: () => form.put([...path, index], undefined) }, "Remove"),
        ),
      ),
    );
  };
  const details = fold(name, make("div", {}, rows, add), { class: "nested" });
  return {
    element: make("div", { class: "wide" }, details),
    show(value) {
      const values = Array.isArray(value) ? value : [];
      if (values.length !== length) build(values.length);
      if (values.length) details.open = true;
      inner.forEach(({ show }, index) => show(values[index]));
    },
  };
}
