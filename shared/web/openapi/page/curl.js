// What is on the form as a command line, for each kind of shell. The key stays out of it: it is read from a variable.

import { apiKey, session } from "./session.js";

export const SHELLS = { sh: "Linux and macOS", cmd: "Windows cmd", powershell: "PowerShell" };
// cmd takes 8191 characters; what is longer goes into a file.
const LONGEST = 6000;
const BODY_FILE = "body.json";

const escaped = (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
const quoted = (text) => `"${text.replace(/(\\*)"/g, '$1$1\\"').replace(/(\\+)$/, "$1$1")}"`;
const quote = {
  sh: (text) => `'${text.replaceAll("'", "'\\''")}'`,
  // The C library reads this: a quote has a backslash in front, and backslashes before a quote are doubled. To cmd each
  // quote ends or begins a text, and outside of one some signs mean something, unless they have a caret in front.
  cmd: (text) => (/".*[&|<>^]|[&|<>^].*"/s.test(text) ? quoted(text).replace(/[()%!^"<>&|]/g, "^$&") : quoted(text)),
  powershell: (text) => `'${text.replaceAll("'", "''")}'`,
};
const KEY = {
  sh: '"X-API-Key: $DREAM_LAYER_API_KEY"',
  cmd: '"X-API-Key: %DREAM_LAYER_API_KEY%"',
  powershell: '"X-API-Key: $env:DREAM_LAYER_API_KEY"',
};
// The Windows shells change quotes, signs of their own, and letters beyond ASCII; inside JSON they can all be escaped.
const ascii = (json) =>
  json
    .replaceAll("\\\\", "\\u005c")
    .replaceAll('\\"', "\\u0022")
    .replace(/[^ -~]|[&|<>^%!']/g, escaped);

function minified(text) {
  // Without spaces between tokens, and with every number as it was typed.
  return text.replace(/"(?:[^"\\]|\\.)*"|\s+/g, (part) => (part[0] === '"' ? part : ""));
}

function ending(shell, address, headers, types) {
  const wanted = headers.Accept || "";
  const only = types.length === 1 ? types[0] : "";
  if (wanted === "text/event-stream" || only === "text/event-stream") return "-N";
  const name = wanted.startsWith("image/")
    ? `picture.${wanted.slice(6)}`
    : only === "application/zip"
      ? "report.zip"
      : types.includes("image/png") && !types.includes("application/json")
        ? decodeURIComponent(address.split("?")[0].split("/").pop())
        : "";
  return name ? `-o ${quote[shell](name)}` : "";
}

// The pieces of the form of `curl` for a request: { method, address, headers, text | parts, types }.
export function curlLine(shell, { method, address, headers, text, parts, types }) {
  const say = quote[shell];
  const pieces = [];
  let file = null;
  if (method === "DELETE" || (method === "POST" && !text && !parts)) pieces.push(`-X ${method}`);
  pieces.push(say(session.api.servers[0].url + address));
  for (const [name, value] of Object.entries(headers)) pieces.push(`-H ${say(`${name}: ${value}`)}`);
  if (apiKey()) pieces.push(`-H ${KEY[shell]}`);
  if (text) {
    const inline = shell === "sh" || text.length > 4 * LONGEST ? text : ascii(minified(text));
    file = inline.length > LONGEST ? BODY_FILE : null;
    // Windows PowerShell takes quotes out of arguments; what it pipes stays whole.
    if (file) pieces.push(`--data-binary ${say(`@${file}`)}`);
    else if (shell === "powershell")
      return {
        line: `${say(inline)} | ${joined(shell, [...pieces, "-d '@-'", ending(shell, address, headers, types)])}`,
        file,
      };
    else pieces.push(`-d ${say(inline)}`);
  }
  for (const [name, value] of parts || []) {
    // A text that begins with @ or < would be taken for a file.
    pieces.push(
      typeof value === "string" ? `--form-string ${say(`${name}=${value}`)}` : `-F ${say(`${name}=@${value.name}`)}`,
    );
  }
  return { line: joined(shell, [...pieces, ending(shell, address, headers, types)]), file };
}

function joined(shell, pieces) {
  const curl = shell === "sh" ? "curl" : "curl.exe";
  const between = { sh: " \\\n  ", cmd: " ", powershell: " " }[shell];
  return `${curl} -sS --fail-with-body ${pieces.filter(Boolean).join(between)}`;
}
