// Elements of the page. Text from outside is only inserted as text.

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Descriptions use no other Markdown than `code` and line breaks.
export function prose(text = "") {
  const lines = text
    .split("\n")
    .map((line) => make("p", {}, ...line.split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part))));
  return make("div", {}, ...lines);
}

export function table(names, rows) {
  const head = make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)));
  return make(
    "div",
    { class: "scroll", tabindex: "0" },
    make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)),
  );
}

export const fold = (title, content, attributes = {}) =>
  make("details", attributes, make("summary", { class: "soft" }, title), content);

// Like `fold`, with content that is created when it is opened, because it may be large.
export function lazyFold(title, content, attributes = {}) {
  const details = make("details", attributes, make("summary", { class: "soft" }, title));
  const fill = () => {
    if (details.open && details.children.length < 2) details.append(content());
  };
  details.addEventListener("toggle", fill);
  fill();
  return details;
}

// Saves a file.
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

export function sizeText(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
