// What this tab knows of its service: the OpenAPI document and the API key.

const KEY = "dream-layer-api-key";
const unsaved = new Map();

export const session = { api: null };

// For this tab alone. Some browsers let a page keep nothing.
function storage(act) {
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

export const remembered = (name) => storage((kept) => kept.getItem(name)) || "";
export const remember = (name, value) => storage((kept) => (value ? kept.setItem(name, value) : kept.removeItem(name)));

export const apiKey = () => remembered(KEY);
export const keepApiKey = (key) => remember(KEY, key);

// `address` begins with a slash. Relative to the page, so that a proxy may put the service below a path.
export function call(address, options = {}) {
  const key = apiKey();
  const headers = { ...options.headers, ...(key ? { "X-API-Key": key } : {}) };
  return fetch(address.slice(1) || ".", { ...options, headers });
}

export async function callJson(address, options) {
  const response = await call(address, options);
  const body = await response.json();
  if (!response.ok) throw Object.assign(new Error(body.message), { status: response.status, body });
  return body;
}

// An address of this service in a reply, relative to the page: it may be open under another name than replies use.
export function nearby(address) {
  const base = session.api.servers[0].url;
  return address.startsWith(`${base}/`) ? address.slice(base.length + 1) : address;
}

export function resolve(schema) {
  return schema.$ref ? session.api.components.schemas[schema.$ref.split("/").pop()] : schema;
}

// A schema without null as an alternative, and the model behind it.
export function plain(schema) {
  const found = (schema.anyOf || []).filter((each) => each.type !== "null");
  return found.length ? resolve({ ...found[0] }) : resolve(schema);
}

export const isPicture = (schema) => plain(schema).contentMediaType === "image/*";
export const isFile = (schema) => plain(schema).format === "binary";
