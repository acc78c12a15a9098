// The page: the service, the other services, and each operation with its reference and a form to try it.

import { requestForm } from "./request_form.js";
import { refreshMenus } from "./menus.js";
import { make, prose } from "./dom.js";
import { reference } from "./reference.js";
import { apiKey, call, callJson, setApiKey, session } from "./session.js";

const keyForm = document.getElementById("key-form");
const about = document.getElementById("about");

function operationView(method, path, operation) {
  const badge = make("span", { class: `method ${method}` }, method);
  const details = make(
    "details",
    { class: "operation", id: operation.operationId },
    make(
      "summary",
      {},
      badge,
      make("span", { class: "path" }, path),
      make("span", { class: "soft" }, operation.summary),
    ),
  );
  details.addEventListener("toggle", () => {
    if (!details.open || details.children.length > 1) return;
    details.append(
      make(
        "div",
        { class: "inside" },
        operation.description ? prose(operation.description) : null,
        make("h3", {}, "Try it"),
        requestForm(method, path, operation),
        ...reference(operation),
      ),
    );
  });
  return details;
}

function show() {
  const { api } = session;
  document.title = api.info.title;
  document.querySelector("h1").textContent = `${api.info.title} ${api.info.version}`;
  about.replaceChildren(
    `${api.info.summary}. This page shows `,
    make("a", { href: "openapi.json" }, "openapi.json"),
    ` (OpenAPI ${api.openapi}).`,
  );
  const list = document.getElementById("routes");
  const operations = document.getElementById("operations");
  list.replaceChildren();
  operations.replaceChildren();
  const all = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([verb, operation]) => [verb.toUpperCase(), path, operation]),
  );
  for (const tag of api.tags) {
    list.append(make("h2", {}, tag.name));
    operations.append(make("h2", {}, tag.name));
    for (const [method, path, operation] of all.filter((entry) => entry[2].tags[0] === tag.name)) {
      list.append(
        make("a", { href: `#${operation.operationId}` }, make("span", { class: `method ${method}` }, method), path),
      );
      operations.append(operationView(method, path, operation));
    }
  }
}

async function showServices() {
  const list = document.getElementById("services");
  try {
    const { services } = await callJson("/api/services");
    list.replaceChildren(
      ...services.map(({ name, service, port, running, docs }) => {
        const here = session.api.info.title.endsWith(`: ${service}`);
        const label = `${name} ${port}`;
        const state = make(
          "span",
          { class: running ? "running" : "stopped" },
          running ? (here ? "this page" : "running") : "not running",
        );
        const link =
          running && docs
            ? make(
                "a",
                { href: docs, "aria-current": here && docs.includes(`:${location.port}/`) ? "page" : undefined },
                label,
              )
            : make("span", {}, label);
        return make("li", {}, link, state);
      }),
    );
  } catch (error) {
    list.replaceChildren(make("li", { class: "note" }, `The other services could not be listed: ${error.message}`));
  }
}

function openLinked() {
  const element = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!element || !element.matches("details")) return;
  element.open = true;
  element.scrollIntoView();
  element.querySelector("summary").focus({ preventScroll: true });
}

function askForKey(message) {
  keyForm.hidden = false;
  document.getElementById("key-note").textContent = message;
}

async function load() {
  const hasKey = apiKey() !== "";
  let response;
  try {
    response = await call("/openapi.json");
  } catch (error) {
    about.textContent = `The service does not respond: ${error.message}`;
    return;
  }
  const body = await response.json();
  if (!response.ok) {
    about.textContent = body.message;
    if (response.status === 401)
      askForKey(hasKey ? "This key is wrong. Use the DREAM_LAYER_API_KEY of the service." : "");
    else if (hasKey) askForKey([body.message, body.error?.hint].filter(Boolean).join(": "));
    return;
  }
  session.api = body;
  keyForm.hidden = !hasKey;
  document.getElementById("key-note").textContent = hasKey
    ? "The key is right. This tab keeps it until it is closed."
    : "";
  document.getElementById("forget").hidden = !hasKey;
  show();
  openLinked();
  await Promise.allSettled([showServices(), refreshMenus()]);
}

keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const key = keyForm.elements.key.value.trim();
  keyForm.elements.key.value = "";
  // Keys and headers have only these characters.
  if (/[^ -~]/.test(key)) {
    askForKey("This key is wrong: keys have only printable ASCII characters.");
    return;
  }
  setApiKey(key);
  load();
});
document.getElementById("forget").addEventListener("click", () => {
  setApiKey("");
  location.reload();
});
document.addEventListener("key-needed", () => askForKey("The service no longer accepts this key."));
document.getElementById("folded").open = matchMedia("(min-width: 801px)").matches;
window.addEventListener("hashchange", openLinked);
window.addEventListener("focus", () => {
  if (session.api) {
    refreshMenus();
    showServices();
  }
});
load();
