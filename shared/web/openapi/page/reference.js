// The reference of an operation: its parameters, bodies and replies as tables.

import { make, prose, table, lazyFold } from "./dom.js";
import { plain } from "./session.js";

export function typeOf(schema) {
  const model = plain(schema);
  if (model.const) return JSON.stringify(model.const);
  if (model.enum) return model.enum.join(", ");
  if (model.type === "array") return `list of ${model.items ? typeOf(model.items) : "anything"}`;
  if (model.format === "binary") return "file";
  if (model.contentMediaType === "image/*") return "picture";
  const words = { string: "text", integer: "whole number", boolean: "true or false" };
  const type = model.title && model.properties ? model.title : words[model.type] || model.type || "anything";
  if (model.minimum === undefined) return type;
  // JavaScript rounds 2^64-1 to 2^64.
  const highest = model.maximum > 2 ** 63 ? "2^64-1" : model.maximum;
  return model.maximum === undefined ? `${type} from ${model.minimum}` : `${type}, ${model.minimum} to ${highest}`;
}

export function defaultText(field) {
  const value = field.default;
  return value === undefined || value === null || JSON.stringify(value) === "[]" ? "" : JSON.stringify(value);
}

export function fieldsOf(schema) {
  const model = plain(schema);
  const rows = Object.entries(model.properties || {}).map(([name, field]) => {
    const inner = plain(field);
    const nested = inner.properties ? inner : inner.items && plain(inner.items).properties ? plain(inner.items) : null;
    return make(
      "tr",
      {},
      make("td", {}, make("code", { class: (model.required || []).includes(name) ? "required" : "" }, name)),
      make("td", {}, typeOf(field)),
      make("td", {}, defaultText(field)),
      make(
        "td",
        {},
        prose(field.description || inner.description),
        nested ? lazyFold("fields", () => fieldsOf(nested)) : null,
      ),
    );
  });
  return table(["field", "type and range", "default", "description"], rows);
}

function responsesOf(responses) {
  return table(
    ["status", "reply"],
    Object.entries(responses).map(([status, response]) => {
      const content = Object.entries(response.content || {});
      const headers = Object.keys(response.headers || {});
      const model = content.find(([, { schema }]) => schema.$ref || schema.anyOf);
      return make(
        "tr",
        {},
        make("td", {}, make("code", {}, status)),
        make(
          "td",
          {},
          prose(response.description),
          content.length ? make("p", { class: "soft" }, content.map(([type]) => type).join(", ")) : null,
          headers.length ? make("p", { class: "soft" }, "Headers: " + headers.join(", ")) : null,
          model && status < 400 ? lazyFold("fields", () => fieldsOf(model[1].schema)) : null,
        ),
      );
    }),
  );
}

export function reference(operation) {
  const json = operation.requestBody?.content["application/json"];
  const form = operation.requestBody?.content["multipart/form-data"];
  const parameters = (operation.parameters || []).map((parameter) =>
    make(
      "tr",
      {},
      make("td", {}, make("code", { class: parameter.required ? "required" : "" }, parameter.name)),
      make("td", {}, parameter.in),
      make("td", {}, typeOf(parameter.schema)),
      make("td", {}, prose(parameter.description)),
    ),
  );
  const formDiffers = form && form.schema.$ref !== json?.schema.$ref;
  return [
    parameters.length ? make("h3", {}, "Parameters") : null,
    parameters.length ? table(["name", "in", "type", "description"], parameters) : null,
    json ? make("h3", {}, "Body: JSON") : null,
    json ? fieldsOf(json.schema) : null,
    formDiffers ? make("h3", {}, "Body: form") : null,
    formDiffers ? lazyFold("fields", () => fieldsOf(form.schema)) : null,
    make("h3", {}, "Replies"),
    responsesOf(operation.responses),
  ];
}
