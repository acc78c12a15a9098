// JSON with exact integers of any size. JavaScript numbers round seeds above 2^53, as do browsers without JSON.rawJSON.

const isLarge = (text) => /^-?\d+$/.test(text) && !Number.isSafeInteger(Number(text));

const exact = (text) => (JSON.rawJSON && isLarge(text) ? JSON.rawJSON(text) : Number(text));

export function parse(text) {
  return JSON.parse(text, (_name, value, context) =>
    typeof value === "number" && context?.source ? exact(context.source) : value,
  );
}

export const write = (value, indent) => JSON.stringify(value, null, indent);

export const isNumber = (value) => typeof value === "number" || Boolean(JSON.isRawJSON?.(value));

// Parses a typed number. Other text stays as it is, so that the service can report it.
export function fromText(text) {
  return text.trim() !== "" && Number.isFinite(Number(text)) ? exact(text.trim()) : text;
}
