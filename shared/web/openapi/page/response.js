// Views of a response: pictures, warnings, errors and JSON, with buttons to save them.

import { make, prose, save, sizeText, lazyFold } from "./dom.js";
import { parse, write } from "./json.js";
import { call, relativeUrl } from "./session.js";

// The largest number of characters that is shown.
const SHOWN = 200_000;

export function textView(text, name, type) {
  const cut =
    text.length > SHOWN
      ? make(
          "p",
          { class: "soft" },
          `This is the first ${sizeText(SHOWN)} of ${sizeText(text.length)}. Save the text to see the rest.`,
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
        make("ul", {}, ...warnings.map((text) => make("li", {}, text))),
      )
    : null;
}

export function errorView(body, status) {
  const error = body.error || {};
  return make(
    "div",
    { class: "error", role: "alert" },
    make("p", {}, make("strong", {}, `${status || ""} ${error.code || "error"}: `), body.message || "unknown error"),
    error.field ? make("p", {}, "Field: ", make("code", {}, error.field)) : null,
    error.hint ? prose(error.hint) : null,
  );
}

// A picture at a URL of the service, with links to save it under the name that the service offers.
function pictureView(url, about) {
  const [path, query = ""] = relativeUrl(url).split("?");
  const links = ["png", "webp", "jpg"].map((extension) => {
    const file = `${path.replace(/\.\w+$/, "")}.${extension}`;
    const label = `Save as ${extension.toUpperCase()}`;
    // A signature is valid for one name; other formats are fetched with the key.
    return query.includes("signature=") && file !== path
      ? make("button", { type: "button", onclick: (event) => saveFrom(`/${file}?download=1`, event.target) }, label)
      : make("a", { href: `${file}?${query ? `${query}&` : ""}download=1`, download: "" }, label);
  });
  const picture = make("img", {
    src: relativeUrl(url),
    alt: about || "A picture",
    onerror: () =>
      picture.replaceWith(make("p", { class: "note" }, "The picture cannot be loaded. Its URL may have expired.")),
  });
  return make(
    "figure",
    {},
    picture,
    make("figcaption", { class: "row" }, about ? make("span", { class: "soft" }, about) : null, ...links),
  );
}

async function saveFrom(url, button) {
  const response = await call(url);
  if (response.ok) save(await response.blob(), offeredName(response.headers));
  else button.replaceWith(make("span", { class: "note" }, (await response.json()).message));
}

// The URLs of the pictures in a body, with their captions.
function picturesIn(body) {
  const images = body.comfy_response?.generated_images || body.result?.comfy_response?.generated_images;
  if (images)
    return images.map(({ url, seed, width, height }) => [
      url,
      [seed === undefined ? "" : `seed ${write(seed)}`, width ? `${width} x ${height}` : ""].filter(Boolean).join(", "),
    ]);
  if (body.data?.output_image) return [[body.data.output_image, ""]];
  return body.filename && /^https?:.*\/images\//.test(body.url || "") ? [[body.url, body.filename]] : [];
}

export function resultView(body, name) {
  const pictures = picturesIn(body);
  const file = body.download_url
    ? make("p", {}, make("a", { href: relativeUrl(body.download_url), download: "" }, "Save the report"))
    : null;
  const json = () => jsonView(body, `${name}.json`);
  return make(
    "div",
    {},
    body.message ? make("p", {}, body.message) : null,
    warningsView(body.warnings),
    pictures.length
      ? make("div", { class: "pictures" }, ...pictures.map(([url, about]) => pictureView(url, about)))
      : null,
    file,
    pictures.length ? lazyFold("JSON", json) : json(),
  );
}

// The file name in Content-Disposition (RFC 6266); "" if there is none.
export function offeredName(headers) {
  const header = headers.get("Content-Disposition") || "";
  const long = header.match(/filename\*=UTF-8''([^;]+)/i);
  return long ? decodeURIComponent(long[1]) : (header.match(/filename="?([^";]+)"?/i) || [])[1] || "";
}

function warningsOf(headers) {
  try {
    return parse(headers.get("X-Warnings") || "[]");
  } catch {
    return [];
  }
}

// A response that is a file: shows a picture, and saves an attachment.
export async function fileView(response, type, name) {
  const blob = await response.blob();
  const url = response.headers.get("Content-Location") || response.url;
  const named =
    offeredName(response.headers) ||
    (url ? decodeURIComponent(url.split("?")[0].split("/").pop()).replace(/\.\w+$/, "") : name);
  const extension = { "image/png": "png", "image/webp": "webp", "image/jpeg": "jpg", "application/zip": "zip" }[type];
  const file = /\.\w{2,4}$/.test(named) || !extension ? named : `${named}.${extension}`;
  if (/^attachment/i.test(response.headers.get("Content-Disposition") || "")) save(blob, file);
  const seed = response.headers.get("X-Seed");
  return make(
    "div",
    {},
    warningsView(warningsOf(response.headers)),
    make(
      "figure",
      {},
      type.startsWith("image/")
        ? make("img", { src: URL.createObjectURL(blob), alt: "The picture in the response" })
        : null,
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

export async function responseView(response, name) {
  const type = (response.headers.get("Content-Type") || "").split(";")[0];
  if (response.status === 204) return make("p", {}, "No content.");
  if (type.startsWith("image/") || type === "application/zip") return fileView(response, type, name);
  const text = await response.text();
  if (type !== "application/json") return textView(text, `${name}.txt`, type);
  const body = parse(text);
  return response.ok ? resultView(body, name) : errorResponseView(body, response.status, name);
}

export function errorResponseView(body, status, name) {
  return make(
    "div",
    {},
    body.error ? errorView(body, status) : null,
    lazyFold("JSON", () => jsonView(body, `${name}.json`), body.error ? {} : { open: "" }),
  );
}
