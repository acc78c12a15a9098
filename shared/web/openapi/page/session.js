// The state of this tab: the OpenAPI document and the API key of the service.

const KEY = "dream-layer-api-key";
const unsaved = new Map();

export const session = { api: null };

// Storage of this tab. Some browsers do not allow a page to store anything.
function withStorage(act) {
  try {
    return act(sessionStorage);
  } catch {
    return act({
      getItem: (name) => unsaved.get(name) ?? null,
      setItem: (name, value) => unsaved.set(name, value),
      removeItem: (name) => unsaved.delete(name),
    });
  }
}

export const remembered = (name) => withStorage((storage) => storage.getItem(name)) || "";
export const remember = (name, value) =>
  withStorage((storage) => (value ? storage.setItem(name, value) : storage.removeItem(name)));

export const apiKey = () => remembered(KEY);
export const setApiKey = (key) => remember(KEY, key);

// `url` begins with a slash. It is relative to the page, because a proxy may serve it below a path.
export function call(url, options = {}) {
  const key = apiKey();
  const headers = { ...options.headers, ...(key ? { "X-API-Key": key } : {}) };
  return fetch(url.slice(1) || ".", { ...options, headers });
}

export async function callJson(url, options) {
  const response = await call(url, options);
  const body = await response.json();
  if (!response.ok) throw Object.assign(new Error(body.message), { status: response.status, body });
  return body;
}

// Makes a URL of this service in a reply relative to the page, which may use another host name.
export function relativeUrl(url) {
  const base = session.api.servers[0].url;
  return url.startsWith(`${base}/`) ? url.slice(base.length + 1) : url;
}

export function resolve(schema) {
  return schema.$ref ? session.api.components.schemas[schema.$ref.split("/").pop()] : schema;
}

// The model of a schema, without its alternative null.
export function plain(schema) {
  const options = (schema.anyOf || []).filter(({ type }) => type !== "null");
  return options.length ? resolve({ ...options[0] }) : resolve(schema);
}

export const isPicture = (schema) => plain(schema).contentMediaType === "image/*";
export const isFile = (schema) => plain(schema).format === "binary";
