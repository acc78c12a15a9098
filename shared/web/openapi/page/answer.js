// What came back: pictures, warnings, errors with their field, and the whole as JSON; each with a way to save it.

import { make, prose, save, sizeText, unfold } from "./dom.js";
import { parse, write } from "./exact.js";
import { call, nearby } from "./session.js";

// Characters of an answer that are shown; the whole can be saved.
const SHOWN = 200_000;

export function textView(text, name, type) {
  const cut =
    text.length > SHOWN
      ? make(
          "p",
          { class: "soft" },
          `The first ${sizeText(SHOWN)} of ${sizeText(text.length)}; save it to see the rest.`,
        )
      : null;
  return make(
    "div",
    {},
    make(
      "div",
      { class: "row" },
      make("button", { type: "button", onclick: () => save(new Blob([text], { type }), name) }, `Save ${name}`),
    ),
    cut,
    make("pre", { tabindex: "0" }, text.slice(0, SHOWN)),
  );
}

export function jsonView(value, name) {
  return textView(write(value, 2), name, "application/json");
}

export function warningsView(warnings) {
  return warnings?.length
    ? make(
        "div",
        { class: "warnings", role: "status" },
        make("strong", {}, "Warnings"),
        make("ul", {}, ...warnings.map((each) => make("li", {}, each))),
      )
    : null;
}

export function errorView(body, status) {
  const error = body.error || {};
  return make(
    "div",
    { class: "error", role: "alert" },
    make("p", {}, make("strong", {}, `${status || ""} ${error.code || "error"}: `), body.message || "no more is known"),
    error.field ? make("p", {}, "Field: ", make("code", {}, error.field)) : null,
    error.hint ? prose(error.hint) : null,
  );
}

// A picture at an address of the service, with links that save it under the name that the service gives it.
function pictureView(address, about) {
  const [path, query = ""] = nearby(address).split("?");
  const links = ["png", "webp", "jpg"].map((ending) => {
    const file = `${path.replace(/\.\w+$/, "")}.${ending}`;
    const words = `Save as ${ending.toUpperCase()}`;
    // A signature is good for one name alone; the others are fetched with the key.
    return query.includes("signature=") && file !== path
      ? make("button", { type: "button", onclick: (event) => saveFrom(`/${file}?download=1`, event.target) }, words)
      : make("a", { href: `${file}?${query ? `${query}&` : ""}download=1`, download: "" }, words);
  });
  const picture = make("img", {
    src: nearby(address),
    alt: about || "A picture",
    onerror: () =>
      picture.replaceWith(make("p", { class: "note" }, "The picture cannot be loaded: its address may have expired.")),
  });
  return make(
    "figure",
    {},
    picture,
    make("figcaption", { class: "row" }, about ? make("span", { class: "soft" }, about) : null, ...links),
  );
}

async function saveFrom(address, button) {
  const response = await call(address);
  if (response.ok) save(await response.blob(), offeredName(response.headers));
  else button.replaceWith(make("span", { class: "note" }, (await response.json()).message));
}

// The addresses of pictures in an answer, wherever they stand, each with what is known of it.
function picturesIn(body) {
  const drawn = body.comfy_response?.generated_images || body.result?.comfy_response?.generated_images;
  if (drawn)
    return drawn.map((each) => [
      each.url,
      [each.seed === undefined ? "" : `seed ${write(each.seed)}`, each.width ? `${each.width} x ${each.height}` : ""]
        .filter(Boolean)
        .join(", "),
    ]);
  if (body.data?.output_image) return [[body.data.output_image, ""]];
  return body.filename && /^https?:.*\/images\//.test(body.url || "") ? [[body.url, body.filename]] : [];
}

export function resultView(body, name) {
  const pictures = picturesIn(body);
  const file = body.download_url
    ? make("p", {}, make("a", { href: nearby(body.download_url), download: "" }, "Save the report"))
    : null;
  const json = () => jsonView(body, `${name}.json`);
  return make(
    "div",
    {},
    body.message ? make("p", {}, body.message) : null,
    warningsView(body.warnings),
    pictures.length
      ? make("div", { class: "pictures" }, ...pictures.map(([address, about]) => pictureView(address, about)))
      : null,
    file,
    pictures.length ? unfold("The whole answer", json) : json(),
  );
}

// The name that the service offers for a file (RFC 6266); "" if it offers none.
export function offeredName(headers) {
  const told = headers.get("Content-Disposition") || "";
  const long = told.match(/filename\*=UTF-8''([^;]+)/i);
  return long ? decodeURIComponent(long[1]) : (told.match(/filename="?([^";]+)"?/i) || [])[1] || "";
}

function warningsOf(headers) {
  try {
    return parse(headers.get("X-Warnings") || "[]");
  } catch {
    return [];
  }
}

// An answer that is a file: a picture is shown, what is to be saved is saved at once.
export async function fileView(response, type, name) {
  const blob = await response.blob();
  const address = response.headers.get("Content-Location") || response.url;
  const named =
    offeredName(response.headers) ||
    (address ? decodeURIComponent(address.split("?")[0].split("/").pop()).replace(/\.\w+$/, "") : name);
  const ending = { "image/png": "png", "image/webp": "webp", "image/jpeg": "jpg", "application/zip": "zip" }[type];
  const file = /\.\w{2,4}$/.test(named) || !ending ? named : `${named}.${ending}`;
  if (/^attachment/i.test(response.headers.get("Content-Disposition") || "")) save(blob, file);
  const seed = response.headers.get("X-Seed");
  return make(
    "div",
    {},
    warningsView(warningsOf(response.headers)),
    make(
      "figure",
      {},
      type.startsWith("image/") ? make("img", { src: URL.createObjectURL(blob), alt: "The answer" }) : null,
      make(
        "figcaption",
        { class: "row" },
        seed ? make("span", { class: "soft" }, `seed ${seed}`) : null,
        make("button", { type: "button", onclick: () => save(blob, file) }, `Save ${file}`),
        make("span", { class: "soft" }, sizeText(blob.size)),
      ),
    ),
  );
}

export async function answerView(response, name) {
  const type = (response.headers.get("Content-Type") || "").split(";")[0];
  if (response.status === 204) return make("p", {}, "Nothing: there will be no more.");
  if (type.startsWith("image/") || type === "application/zip") return fileView(response, type, name);
  const text = await response.text();
  if (type !== "application/json") return textView(text, `${name}.txt`, type);
  const body = parse(text);
  return response.ok ? resultView(body, name) : errorAnswer(body, response.status, name);
}

export function errorAnswer(body, status, name) {
  return make(
    "div",
    {},
    body.error ? errorView(body, status) : null,
    unfold("The whole answer", () => jsonView(body, `${name}.json`), body.error ? {} : { open: "" }),
  );
}
