"use strict";
// The report of ask and optimize. Every text goes in as text (`textContent`), never as HTML.
// The three blocks of data have a line for each item; those of pictures and maps are read when an item is in sight.
(() => {
  const ROW = 76; // px, as in page.css
  const FULL_HEAT = 4; // nats; what costs more is as dark
  const byId = (id) => document.getElementById(id);
  const lines = (id) => byId(id).textContent.split("\n").slice(1, -1);
  const previews = lines("previews"), maps = lines("maps");
  const items = lines("items").map((line, place) => described(...JSON.parse(line), place));
  const list = byId("list"), itemBox = byId("item"), split = document.querySelector(".split");
  let view = items.map((_, place) => place), selected = 0;
  const pressed = new Set();

  // ---- what an item is

  function described(record, details, place) {
    const found = details || {};
    const optimization = record.optimization || (record.chosen ? record : null);
    const versions = [];
    if (optimization) {
      for (const [role, value] of Object.entries(optimization)) {
        if (value && typeof value === "object" && "text" in value && /^(initial|rewritten|optimized|variant_\d+)$/.test(role)) {
          versions.push({ role, ...value, ...(found.versions || {})[role], isChosen: role === optimization.chosen });
        }
      }
    }
    const typed = versions.find((version) => version.role === "initial");
    const chosen = versions.find((version) => version.isChosen);
    const item = { record, place, versions, optimization, failed: record.status !== "ok" };
    item.name = String(record.image ?? record.id);
    item.question = record.question ?? (typed ? typed.text : record.instruction ?? "");
    item.asked = record.instruction ?? item.question;
    item.before = record.initial_answer ?? (typed ? typed.answer : undefined);
    item.beforeCertainty = record.initial_certainty ?? (typed ? typed.certainty : undefined);
    item.after = record.answer ?? (chosen ? chosen.answer : undefined);
    item.certainty = found.certainty ?? record.certainty ?? (chosen ? chosen.certainty : undefined);
    item.isChanged = Boolean(chosen && typed && chosen !== typed && chosen.text !== typed.text);
    item.isAnsweredOtherwise = item.isChanged && item.before !== undefined && item.after !== undefined && item.before !== item.after;
    item.gain = typed && chosen && isNumber(typed.ias) && isNumber(chosen.ias) ? typed.ias - chosen.ias : null;
    item.notices = [...(record.notices || []), ...((record.optimization || {}).notices || [])];
    item.words = [item.name, record.id, item.question, item.after, item.before, record.message, ...versions.map((version) => version.text)]
      .join("\n").toLowerCase();
    return item;
  }
  function isNumber(value) { return typeof value === "number"; }

  // ---- small helpers for elements

  function shown(text) {
    // What moves a cursor or reorders a line is shown as an escape, as on the terminal.
    return String(text).replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g,
      (character) => "\\u" + character.charCodeAt(0).toString(16).padStart(4, "0"));
  }
  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value === undefined || value === null || value === false) continue;
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (key.startsWith("--")) made.style.setProperty(key, value);
      else made.setAttribute(key, value === true ? "" : value);
    }
    for (const child of children.flat()) {
      if (child !== null && child !== undefined) made.append(child instanceof Node ? child : shown(child));
    }
    return made;
  }
  const said = (text, more) => element("span", { class: `said ${more || ""}` }, text);
  const decimals = (value, digits) => (isNumber(value) ? value.toFixed(digits) : "");
  const shortened = (text, most) => { const plain = String(text); return plain.length > most ? plain.slice(0, most) + " ..." : plain; };
  const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
  const named = (role) => role.replace("_", " ");
  function tableBox(label, table) { return element("div", { class: "table-box", tabindex: 0, role: "region", "aria-label": label }, table); }
  function lazily(title, make) {
    // A table of numbers for those who want them; built when it is opened.
    const box = element("details", {}, element("summary", {}, title));
    box.addEventListener("toggle", () => { if (box.open && box.childElementCount === 1) box.append(make()); });
    box.renew = () => { if (box.childElementCount > 1) box.lastChild.replaceWith(make()); };
    return box;
  }
  function certain(value) {
    if (!isNumber(value)) return null;
    return element("span", { class: "certain" }, element("span", { class: "bar", "--share": value, "aria-hidden": "true" }), `certainty ${decimals(value, 2)}`);
  }
  function picture(place) { return place < previews.length ? JSON.parse(previews[place]) : null; }
  function bytes(packed) { return Uint8Array.from(atob(packed), (character) => character.charCodeAt(0)); }

  // ---- the list

  function threshold() { const value = Number(byId("threshold").value); return Number.isFinite(value) ? value : 0.5; }
  const FILTERS = {
    changed: ["other words", (item) => item.isChanged],
    answer: ["other answer", (item) => item.isAnsweredOtherwise],
    uncertain: ["uncertain", (item) => isNumber(item.certainty) && item.certainty < threshold()],
    failed: ["failed", (item) => item.failed],
  };
  const last = (value) => (isNumber(value) ? value : Infinity);
  const ORDERS = {
    file: () => 0,
    certainty: (one, other) => last(one.certainty) - last(other.certainty),
    gain: (one, other) => last(isNumber(one.gain) ? -one.gain : null) - last(isNumber(other.gain) ? -other.gain : null),
  };

  function refilter() {
    const words = byId("search").value.trim().toLowerCase();
    const order = ORDERS[byId("sort").value];
    view = items
      .filter((item) => (!words || item.words.includes(words)) && [...pressed].every((name) => FILTERS[name][1](item)))
      .sort((one, other) => order(one, other) || one.place - other.place)
      .map((item) => item.place);
    for (const [name, [label, holds]] of Object.entries(FILTERS)) {
      byId(`filter-${name}`).textContent = `${label} ${items.filter(holds).length.toLocaleString("en")}`;
    }
    byId("count").textContent = view.length === items.length ? plural(items.length, "item") : `${view.length.toLocaleString("en")} of ${plural(items.length, "item")}`;
    list.scrollTop = 0;
    if (view.length && !view.includes(selected)) select(view[0], { scrolls: false });
    paint(true);
  }

  function rowOf(place, position) {
    const item = items[place], preview = picture(place);
    const answer = item.failed ? element("span", { class: "answer bad" }, shortened(item.record.message || "failed", 200))
      : element("span", { class: "answer" },
        item.isAnsweredOtherwise ? [shortened(item.before, 80), " \u2192 "] : null,
        item.after !== undefined ? element("b", {}, shortened(item.after, 160) || "(empty)") : item.isChanged ? shortened(item.asked, 160) : "words left as they are",
        isNumber(item.certainty) ? ` ${decimals(item.certainty, 2)}` : null);
    return element("div", {
      class: "row", role: "option", id: `row-${place}`, "aria-selected": place === selected ? "true" : "false",
      "aria-setsize": view.length, "aria-posinset": position + 1,
      onclick: () => { select(place); showItem(); },
    },
    preview && preview[0] ? element("img", { class: "thumb", src: preview[0], alt: "" }) : element("div", { class: "thumb" }),
    element("div", {}, element("span", { class: "name" }, element("bdi", {}, shortened(item.name, 200))), element("span", {}, element("bdi", {}, shortened(item.question, 200))), answer));
  }
  let painted = "";
  function paint(anew) {
    if (items.length < 2) return;
    const rows = byId("rows");
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
    const end = Math.min(view.length, first + Math.ceil(list.clientHeight / ROW) + 8);
    if (!anew && painted === `${first}-${end}`) return;
    painted = `${first}-${end}`;
    rows.style.height = `${Math.max(1, view.length) * ROW}px`;
    const made = [];
    for (let position = first; position < end; position += 1) {
      const row = rowOf(view[position], position);
      row.style.top = `${position * ROW}px`;
      made.push(row);
    }
    if (!view.length) { rows.replaceChildren(element("p", { class: "quiet" }, "No item is like that.")); list.removeAttribute("role"); return; }
    list.setAttribute("role", "listbox");
    rows.replaceChildren(...made);
    if (byId(`row-${selected}`)) list.setAttribute("aria-activedescendant", `row-${selected}`);
    else list.removeAttribute("aria-activedescendant");
  }
  function select(place, { scrolls = true } = {}) {
    selected = place;
    const position = view.indexOf(place);
    if (scrolls && position >= 0) {
      const top = position * ROW;
      if (top < list.scrollTop) list.scrollTop = top;
      else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    }
    try { history.replaceState(null, "", `#${place + 1}`); } catch { /* a page in a frame may not */ }
    paint(true);
    render(items[place]);
  }
  function step(by) {
    if (!view.length) return;
    const position = view.indexOf(selected);
    select(view[Math.min(view.length - 1, Math.max(0, position + by))]);
  }
  function showItem() { split.dataset.shows = "item"; if (getComputedStyle(list).display === "none") { scrollTo(0, 0); itemBox.focus({ preventScroll: true }); } }
  function showList() { split.dataset.shows = "list"; paint(true); select(selected); list.focus(); }

  // ---- one item

  function render(item) {
    const position = view.indexOf(item.place);
    const head = element("div", { class: "item-head" }, element("h2", {}, element("bdi", { class: "mono" }, shortened(item.name, 300))));
    if (items.length > 1) {
      head.append(
        element("button", { type: "button", class: "back", onclick: showList }, "All items"),
        element("span", { class: "quiet" }, position < 0 ? "not in the list" : `${(position + 1).toLocaleString("en")} of ${view.length.toLocaleString("en")}`),
        element("button", { type: "button", onclick: () => step(-1), disabled: position <= 0 }, "Previous"),
        element("button", { type: "button", onclick: () => step(1), disabled: position === view.length - 1 }, "Next"));
    }
    const chips = [];
    const chip = (text, kind) => chips.push(element("li", { class: `chip ${kind || ""}` }, text));
    if (item.failed) chip("failed", "bad");
    if (item.isChanged) chip("asked in other words", "accent");
    else if (item.optimization && !item.failed) chip("words left as they are");
    if (item.isAnsweredOtherwise) chip("other answer", "accent");
    if (FILTERS.uncertain[1](item)) chip(`uncertain: ${decimals(item.certainty, 2)}`, "doubt");
    if (isNumber(item.gain) && item.isChanged) chip(`IAS ${decimals(item.gain, 2)} lower`.replace(/IAS -(.*) lower/, "IAS $1 higher"));

    const card = element("div", { class: "card" });
    if (chips.length) card.append(element("ul", { class: "chips", "aria-label": "In short" }, chips));
    card.append(element("div", { class: "above" }, stage(item), answers(item)));
    if (item.versions.length) card.append(...instructions(item));
    if (item.record.choices) card.append(choices(item.record.choices));
    for (const map of readMaps(item)) if (map.reads) card.append(reading(map));
    card.append(lazily("The record", () => element("pre", { tabindex: 0 }, JSON.stringify(item.record, null, 1))));
    itemBox.replaceChildren(head, card);
  }

  function answers(item) {
    const facts = element("dl", { class: "answers" });
    const fact = (name, ...values) => facts.append(element("div", {}, element("dt", {}, name), element("dd", {}, values)));
    const answer = (text, certainty) => [element("div", { class: "said answer-text" }, text === "" ? "(empty)" : text), certain(certainty)];
    if (item.failed) {
      fact("Failed", element("div", { class: "bad said" }, item.record.message || ""), element("span", { class: "quiet mono" }, item.record.code || ""));
      return facts;
    }
    const ocr = item.record.ocr_tokens;
    if (item.question) fact(item.isChanged ? "As typed" : "Question", element("div", { class: "said question-text" }, item.question));
    if (ocr) fact("Read in the picture", said(ocr));
    if (item.isChanged && item.before !== undefined) fact("Answer to that", ...answer(item.before, item.beforeCertainty));
    if (item.asked !== item.question) fact(item.isChanged ? "Asked in its place" : "Asked as", element("div", { class: "said question-text" }, item.asked));
    if (item.after !== undefined) fact(item.isChanged ? "Answer to what was asked" : "Answer", ...answer(item.after, item.certainty));
    if (item.optimization && item.optimization.reason) fact("Why", element("div", { class: "why said" }, item.optimization.reason));
    if (item.notices.length) facts.append(element("div", {}, element("dt", {}, "Notices"), element("dd", {}, element("ul", { class: "notices" }, item.notices.map((notice) => element("li", { class: "said" }, notice))))));
    return facts;
  }

  function heatWords(version) {
    if (!version.tokens || !version.tokens.length) return element("span", { class: "scroll said" }, version.text);
    const spans = version.tokens.map((token, place) => {
      const nats = version.nll[place];
      const isSpecial = /^<.*>$|^\[[A-Z]+\]$/.test(token);
      const text = token.replace(/^[\u2581\u0120]/, place ? " " : "").replace(/\u2581/g, " ").replace(/\u010a/g, "\n");
      return element("span", { class: isSpecial ? "token special" : "token", "--heat-share": Math.min(1, (nats ?? FULL_HEAT) / FULL_HEAT) * 0.5, title: isNumber(nats) ? `${decimals(nats, 2)} nats` : "not finite" }, isSpecial && place === version.tokens.length - 1 ? "end" : text);
    });
    return element("span", { class: "scroll" }, spans);
  }

  function instructions(item) {
    const versions = item.versions;
    const has = (name) => versions.some((version) => version[name] !== undefined && version[name] !== null);
    const columns = [["IAS", "ias", 3], ["answer", "answer"], ["certainty", "certainty", 2], ["cross check", "cross_nll", 2]].filter(([, name]) => name === "ias" || has(name));
    const rows = versions.map((version) => element("tr", { class: version.isChosen ? "chosen" : "" },
      element("th", { scope: "row" }, named(version.role), version.isChosen ? element("span", { class: "visually-hidden" }, ", chosen") : null),
      element("td", { class: "instruction" }, heatWords(version), (version.faults || []).length ? element("span", { class: "faults" }, version.faults.join("; ")) : null),
      ...columns.map(([, name, digits]) => digits === undefined
        ? element("td", {}, version[name] === undefined ? "" : said(version[name] === "" ? "(empty)" : version[name]))
        : element("td", { class: "number" }, isNumber(version[name]) ? decimals(version[name], digits) : name === "ias" ? element("span", { class: "quiet" }, versions.length === 1 ? "not asked for" : "not finite") : ""))));
    const table = element("table", {},
      element("caption", {}, "Instructions; the chosen one is marked."),
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "version"), element("th", { scope: "col" }, "instruction"), ...columns.map(([label, , digits]) => element("th", { scope: "col", class: digits === undefined ? "" : "number" }, label)))),
      element("tbody", {}, rows));
    const parts = [element("details", { open: true }, element("summary", {}, "Instructions"), tableBox("Instructions", table))];
    if (versions.some((version) => version.tokens && version.tokens.length)) {
      parts[0].append(element("span", { class: "scale", "aria-hidden": "true" }, "0 nats", element("i", {}), `${FULL_HEAT} nats and more per token`));
      parts.push(lazily("Nats of every token", () => element("div", {}, versions.filter((version) => version.tokens && version.tokens.length).map(tokenTable))));
    }
    return parts;
  }
  function tokenTable(version) {
    const heat = (nats) => Math.min(1, (nats ?? FULL_HEAT) / FULL_HEAT);
    return tableBox(`Nats of every token, ${named(version.role)}`, element("table", { class: "heat" },
      element("caption", {}, `${named(version.role)}: mean ${decimals(version.ias, 3)}`),
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "token"), version.tokens.map((token) => element("th", { scope: "col" }, token)))),
      element("tbody", {}, element("tr", {}, element("th", { scope: "row" }, "nats"), version.nll.map((nats) => element("td", { "--heat-share": heat(nats) }, isNumber(nats) ? decimals(nats, 2) : "-"))))));
  }
  function choices(offered) {
    const ranked = [...offered].sort((one, other) => other.probability - one.probability);
    return element("details", { open: true }, element("summary", {}, "Offered answers"), tableBox("Offered answers", element("table", {},
      element("thead", {}, element("tr", {}, ["answer", "probability", "nats per token"].map((label, place) => element("th", { scope: "col", class: place ? "number" : "" }, label)))),
      element("tbody", {}, ranked.map((choice, place) => element("tr", { class: place ? "" : "chosen" }, element("th", { scope: "row" }, said(choice.text)),
        element("td", { class: "number" }, element("span", { class: "bar", "--share": choice.probability, "aria-hidden": "true" }), ` ${decimals(choice.probability, 3)}`),
        element("td", { class: "number" }, decimals(choice.nll, 3))))))));
  }

  // ---- where the queries look and what they read

  function readMaps(item) { return (item.place < maps.length && JSON.parse(maps[item.place])) || []; }
  const WHOSE = { typed: "as typed", asked: "as asked" };

  function stage(item) {
    const preview = picture(item.place), found = readMaps(item);
    const figure = element("figure", {});
    if (!preview) {
      figure.append(element("figcaption", {}, item.failed ? "The picture could not be used." : "Its picture is of an earlier run, and is not kept here."));
      return figure;
    }
    if (preview[0]) {
      const box = element("div", { class: "stage" }, element("img", { src: preview[0], alt: preview[1] || `The picture ${shortened(item.name, 100)}` }));
      figure.append(box);
      if (found.length) figure.append(looking(box, found));
    }
    if (preview[1]) figure.append(element("figcaption", {}, preview[1]));
    return figure;
  }

  function looking(box, found) {
    const canvas = element("canvas", { "aria-hidden": "true" });
    box.append(canvas);
    let map = found[found.length - 1];
    const number = element("input", { type: "range", min: 0, max: map.looks.length - 1, value: 0, "aria-label": "Query; 0 is the mean of all" });
    const words = element("span", { class: "quiet", role: "status" });
    const isShown = element("input", { type: "checkbox", checked: true });
    const whose = element("select", { "aria-label": "Of which instruction" }, [...found].reverse().map((one) => element("option", { value: one.of }, WHOSE[one.of])));
    const numbers = lazily("As numbers", () => patchTable(map, Number(number.value)));
    function draw() {
      const query = Number(number.value), [rows, columns] = map.grid, values = bytes(map.looks[query]);
      canvas.width = columns;
      canvas.height = rows;
      canvas.hidden = !isShown.checked;
      const drawing = canvas.getContext("2d"), shade = drawing.createImageData(columns, rows);
      // What is not looked at is darkened: that shows on a picture of any colour.
      values.forEach((value, place) => { shade.data[place * 4 + 3] = (1 - value / 255) * 190; });
      drawing.putImageData(shade, 0, 0);
      const top = values.indexOf(255), peak = map.peaks[query];
      const where = top < 0 ? "" : `, most at row ${Math.floor(top / columns) + 1}, column ${(top % columns) + 1} of ${rows} x ${columns} (${decimals(peak * 100, 1)} %)`;
      words.textContent = `${query ? `query ${query} of ${map.queries}` : `mean of ${map.queries} queries`}${where}`;
      numbers.renew();
    }
    number.addEventListener("input", draw);
    isShown.addEventListener("change", draw);
    whose.addEventListener("change", () => { map = found.find((one) => one.of === whose.value); number.max = map.looks.length - 1; draw(); });
    draw();
    return element("div", { class: "look" },
      element("label", {}, isShown, " Where the queries look"),
      found.length > 1 ? whose : null,
      map.looks.length > 1 ? number : null,
      words, numbers);
  }
  function patchTable(map, query) {
    const [, columns] = map.grid, values = bytes(map.looks[query]), rows = [];
    for (let start = 0; start < values.length; start += columns) {
      rows.push(element("tr", {}, element("th", { scope: "row" }, start / columns + 1), [...values.slice(start, start + columns)].map((value) => element("td", { "--heat-share": value / 255 }, decimals((value / 255) * map.peaks[query] * 100, 1)))));
    }
    return tableBox("Percent of the attention on each patch", element("table", { class: "heat" },
      element("caption", {}, "Percent of the attention on each patch"),
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "row"), Array.from({ length: columns }, (_, column) => element("th", { scope: "col" }, column + 1)))),
      element("tbody", {}, rows)));
  }
  function reading(map) {
    return lazily(`What the queries read, ${WHOSE[map.of]} (CMAA)`, () => {
      const values = bytes(map.reads), count = map.tokens.length;
      const rows = Array.from({ length: map.queries }, (_, query) => element("tr", {}, element("th", { scope: "row" }, `query ${query + 1}`),
        [...values.slice(query * count, (query + 1) * count)].map((value) => element("td", { "--heat-share": value / 255 }, value ? decimals(value / 255, 2) : "0"))));
      return tableBox("What each query reads, as shares of 1", element("table", { class: "heat" },
        element("caption", {}, "Shares of 1 of what each query takes of each token"),
        element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "query"), map.tokens.map((token) => element("th", { scope: "col" }, token)))),
        element("tbody", {}, rows)));
    });
  }

  // ---- the page

  function begin() {
    const wanted = Number(location.hash.slice(1));
    if (Number.isInteger(wanted) && wanted >= 1 && wanted <= items.length) selected = wanted - 1;
    if (!items.length) { itemBox.append(element("p", { class: "quiet" }, "There is no record.")); return; }
    if (items.length === 1) { render(items[0]); return; }
    split.classList.add("with-list");
    split.dataset.shows = location.hash.length > 1 ? "item" : "list";
    for (const part of [list, byId("controls"), byId("count")]) part.hidden = false;
    for (const [name, [, holds]] of Object.entries(FILTERS)) {
      const button = element("button", { type: "button", id: `filter-${name}`, "aria-pressed": "false", disabled: name !== "uncertain" && !items.some(holds) });
      button.addEventListener("click", () => {
        button.setAttribute("aria-pressed", String(!pressed.has(name)));
        pressed.has(name) ? pressed.delete(name) : pressed.add(name);
        refilter();
      });
      byId("filters").append(button);
    }
    list.append(element("div", { id: "rows", role: "presentation" }));
    Object.entries({ role: "listbox", tabindex: 0, "aria-label": "Items" }).forEach(([name, value]) => list.setAttribute(name, value));
    byId("search").addEventListener("input", refilter);
    byId("sort").addEventListener("change", refilter);
    byId("threshold").addEventListener("input", refilter);
    list.addEventListener("scroll", () => requestAnimationFrame(() => paint(false)), { passive: true });
    addEventListener("resize", () => paint(true));
    const inSight = () => Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    list.addEventListener("keydown", (event) => {
      const by = { ArrowDown: 1, ArrowUp: -1, PageDown: inSight(), PageUp: -inSight(), Home: -items.length, End: items.length }[event.key];
      if (by !== undefined) step(by);
      else if (event.key === "Enter" || event.key === " ") { showItem(); itemBox.focus(); }
      else return;
      event.preventDefault();
    });
    itemBox.addEventListener("keydown", (event) => { if (event.key === "Escape") { showList(); } });
    refilter();
    select(selected);
  }
  begin();
})();
