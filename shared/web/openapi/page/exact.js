// JSON with whole numbers of any size. JavaScript's own numbers round a seed above 2^53; where a browser cannot keep
// the digits (no JSON.rawJSON), they are rounded as before.

const isLarge = (text) => /^-?\d+$/.test(text) && !Number.isSafeInteger(Number(text));

const exact = (text) => (JSON.rawJSON && isLarge(text) ? JSON.rawJSON(text) : Number(text));

export function parse(text) {
  return JSON.parse(text, (_name, value, context) =>
    typeof value === "number" && context?.source ? exact(context.source) : value,
  );
}

export const write = (value, indent) => JSON.stringify(value, null, indent);

export const isNumber = (value) => typeof value === "number" || Boolean(JSON.isRawJSON?.(value));

// What was typed as a number; as text if it is none, so that the service can say what is wrong.
export function fromText(text) {
  return text.trim() !== "" && Number.isFinite(Number(text)) ? exact(text.trim()) : text;
}
