// The form to try an operation: its parameters and body, the curl command, and the response.

import { responseView, errorResponseView, resultView, warningsView } from "./response.js";
import { FormBody, JsonBody } from "./bodies.js";
import { isListed, menuFor, newest, refreshMenus } from "./menus.js";
import { curlLine, SHELLS } from "./curl.js";
import { fold, make, save, lazyFold } from "./dom.js";
import { call, callJson, remember, remembered } from "./session.js";
import { eventsOf, jobEvents, Progress, watchedEvents } from "./stream.js";

const JSON_TYPE = "application/json";
const STREAM = "text/event-stream";
const SHELL = "dream-layer-shell";

export function requestForm(method, path, operation) {
  return new RequestForm(method, path, operation).element;
}

const withoutPictures = (fields) =>
  Object.fromEntries(
    Object.entries(fields).filter(([, value]) => !(typeof value === "string" && value.startsWith("data:"))),
  );

class RequestForm {
  constructor(method, path, operation) {
    Object.assign(this, { method, path, operation, name: operation.operationId, sending: null });
    this.types = Object.keys(operation.responses["200"]?.content || {});
    this.inputs = new Map((operation.parameters || []).map((parameter) => [parameter, this.parameterInput(parameter)]));
    const content = operation.requestBody?.content || {};
    const most = operation.requestBody?.["x-max-bytes"];
    const changed = () => this.show();
    this.bodies = {};
    if (content[JSON_TYPE]) this.bodies.JSON = new JsonBody(content[JSON_TYPE].schema, most, changed);
    if (content["multipart/form-data"])
      this.bodies.form = new FormBody(content["multipart/form-data"].schema, most, changed);
    this.body = this.bodies.JSON || this.bodies.form;
    this.examples = [
      ...Object.values(content[JSON_TYPE]?.examples || {}).map((example) => ({ ...example, as: "JSON" })),
      ...Object.values(content["multipart/form-data"]?.examples || {}).map((example) => ({ ...example, as: "form" })),
    ];
    this.bodyPlace = make("div", {});
    const headers = this.inputRow((parameter) => parameter.in === "header");
    this.headers = headers && fold("Headers", headers);
    this.shellBox = make(
      "select",
      {
        "aria-label": "Shell",
        onchange: () => {
          remember(SHELL, this.shellBox.value);
          this.show();
        },
      },
      ...Object.entries(SHELLS).map(([value, label]) => make("option", { value }, label)),
    );
    this.shellBox.value = remembered(SHELL) || (/Win/.test(navigator.platform) ? "powershell" : "sh");
    this.shell = make("pre", { class: "command", tabindex: "0", "aria-label": "Command line" });
    this.bodyFile = make(
      "button",
      { type: "button", hidden: "", onclick: () => save(new Blob([this.body.content().body]), "body.json") },
      "Save body.json",
    );
    this.response = make("div", { class: "response", "aria-live": "polite" });
    this.sendButton = make("button", { class: "send", type: "button", onclick: () => this.send() }, "Send");
    this.element = make(
      "div",
      {
        class: "request-form",
        oninput: changed,
        onkeydown: (event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.send();
        },
      },
      this.inputRow((parameter) => parameter.in !== "header"),
      this.exampleRow(),
      this.bodyPlace,
      this.headers,
      make("div", { class: "row" }, this.sendButton, make("span", { class: "soft" }, "or Ctrl+Enter")),
      this.response,
      make(
        "div",
        { class: "row" },
        make("span", {}, "Command line for"),
        this.shellBox,
        make("button", { type: "button", onclick: (event) => this.copy(event.target) }, "Copy"),
        this.bodyFile,
      ),
      this.shell,
    );
    document.addEventListener("menus", () => this.onMenus());
    if (this.examples.length) this.use(this.examples[0]);
    else this.showBody();
    this.onMenus();
  }

  parameterInput(parameter) {
    const words = parameter.schema.enum;
    if (words)
      return make(
        "select",
        {},
        make("option", { value: "" }, parameter.schema.default ? `default: ${parameter.schema.default}` : ""),
        ...words.map((word) => make("option", {}, word)),
      );
    const example = Object.values(parameter.examples || {})[0]?.value;
    const menu = menuFor(parameter.name, this.path);
    return make("input", {
      list: menu,
      autocomplete: "off",
      spellcheck: "false",
      placeholder: menu ? undefined : example,
      value: parameter.required && !menu ? example : undefined,
      onchange: () => this.describe(),
    });
  }

  inputRow(which) {
    const some = [...this.inputs].filter(([parameter]) => which(parameter));
    return some.length
      ? make(
          "div",
          { class: "fields" },
          ...some.map(([{ name, required }, input]) =>
            make("label", { class: required ? "required" : "" }, make("span", {}, name), input),
          ),
        )
      : null;
  }

  exampleRow() {
    const chooser =
      this.examples.length > 1
        ? make(
            "select",
            { onchange: () => this.use(this.examples[chooser.value]) },
            ...this.examples.map((example, index) => make("option", { value: index }, example.summary)),
          )
        : null;
    this.kindBox =
      Object.keys(this.bodies).length > 1
        ? make(
            "select",
            { onchange: () => this.sendAs(this.kindBox.value) },
            ...Object.keys(this.bodies).map((kind) => make("option", {}, kind)),
          )
        : null;
    return chooser || this.kindBox
      ? make(
          "div",
          { class: "row" },
          chooser ? make("label", {}, "Example", chooser) : null,
          this.kindBox ? make("label", {}, "Send as", this.kindBox) : null,
        )
      : null;
  }

  // Copies the fields into the form, except pictures, which are files there.
  sendAs(kind) {
    if (kind === "form" && this.body === this.bodies.JSON) {
      try {
        this.bodies.form.use({ value: withoutPictures(this.bodies.JSON.value()) });
      } catch {
        /* not JSON: nothing to copy */
      }
    }
    this.body = this.bodies[kind];
    this.showBody();
  }

  use(example) {
    this.body = this.bodies[example.as];
    if (this.kindBox) this.kindBox.value = example.as;
    this.body.use(example);
    for (const [parameter, input] of this.inputs) {
      if (parameter.in === "header") input.value = example["x-headers"]?.[parameter.name] || "";
    }
    if (example["x-headers"] && this.headers) this.headers.open = true;
    this.showBody();
  }

  showBody() {
    this.bodyPlace.replaceChildren(...(this.body ? [this.body.element] : []));
    this.show();
  }

  // Fills in the newest id of the menus, also in place of a suggested one that was removed, and the defaults of the
  // model. The id of a DELETE is left to the user.
  onMenus() {
    for (const [parameter, input] of this.inputs) {
      if (parameter.in !== "path" || this.method === "DELETE") continue;
      const { suggested } = input.dataset;
      const isGone = input.value === suggested && !isListed(suggested, parameter.name, this.path);
      if (!input.value || isGone) input.value = input.dataset.suggested = newest(parameter.name, this.path) || "";
    }
    this.fillFilename();
    this.body?.refresh();
    this.describe();
    this.show();
  }

  // Fills in the name of the newest picture.
  fillFilename() {
    const filename = newest("filename", "");
    if (this.bodies.JSON?.boxes.has("filename") && filename && !this.named) {
      this.named = true;
      this.bodies.JSON.put(["filename"], filename);
    }
  }

  // The fields of a named workflow come from its schema.
  async describe() {
    if (this.method !== "POST" || this.path !== "/api/workflows/{name}") return;
    const name = [...this.inputs].find(([parameter]) => parameter.name === "name")[1].value;
    if (!name || name === this.described) return;
    this.described = name;
    try {
      this.bodies.JSON.describe((await callJson(`/api/workflows/${encodeURIComponent(name)}`)).schema);
    } catch {
      /* sending it shows the error */
    }
  }

  request() {
    let url = this.path;
    const query = new URLSearchParams();
    const headers = {};
    for (const [parameter, input] of this.inputs) {
      if (!input.value) continue;
      if (parameter.in === "path") url = url.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (parameter.in === "query") query.set(parameter.name, input.value);
      else headers[parameter.name] = input.value;
    }
    const content = this.body?.content() || {};
    if (content.type) headers["Content-Type"] = content.type;
    return { url: url + (query.size ? `?${query}` : ""), headers, body: content.body };
  }

  show() {
    const { url, headers, body } = this.request();
    const { line, file } = curlLine(this.shellBox.value, {
      method: this.method,
      url,
      headers,
      types: this.types,
      text: typeof body === "string" ? body : "",
      parts: body instanceof FormData ? this.body.filled() : null,
    });
    this.shell.textContent = line;
    this.bodyFile.hidden = !file;
  }

  async copy(button) {
    try {
      await navigator.clipboard.writeText(this.shell.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(this.shell);
      button.textContent = "Selected";
    }
    setTimeout(() => {
      button.textContent = "Copy";
    }, 2000);
  }

  // The reason why the request cannot be sent, with its input.
  problem() {
    for (const [parameter, input] of this.inputs) {
      if (parameter.required && !input.value) return [`${parameter.name} is missing`, input];
    }
    const problem = this.body?.problem();
    return problem ? [problem, null] : null;
  }

  mark(box) {
    this.element.querySelectorAll("[aria-invalid]").forEach((input) => input.removeAttribute("aria-invalid"));
    if (!box) return;
    box.setAttribute("aria-invalid", "true");
    for (
      let parent = box.closest("details");
      parent && this.element.contains(parent);
      parent = parent.parentElement.closest("details")
    )
      parent.open = true;
  }

  markField(field) {
    if (!field) return;
    const parameter = [...this.inputs].find(([{ name }]) => name === field);
    this.mark(parameter ? parameter[1] : this.body?.box(field));
  }

  async send() {
    if (this.sending) return;
    const problem = this.problem();
    this.mark(problem?.[1]);
    if (problem) {
      this.response.replaceChildren(make("p", { class: "error", role: "alert" }, `Not sent: ${problem[0]}`));
      return;
    }
    this.sending = new AbortController();
    this.sendButton.disabled = true;
    const begun = performance.now();
    const status = make("p", { class: "status" });
    this.response.replaceChildren(status);
    try {
      await this.exchange(status);
    } catch (error) {
      this.response.append(
        make(
          "p",
          { class: "error", role: "alert" },
          error.name === "AbortError" ? "Cancelled." : `No response: ${error.message}`,
        ),
      );
    }
    status.append(` after ${((performance.now() - begun) / 1000).toFixed(2)} s`);
    this.sending = null;
    this.sendButton.disabled = false;
    if (this.method !== "GET") refreshMenus();
  }

  async exchange(status) {
    const { url, headers, body } = this.request();
    const generates = this.method === "POST" && this.types.includes(STREAM);
    const progress = new Progress(() => this.sending?.abort());
    if (generates) {
      // The stream ends with the result that a JSON reply would contain, and shows progress until then.
      if ((headers.Accept || JSON_TYPE) === JSON_TYPE && !/respond-async/.test(headers.Prefer || ""))
        headers.Accept = STREAM;
      else if (!headers.Prefer) headers.Prefer = "cancel-on-disconnect";
      this.response.append(progress.element);
    }
    const response = await call(url, { method: this.method, headers, body, signal: this.sending.signal });
    status.append(make("code", {}, `${response.status} ${response.statusText}`));
    const type = (response.headers.get("Content-Type") || "").split(";")[0];
    if (type === STREAM) await this.follow(this.method === "POST" ? jobEvents(response) : eventsOf(response), progress);
    else if (response.status === 202 && generates) await this.followLater(response, progress);
    else {
      progress.element.remove();
      await this.showResponse(response);
    }
  }

  async showResponse(response) {
    if (!response.ok && /json/.test(response.headers.get("Content-Type") || ""))
      this.markField((await response.clone().json()).error?.field);
    if (response.status === 401) document.dispatchEvent(new Event("key-needed"));
    this.response.append(await responseView(response, this.name));
  }

  async followLater(response, progress) {
    const reply = await response.json();
    this.response.append(
      warningsView(reply.warnings) || "",
      lazyFold("The immediate reply", () => resultView(reply, this.name), { open: "" }),
    );
    progress.job = reply.job_id;
    await this.follow(watchedEvents(reply.events_url), progress);
  }

  async follow(events, progress) {
    if (!progress.element.isConnected) this.response.append(progress.element);
    const lines = [];
    let last = null;
    for await (const event of events) {
      progress.show(event);
      lines.push(`${event.name} ${JSON.stringify(event.data).slice(0, 300)}`);
      last = event;
    }
    progress.element.remove();
    if (last?.name === "completed") this.response.append(resultView(last.data, this.name));
    else if (last?.data.error) {
      this.markField(last.data.error.field);
      this.response.append(errorResponseView(last.data, last.name, this.name));
    } else
      this.response.append(
        make("p", { class: "error" }, "The stream ended before the job. GET /api/jobs shows its state."),
      );
    this.response.append(lazyFold(`${lines.length} events`, () => make("pre", { tabindex: "0" }, lines.join("\n"))));
  }
}
