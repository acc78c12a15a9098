// The page: what the service is, which others there are, and every operation to read of and to try.

import { attempt } from "./attempt.js";
import { refreshChoices } from "./choices.js";
import { make, prose } from "./dom.js";
import { reference } from "./reference.js";
import { apiKey, call, callJson, keepApiKey, session } from "./session.js";

const door = document.getElementById("door");
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
        attempt(method, path, operation),
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
    `${api.info.summary}. The same as `,
    make("a", { href: "openapi.json" }, "OpenAPI"),
    ` ${api.openapi}.`,
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
    for (const [method, path, operation] of all.filter((each) => each[2].tags[0] === tag.name)) {
      list.append(
        make("a", { href: `#${operation.operationId}` }, make("span", { class: `method ${method}` }, method), path),
      );
      operations.append(operationView(method, path, operation));
    }
  }
}

async function showServices() {
  const place = document.getElementById("services");
  try {
    const { services } = await callJson("/api/services");
    place.replaceChildren(
      ...services.map(({ name, service, port, running, docs }) => {
        const here = session.api.info.title.endsWith(`: ${service}`);
        const words = `${name} ${port}`;
        const state = make(
          "span",
          { class: running ? "runs" : "away" },
          running ? (here ? "this page" : "runs") : "does not run",
        );
        const link =
          running && docs
            ? make(
                "a",
                { href: docs, "aria-current": here && docs.includes(`:${location.port}/`) ? "page" : undefined },
                words,
              )
            : make("span", {}, words);
        return make("li", {}, link, state);
      }),
    );
  } catch (error) {
    place.replaceChildren(make("li", { class: "note" }, `The other services are not known: ${error.message}`));
  }
}

function openChosen() {
  const element = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!element || !element.matches("details")) return;
  element.open = true;
  element.scrollIntoView();
  element.querySelector("summary").focus({ preventScroll: true });
}

function askForKey(message) {
  door.hidden = false;
  document.getElementById("key-note").textContent = message;
}

async function load() {
  const tried = apiKey() !== "";
  let response;
  try {
    response = await call("/openapi.json");
  } catch (error) {
    about.textContent = `The service does not answer: ${error.message}`;
    return;
  }
  const told = await response.json();
  if (!response.ok) {
    about.textContent = told.message;
    if (response.status === 401)
      askForKey(tried ? "This key is wrong. It is the one in DREAM_LAYER_API_KEY of the service." : "");
    else if (tried) askForKey([told.message, told.error?.hint].filter(Boolean).join(": "));
    return;
  }
  session.api = told;
  door.hidden = !tried;
  document.getElementById("key-note").textContent = tried
    ? "The key is right. It is kept until this tab is closed."
    : "";
  document.getElementById("forget").hidden = !tried;
  show();
  openChosen();
  await Promise.allSettled([showServices(), refreshChoices()]);
}

door.addEventListener("submit", (event) => {
  event.preventDefault();
  const key = door.elements.key.value.trim();
  door.elements.key.value = "";
  // Headers hold no others, and no key has others.
  if (/[^ -~]/.test(key)) {
    askForKey("This key is wrong: a key has letters, digits and signs of ASCII alone.");
    return;
  }
  keepApiKey(key);
  load();
});
document.getElementById("forget").addEventListener("click", () => {
  keepApiKey("");
  location.reload();
});
document.addEventListener("key-needed", () => askForKey("The service does not take this key any more."));
document.getElementById("folded").open = matchMedia("(min-width: 801px)").matches;
window.addEventListener("hashchange", openChosen);
window.addEventListener("focus", () => {
  if (session.api) {
    refreshChoices();
    showServices();
  }
});
load();
