// Inputs for pictures: a file becomes a data URL in a JSON body, or a file of a form. Shows a thumbnail.

import { make, sizeText } from "./dom.js";

// Base64 uses four bytes for three.
const inJson = (bytes) => Math.ceil(bytes / 3) * 4;

export function tooLarge(bytes, most) {
  return most && bytes > most
    ? `${sizeText(bytes)} is too large: the service accepts bodies up to ${sizeText(most)} (DREAM_LAYER_MAX_BODY_MB)`
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
  const picture = make("img", { class: "thumbnail", alt: `Selected for ${label}`, hidden: "" });
  let shown = "";
  return {
    element: picture,
    show(url) {
      if (url === shown) return;
      shown = url;
      picture.hidden = !url;
      if (url) picture.src = url;
      else picture.removeAttribute("src");
    },
  };
}

// A file input for a picture in JSON. `put` receives its data URL, or "" when the picture is removed.
export function pictureChooser(label, most, put) {
  const shown = thumbnail(label);
  let dataUrl = "";
  const note = make("span", { class: "note", role: "alert" });
  const input = make("input", {
    type: "file",
    accept: "image/*",
    "aria-label": `Picture for ${label}`,
    onchange: readSelected,
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
    "Remove",
  );
  async function readSelected(event) {
    // The value of the input is the name of a file, not the text of the field.
    event.stopPropagation();
    const file = input.files[0];
    if (!file) return;
    note.textContent = tooLarge(inJson(file.size), most);
    if (note.textContent) {
      input.value = "";
      return;
    }
    try {
      dataUrl = await readFile(file);
      put(dataUrl);
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
      // The input names the file only while the body contains it.
      if (text !== dataUrl) input.value = "";
    },
  };
}

// A file input of a form, with a thumbnail of a picture.
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
