// Editors of a body: JSON with an input for each field next to the text, and a form. Both have an `element`,
// `use(example)`, `content()` -> { body, type, size }, `box(field)`, `refresh()`, and `most`, the limit in bytes.

import { menuFor } from "./menus.js";
import { modelControls } from "./controls.js";
import { fold, make, sizeText } from "./dom.js";
import { parse, write } from "./json.js";
import { fileInput, tooLarge } from "./pictures.js";
import { isFile, isPicture, plain } from "./session.js";

// Longer texts, such as pictures, are abbreviated in the editor, which would be slow with megabytes.
const SHOWN = 400;

const isObject = (value) => Boolean(value) && typeof value === "object" && !JSON.isRawJSON?.(value);

export class JsonBody {
  constructor(schema, most, changed) {
    this.most = most;
    this.boxes = new Map();
    this.long = new Map();
    this.changed = changed;
    this.note = make("p", { class: "note", role: "alert" });
    this.text = make("textarea", {
      spellcheck: "false",
      "aria-label": "Body as JSON",
      rows: 8,
      oninput: () => this.read(),
    });
    this.place = make("div", {});
    this.element = make("div", {}, this.place, make("label", { class: "body" }, "As JSON", this.text), this.note);
    this.describe(schema);
  }

  // Creates the inputs; the fields of a named workflow are known only after it is selected.
  describe(schema) {
    this.boxes.clear();
    this.controls = modelControls(schema, [], {
      put: (path, value) => this.put(path, value),
      most: this.most,
      boxes: this.boxes,
    });
    this.place.replaceChildren(this.controls.element);
    this.refresh();
  }

  use(example) {
    this.write(example.value);
  }

  value() {
    return this.restored(parse(this.text.value));
  }

  // The text with abbreviated texts restored, and otherwise as it was typed.
  fullText() {
    let text = this.text.value;
    for (const [cut, whole] of this.long) text = text.split(write(cut)).join(write(whole));
    return text;
  }

  // A value with abbreviated texts restored.
  restored(value) {
    if (typeof value === "string") return this.long.get(value) ?? value;
    if (Array.isArray(value)) return value.map((item) => this.restored(item));
    if (!isObject(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, this.restored(field)]));
  }

  write(value) {
    this.text.value = write(this.abbreviate(value), 2);
    this.text.rows = Math.min(24, Math.max(4, this.text.value.split("\n").length + 1));
    this.read();
  }

  abbreviate(value) {
    if (typeof value === "string" && value.length > SHOWN) {
      const head = value.slice(0, value.startsWith("data:") ? 40 : SHOWN / 2);
      let cut = `${head} ... (${sizeText(value.length)} in all)`;
      while (this.long.has(cut) && this.long.get(cut) !== value) cut += " ";
      this.long.set(cut, value);
      return cut;
    }
    if (Array.isArray(value)) return value.map((item) => this.abbreviate(item));
    if (isObject(value)) {
      return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, this.abbreviate(field)]));
    }
    return value;
  }

  put(path, value) {
    let whole;
    try {
      whole = this.text.value.trim() ? parse(this.text.value) : {};
    } catch {
      this.read();
      return;
    }
    let place = whole;
    for (const [index, step] of path.slice(0, -1).entries()) {
      if (typeof place[step] !== "object" || place[step] === null)
        place[step] = typeof path[index + 1] === "number" ? [] : {};
      place = place[step];
    }
    const last = path.at(-1);
    if (value !== undefined) place[last] = value;
    else if (Array.isArray(place)) place.splice(last, 1);
    else delete place[last];
    this.write(whole);
  }

  read() {
    this.note.textContent = "";
    this.refresh();
    this.changed();
  }

  refresh() {
    try {
      this.controls.show(this.text.value.trim() ? this.value() : {});
    } catch (error) {
      this.note.textContent = `This is not JSON, and will be sent as it is: ${error.message}`;
    }
  }

  content() {
    const body = this.fullText();
    return { body, type: "application/json", size: new Blob([body]).size };
  }

  problem() {
    return tooLarge(this.content().size, this.most);
  }

  box(field) {
    return this.boxes.get(field.replace(/\[(\d+)\]/g, ".$1")) || this.text;
  }
}

export class FormBody {
  constructor(schema, most, changed) {
    this.most = most;
    this.parts = new Map();
    const model = plain(schema);
    const needed = ["prompt", ...(model.required || [])];
    const rows = Object.entries(model.properties).map(([name, field]) => [
      name,
      this.part(name, field, needed.includes(name)),
    ]);
    const first = rows.filter(([name]) => rows.length <= 8 || needed.includes(name) || isFile(model.properties[name]));
    const others = rows.filter((row) => !first.includes(row));
    const grid = (some) => make("div", { class: "fields" }, ...some.map(([, row]) => row));
    this.element = make(
      "div",
      { oninput: changed, onchange: changed },
      grid(first),
      others.length ? fold(`${others.length} more fields`, grid(others)) : null,
    );
  }

  part(name, field, required) {
    const schema = plain(field);
    const file = isFile(field) ? fileInput(name, isPicture(field), this.most) : null;
    const words = schema.enum || (schema.type === "boolean" ? ["true", "false"] : null);
    const box = file
      ? file.input
      : words
        ? make(
            "select",
            {},
            make("option", { value: "" }, required ? "" : "default"),
            ...words.map((word) => make("option", {}, word)),
          )
        : make("input", { list: menuFor(name, ""), spellcheck: "false", autocomplete: "off" });
    this.parts.set(name, box);
    return make(
      "div",
      { class: file || name.endsWith("prompt") ? "wide" : "" },
      make("label", { class: required ? "required" : "" }, make("span", {}, name), file ? file.element : box),
    );
  }

  use(example) {
    for (const [name, box] of this.parts) {
      const value = example.value[name];
      if (!box.files)
        box.value = value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
    }
  }

  // The names and values, or files, of the parts that are filled in.
  filled() {
    return [...this.parts]
      .map(([name, box]) => [name, box.files ? box.files[0] : box.value])
      .filter(([, value]) => value);
  }

  content() {
    const body = new FormData();
    for (const [name, value] of this.filled()) body.append(name, value);
    return { body, size: this.filled().reduce((sum, [, value]) => sum + (value.size ?? value.length), 0) };
  }

  refresh() {}

  problem() {
    return tooLarge(this.content().size, this.most);
  }

  // A nested field is part of the text of its field.
  box(field) {
    return this.parts.get(field.split(/[.[]/)[0]);
  }
}
