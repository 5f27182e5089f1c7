// The served page: a picture and a question -> POST v1/optimize -> one entry of the list. Everything that a model, a file
// or a server says is put in as text; addresses are relative, so that the page works behind a proxy's path, too.

const server = JSON.parse(document.getElementById("server").textContent);
const part = (id) => document.getElementById(id);
const MAX_ASKED = 30;
const MAX_BUSY_S = 300;
const ROLES = { initial: "as typed", rewritten: "rewritten", optimized: "optimized" };

let key = null;
let picture = null; // {name, file, url, image, width, height, ready}; width 0 where this browser cannot read it
let working = null; // the AbortController of the question that is being asked

class Problem extends Error {}

// --- words

function say(id, text) {
  part(id).textContent = shown(text);
}

const mib = (bytes) => `${Math.round(bytes / 2 ** 20)} MiB`;
const mega = (pixels) => `${Math.round(pixels / 1e5) / 10} megapixels`;
const shortened = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);

// --- the server

function headers(more = {}) {
  if (key === null) return more;
  // A header's characters are bytes; those of a key are UTF-8, as the server compares them.
  const bytes = String.fromCharCode(...new TextEncoder().encode(key));
  return { ...more, Authorization: `Bearer ${bytes}` };
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, seconds * 1000);
    signal.addEventListener("abort", stop, { once: true });
  });
}

async function request(path, options, signal) {
  const since = performance.now();
  for (;;) {
    let reply, said;
    try {
      reply = await fetch(path, { cache: "no-store", redirect: "error", signal, ...options });
      said = await reply.json().catch((error) => {
        if (signal.aborted || reply.ok) throw error;
        return {}; // a proxy's words
      });
    } catch (error) {
      if (signal.aborted) throw error;
      throw new Problem("The server does not answer. Is it still running? Your picture and question are kept.");
    }
    if (reply.ok) return said;
    const busySeconds = (performance.now() - since) / 1000;
    if (reply.status === 429 && busySeconds < MAX_BUSY_S) {
      const seconds = Math.min(60, Math.max(1, Number(reply.headers.get("Retry-After")) || 1));
      say("progress", `The server is busy: asking again in ${seconds} s.`);
      await pause(seconds, signal);
      continue;
    }
    throw refusal(reply.status, said);
  }
}

function refusal(status, said) {
  const error = said && typeof said.error === "object" && said.error !== null ? said.error : {};
  const why = typeof error.message === "string" ? error.message : "";
  if (status === 401) {
    key = null;
    const problem = new Problem("The server needs its key.");
    problem.wantsKey = true;
    return problem;
  }
  const words = {
    403: "The server refuses this page",
    413: `This is too large for the server, which takes ${mib(server.max_body_bytes)}`,
    429: "The server is still busy: ask again later",
    502: "The server that this one asks does not answer",
    503: "The server cannot answer now",
    504: "The server gave up",
  }[status];
  if (words) return new Problem(why && status !== 413 && status !== 429 ? `${words}: ${why}.` : `${words}.`);
  const where = status < 500 ? "The server refuses this" : "The server failed";
  return new Problem(`${where}: ${why || `status ${status}`}.`);
}

// --- the key

function askForKey(problem = "") {
  part("key-form").hidden = false;
  part("ask-form").hidden = true;
  say("key-problem", problem);
  part("key").value = "";
  part("key").focus();
}

part("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const typed = part("key").value.trim();
  say("key-problem", "");
  if (!typed) return;
  if (/[\u0000-\u001f\u007f]/.test(typed)) return askForKey("A key has no such characters.");
  key = typed;
  try {
    await meet();
  } catch (error) {
    key = null;
    if (error.wantsKey) askForKey("This is not the key of this server.");
    else say("key-problem", error.message);
    return;
  }
  part("key-form").hidden = true;
  part("ask-form").hidden = false;
  part(picture === null ? "file" : "question").focus();
});

async function meet() {
  const models = await request("v1/models", { headers: headers() }, new AbortController().signal);
  const name = models.data?.[0]?.id;
  if (typeof name !== "string") throw new Problem("What answers here is no server of vlinstruct.");
  say("model", shortened(name, 80));
  part("model").hidden = false;
  document.title = shown(`${shortened(name, 60)} · vlinstruct`);
}

// --- the picture

async function take(files) {
  const images = files.filter((file) => file.type.startsWith("image/") || file.type === "");
  say("problem", "");
  if (images.length === 0) {
    say("problem", files.length ? `${shortened(files[0].name, 80)} is no picture.` : "Only files can be dropped here.");
    return;
  }
  const file = images[0];
  const taken = { name: file.name || "picture", file, url: URL.createObjectURL(file), image: new Image(), width: 0, height: 0 };
  taken.ready = measured(taken);
  const note = files.length > 1 ? " One picture at a time: the others are left out." : "";
  await hold(taken, note);
  if ([document.body, part("file")].includes(document.activeElement)) part("question").focus();
}

async function measured(taken) {
  taken.image.src = taken.url;
  try {
    await taken.image.decode();
    [taken.width, taken.height] = [taken.image.naturalWidth, taken.image.naturalHeight];
  } catch {
    // Another kind than browsers read, which the server may: it is sent as it is.
  }
}

// Makes a picture the one that is asked about.
async function hold(taken, note = "") {
  picture = taken;
  await taken.ready;
  if (picture !== taken) return;
  part("preview").src = taken.url;
  part("preview").hidden = taken.width === 0;
  part("drop").classList.add("has-picture");
  say("file-name", shortened(taken.name, 80));
  part("file-hint").textContent = "Drop, paste or choose another one";
  say("file-note", (taken.width ? "" : "This browser cannot show it.") + note);
}

function mostFileBytes(question) {
  const others = 1024 + 6 * question.length; // JSON writes a character with at most 6 bytes a UTF-16 unit
  return Math.min(server.max_file_bytes, Math.floor(((server.max_body_bytes - others) * 3) / 4) - 3);
}

// Returns what is sent, and what was done to it in words.
async function fitted(taken, question) {
  await taken.ready;
  const { file, image, width, height } = taken;
  const most = mostFileBytes(question);
  const isLarge = width * height > server.max_pixels;
  if (file.size <= most && !isLarge) return [file, ""];
  if (!width) throw new Problem(`This file is too large for the server, which takes ${mib(server.max_body_bytes)}.`);
  let scale = Math.min(1, Math.sqrt(server.max_pixels / (width * height)));
  for (; scale * Math.min(width, height) >= 1; scale *= 0.75) {
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.floor(width * scale));
    canvas.height = Math.max(1, Math.floor(height * scale));
    const context = canvas.getContext("2d");
    if (context === null) continue; // more than this browser draws
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    const made = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
    if (made === null || made.size > most) continue;
    const limit = isLarge ? mega(server.max_pixels) : mib(server.max_body_bytes);
    const how = scale < 1 ? `Scaled down to ${canvas.width} × ${canvas.height}` : "Sent as JPEG";
    return [made, `${how}: the server takes at most ${limit}.`];
  }
  throw new Problem("This picture cannot be made small enough for the server.");
}

function dataUri(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.replace(/^data:application\/octet-stream;/, "data:;"));
    reader.onerror = () => reject(new Problem("The file can no longer be read: choose it again."));
    reader.readAsDataURL(blob);
  });
}

part("file").addEventListener("change", () => {
  const files = [...part("file").files];
  part("file").value = ""; // so that the same file can be chosen again
  if (files.length) take(files);
});

document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (!files.length || part("ask-form").hidden) return;
  event.preventDefault();
  take(files);
});

// Anywhere on the page, so that a picture that misses the box does not replace the page.
let depth = 0;
document.addEventListener("dragenter", () => part("drop").classList.toggle("is-target", ++depth > 0));
document.addEventListener("dragleave", () => part("drop").classList.toggle("is-target", --depth > 0));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  part("drop").classList.remove("is-target");
  if (!part("ask-form").hidden) take([...event.dataTransfer.files]);
});

part("example").hidden = server.example === null;
part("take-example").addEventListener("click", async () => {
  const bytes = Uint8Array.from(atob(server.example.picture), (character) => character.charCodeAt(0));
  await take([new File([bytes], "example.png", { type: "image/png" })]);
  const field = part("question");
  if (!field.value.trim()) field.value = server.example.question;
  field.focus();
});

// --- asking

part("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  part("ask-form").requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && working) working.abort();
});
part("cancel").addEventListener("click", () => working?.abort());

part("ask-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (working) return;
  say("problem", "");
  const question = part("question").value.trim();
  if (picture === null) return refuse("Choose a picture first.", "file");
  if (!question) return refuse("Type a question or an instruction.", "question");
  const asked = picture;
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1000;
  working = new AbortController();
  part("ask").setAttribute("aria-disabled", "true");
  part("cancel").hidden = false;
  say("progress", "Asking …");
  const clock = setInterval(() => say("clock", `${Math.floor(seconds())} s`), 1000);
  try {
    const [blob, note] = await fitted(asked, question);
    if (note) say("file-note", note);
    const body = JSON.stringify({ image: await dataUri(blob), instruction: question, answer: true });
    const options = { method: "POST", headers: headers({ "Content-Type": "application/json" }), body };
    const record = await request("v1/optimize", options, working.signal);
    show(asked, question, record, seconds(), note);
  } catch (error) {
    say("progress", working.signal.aborted ? "Cancelled." : "");
    if (error.wantsKey) askForKey(error.message);
    else if (!working.signal.aborted) say("problem", error instanceof Problem ? error.message : `This page failed: ${error}`);
  } finally {
    clearInterval(clock);
    say("clock", "");
    if (document.activeElement === part("cancel")) part("question").focus();
    part("ask").removeAttribute("aria-disabled");
    part("cancel").hidden = true;
    working = null;
  }
});

function refuse(why, id) {
  say("problem", why);
  part(id).focus();
}

// --- the answers

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

function certainty(value) {
  if (!isNumber(value)) return element("p", { class: "quiet" }, "certainty not known");
  const bar = element("span", { class: "bar", "--share": value, "aria-hidden": "true" });
  return element("p", { class: "quiet" }, bar, ` certainty ${value.toFixed(2)}`);
}

const shownAnswer = (text) => (text.trim() ? text : "(no words)");

function side(title, answer, sure, words, isChosen) {
  const text = shownAnswer(answer);
  const size = text.length > 120 ? " is-long" : "";
  return element(
    "div",
    { class: isChosen ? "side chosen" : "side" },
    element("h3", {}, title),
    element("p", { class: `answer said${size}` }, text),
    certainty(sure),
    words === null ? null : element("p", { class: "words quiet" }, "asked: ", words),
  );
}

function wordings(record) {
  const rows = Object.entries(record).filter(([, value]) => value && typeof value === "object" && "ias" in value);
  if (rows.length < 2) return null; // the answers tell it all
  const cell = (value) => element("td", { class: "number" }, isNumber(value) ? value.toFixed(2) : "–");
  const lines = rows.map(([role, { text, ias, certainty: sure, answer }]) =>
    element(
      "tr",
      { class: role === record.chosen ? "chosen" : null },
      element("th", { scope: "row" }, ROLES[role] ?? role.replace("_", " ")),
      element("td", { class: "said" }, text),
      cell(ias),
      element("td", { class: "said" }, answer === undefined ? "–" : shownAnswer(answer)),
      cell(sure),
    ),
  );
  const names = [["words"], ["asked"], ["IAS", "number"], ["answer"], ["certainty", "number"]];
  const head = names.map(([name, kind]) => element("th", { scope: "col", class: kind }, name));
  const table = element("table", {}, element("thead", {}, element("tr", {}, head)), element("tbody", {}, lines));
  const box = { class: "table-box", tabindex: "0", role: "region", "aria-label": "All wordings" };
  const note = "IAS: mean nats per token of the words given the picture; lower fits better.";
  return element(
    "div",
    { class: "wordings" },
    element("div", box, table),
    element("p", { class: "quiet" }, element("small", {}, note)),
  );
}

function show(asked, question, record, seconds, note) {
  const isAlone = record.chosen === "initial";
  const [typed, given] = [record.initial_answer, record.answer];
  const isSame = typed === given;
  const words = isAlone ? "your words, left as they are" : element("q", { class: "said" }, record.instruction);
  const outcome = isAlone ? "left as typed" : isSame ? "same answer" : "another answer";
  const chip = element("span", { class: !isAlone && !isSame ? "chip accent" : "chip" }, outcome);
  const [before, after] = [record.initial?.ias, record[record.chosen]?.ias];
  const ias = !isAlone && isNumber(before) && isNumber(after) ? ` IAS ${before.toFixed(2)} → ${after.toFixed(2)}.` : "";
  const reason = record.reason.charAt(0).toUpperCase() + record.reason.slice(1);
  const askAgain = () => {
    part("question").value = question;
    part("question").focus();
    hold(asked);
  };
  const short = isSame ? shownAnswer(given) : `${shownAnswer(typed)} → ${shownAnswer(given)}`;
  const summary = element(
    "summary",
    {},
    asked.width ? element("img", { src: asked.url, alt: "" }) : null,
    element(
      "div",
      {},
      element("h2", { class: "said" }, question),
      element("p", { class: "quiet short" }, shortened(short, 200)),
    ),
  );
  const body = element(
    "div",
    { class: "body" },
    element(
      "div",
      { class: "sides" },
      side("As typed", typed, record.initial_certainty, null, false),
      side("Optimized", given, record.certainty, words, !isAlone),
    ),
    element("p", { class: "verdict" }, chip, ` ${reason}.${ias}`),
    (record.notices ?? []).map((notice) => element("p", { class: "notice" }, notice)),
    wordings(record),
    element("p", { class: "quiet" }, element("small", {}, `${asked.name}, ${seconds.toFixed(1)} s. ${note}`)),
    element("div", { class: "controls" }, element("button", { type: "button", onclick: askAgain }, "Ask about this again")),
  );
  const list = part("asked");
  for (const earlier of list.querySelectorAll("details")) earlier.open = false;
  const entry = element("li", { class: "card" }, element("details", { open: true }, summary, body));
  list.prepend(entry);
  while (list.children.length > MAX_ASKED) list.lastChild.remove();
  part("nothing").hidden = true;
  // Read aloud as a whole; what is seen stands in the list.
  const told = [`As typed: ${shownAnswer(typed)}.`, `Optimized: ${shownAnswer(given)}.`, ...(record.notices ?? [])];
  say("told", shortened(told.join(" "), 1000));
  say("progress", "");
  const field = part("question"); // the next question goes over this one, unless it is being typed already
  if (document.activeElement === field && field.value.trim() === question) field.select();
  entry.scrollIntoView({ block: "nearest" });
}

// --- the beginning

if (server.needs_key) {
  askForKey();
} else {
  meet().catch((error) => (error.wantsKey ? askForKey(error.message) : say("problem", error.message)));
}
