// Choosers for pictures: a file becomes a data URL in the body, and is shown small.

import { make, sizeText } from "./dom.js";

// In JSON, base64 takes four bytes for three.
const inJson = (bytes) => Math.ceil(bytes / 3) * 4;

export function tooLarge(bytes, most) {
  return most && bytes > most
    ? `${sizeText(bytes)} is too large: the service takes bodies up to ${sizeText(most)} (DREAM_LAYER_MAX_BODY_MB)`
    : "";
}

function readFile(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(file);
  });
}

export function thumbnail(label) {
  const picture = make("img", { class: "thumbnail", alt: `Chosen for ${label}`, hidden: "" });
  let shown = "";
  return {
    element: picture,
    show(address) {
      if (address === shown) return;
      shown = address;
      picture.hidden = !address;
      if (address) picture.src = address;
      else picture.removeAttribute("src");
    },
  };
}

// A chooser beside the text of a field. `put` gets the data URL, or "" where the picture is taken away.
export function pictureChooser(label, most, put) {
  const shown = thumbnail(label);
  let chosen = "";
  const note = make("span", { class: "note", role: "alert" });
  const input = make("input", {
    type: "file",
    accept: "image/*",
    "aria-label": `Picture for ${label}`,
    onchange: choose,
  });
  const remove = make(
    "button",
    {
      type: "button",
      hidden: "",
      onclick: () => {
        input.value = "";
        note.textContent = "";
        put("");
      },
    },
    "Take away",
  );
  async function choose(event) {
    // What stands in the chooser is a file's name, not the field's text.
    event.stopPropagation();
    const file = input.files[0];
    if (!file) return;
    note.textContent = tooLarge(inJson(file.size), most);
    if (note.textContent) {
      input.value = "";
      return;
    }
    try {
      chosen = await readFile(file);
      put(chosen);
    } catch (error) {
      note.textContent = `${file.name} cannot be read: ${error.message}`;
    }
  }
  return {
    element: make("span", { class: "chooser" }, input, remove, shown.element, note),
    show(text) {
      const isData = typeof text === "string" && text.startsWith("data:image/");
      shown.show(isData ? text : "");
      remove.hidden = !text;
      // The chooser names the file only while that is what stands in the body.
      if (text !== chosen) input.value = "";
    },
  };
}

// A file of a form, shown small if it is a picture.
export function fileInput(label, picture, most) {
  const shown = thumbnail(label);
  const note = make("span", { class: "note", role: "alert" });
  const input = make("input", {
    type: "file",
    accept: picture ? "image/*" : undefined,
    "aria-label": label,
    onchange: () => {
      const file = input.files[0];
      note.textContent = file ? tooLarge(file.size, most) : "";
      if (note.textContent) input.value = "";
      shown.show(picture && input.files[0] ? URL.createObjectURL(file) : "");
    },
  });
  return { input, element: make("span", { class: "chooser" }, input, shown.element, note) };
}
