// The request of a form as a curl command for each shell. The API key is read from a variable.

import { apiKey, session } from "./session.js";

export const SHELLS = { sh: "Linux and macOS", cmd: "Windows cmd", powershell: "PowerShell" };
// The limit of cmd is 8191 characters; a longer body goes into a file.
const LONGEST_BODY = 6000;
const BODY_FILE = "body.json";

const escaped = (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
const quoted = (text) => `"${text.replace(/(\\*)"/g, '$1$1\\"').replace(/(\\+)$/, "$1$1")}"`;
const quote = {
  sh: (text) => `'${text.replaceAll("'", "'\\''")}'`,
  // The C library parses this: a quote is escaped by a backslash, and backslashes before a quote are doubled. For cmd,
  // each quote begins or ends a string, and some characters outside of strings must be escaped by a caret.
  cmd: (text) => (/".*[&|<>^]|[&|<>^].*"/s.test(text) ? quoted(text).replace(/[()%!^"<>&|]/g, "^$&") : quoted(text)),
  powershell: (text) => `'${text.replaceAll("'", "''")}'`,
};
const KEY = {
  sh: '"X-API-Key: $DREAM_LAYER_API_KEY"',
  cmd: '"X-API-Key: %DREAM_LAYER_API_KEY%"',
  powershell: '"X-API-Key: $env:DREAM_LAYER_API_KEY"',
};
// Windows shells change quotes, special characters and non-ASCII letters. JSON can escape all of them.
const ascii = (json) =>
  json
    .replaceAll("\\\\", "\\u005c")
    .replaceAll('\\"', "\\u0022")
    .replace(/[^ -~]|[&|<>^%!']/g, escaped);

function minified(text) {
  // Removes spaces between tokens, and keeps each number as it was typed.
  return text.replace(/"(?:[^"\\]|\\.)*"|\s+/g, (part) => (part[0] === '"' ? part : ""));
}

function outputOption(shell, url, headers, types) {
  const wanted = headers.Accept || "";
  const only = types.length === 1 ? types[0] : "";
  if (wanted === "text/event-stream" || only === "text/event-stream") return "-N";
  const name = wanted.startsWith("image/")
    ? `picture.${wanted.slice(6)}`
    : only === "application/zip"
      ? "report.zip"
      : types.includes("image/png") && !types.includes("application/json")
        ? decodeURIComponent(url.split("?")[0].split("/").pop())
        : "";
  return name ? `-o ${quote[shell](name)}` : "";
}

// The command line for a request: { method, url, headers, text | parts, types }.
export function curlLine(shell, { method, url, headers, text, parts, types }) {
  const quoteText = quote[shell];
  const pieces = [];
  let file = null;
  if (method === "DELETE" || (method === "POST" && !text && !parts)) pieces.push(`-X ${method}`);
  pieces.push(quoteText(session.api.servers[0].url + url));
  for (const [name, value] of Object.entries(headers)) pieces.push(`-H ${quoteText(`${name}: ${value}`)}`);
  if (apiKey()) pieces.push(`-H ${KEY[shell]}`);
  if (text) {
    const inline = shell === "sh" || text.length > 4 * LONGEST_BODY ? text : ascii(minified(text));
    file = inline.length > LONGEST_BODY ? BODY_FILE : null;
    // Windows PowerShell strips quotes from arguments, but not from piped text.
    if (file) pieces.push(`--data-binary ${quoteText(`@${file}`)}`);
    else if (shell === "powershell")
      return {
        line: `${quoteText(inline)} | ${join(shell, [...pieces, "-d '@-'", outputOption(shell, url, headers, types)])}`,
        file,
      };
    else pieces.push(`-d ${quoteText(inline)}`);
  }
  for (const [name, value] of parts || []) {
    // curl would read a text that begins with @ or < from a file.
    pieces.push(
      typeof value === "string"
        ? `--form-string ${quoteText(`${name}=${value}`)}`
        : `-F ${quoteText(`${name}=@${value.name}`)}`,
    );
  }
  return { line: join(shell, [...pieces, outputOption(shell, url, headers, types)]), file };
}

function join(shell, pieces) {
  const curl = shell === "sh" ? "curl" : "curl.exe";
  const between = { sh: " \\\n  ", cmd: " ", powershell: " " }[shell];
  return `${curl} -sS --fail-with-body ${pieces.filter(Boolean).join(between)}`;
}
