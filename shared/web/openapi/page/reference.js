// What an operation takes and answers, as tables.

import { make, prose, table, unfold } from "./dom.js";
import { plain } from "./session.js";

export function typeOf(schema) {
  const found = plain(schema);
  if (found.const) return JSON.stringify(found.const);
  if (found.enum) return found.enum.join(", ");
  if (found.type === "array") return `list of ${found.items ? typeOf(found.items) : "anything"}`;
  if (found.format === "binary") return "file";
  if (found.contentMediaType === "image/*") return "picture";
  const words = { string: "text", integer: "whole number", boolean: "true or false" };
  const type = found.title && found.properties ? found.title : words[found.type] || found.type || "anything";
  if (found.minimum === undefined) return type;
  // JavaScript would round it.
  const highest = found.maximum > 2 ** 63 ? "2^64-1" : found.maximum;
  return found.maximum === undefined ? `${type} from ${found.minimum}` : `${type}, ${found.minimum} to ${highest}`;
}

export function usualValue(field) {
  const usual = field.default;
  return usual === undefined || usual === null || JSON.stringify(usual) === "[]" ? "" : JSON.stringify(usual);
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
      make("td", {}, usualValue(field)),
      make(
        "td",
        {},
        prose(field.description || inner.description),
        nested ? unfold("its fields", () => fieldsOf(nested)) : null,
      ),
    );
  });
  return table(["field", "type and range", "default", "what it does"], rows);
}

function responsesOf(responses) {
  return table(
    ["status", "answer"],
    Object.entries(responses).map(([status, response]) => {
      const content = Object.entries(response.content || {});
      const headers = Object.keys(response.headers || {});
      const model = content.find(([, each]) => each.schema.$ref || each.schema.anyOf);
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
          model && status < 400 ? unfold("its fields", () => fieldsOf(model[1].schema)) : null,
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
    parameters.length ? table(["name", "in", "type", "what it does"], parameters) : null,
    json ? make("h3", {}, "Body: JSON") : null,
    json ? fieldsOf(json.schema) : null,
    formDiffers ? make("h3", {}, "Body: form") : null,
    formDiffers ? unfold("its fields", () => fieldsOf(form.schema)) : null,
    make("h3", {}, "Answers"),
    responsesOf(operation.responses),
  ];
}
