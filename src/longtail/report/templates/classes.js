// One table of classes in the page: the search reads it, the panel of a class shows it, and hover texts are written from
// it. The address says which class is shown (#class=NAME), so that a link leads to it and "back" leaves it.
const Classes = (() => {
  const OPTIONS = 12, VALUES = 60, MARKED = "marked";
  const script = document.getElementById("class-table");
  if (!script) return null;
  const table = JSON.parse(script.textContent);
  const lower = table.names.map((name) => name.toLowerCase());
  const panel = document.getElementById("class-panel"), input = document.getElementById("class-search");
  const list = document.getElementById("class-options"), status = document.getElementById("class-status");
  const clear = document.getElementById("class-clear");
  let shown = [], active = -1, chosen = null, told = 0;

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  };
  const grouped = new Intl.NumberFormat("en");
  const count = (number, noun, plural = `${noun}s`) => `${grouped.format(number)} ${number === 1 ? noun : plural}`;
  const testedWords = (images) => `${count(images, `${table.split} image`)}${images > 0 && images < table.few ? ": too few to tell" : ""}`;
  const percent = (tenths) => (tenths === null || tenths === undefined ? "n/a" : (tenths / 10).toFixed(1));
  const called = (index) => (/^[\d.]+$/.test(table.names[index]) ? `class ${table.names[index]}` : table.names[index]);
  const groupOf = (index, run) => ((run === null ? null : table.runs[run].groups) ?? table.groups)[index];
  const trainOf = (index, run) => ((run === null ? null : table.runs[run].train) ?? table.train)[index];
  const interval = (run, index) => (run.low?.[index] == null ? "" : `${percent(run.low[index])}\u2013${percent(run.high[index])}`);
  const dot = (group) => make("span", { class: "dot", style: `background: var(--${table.group_names[group]})`, "aria-hidden": "true" });
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));

  // Hover text: plotly reads it as markup.
  const escaped = (text) => (text.length > 60 ? `${text.slice(0, 59)}\u2026` : text).replace(/[&<>]/g, (letter) => `&#${letter.charCodeAt(0)};`);
  const hovers = new Map(); // of each run, and of none, by class: written once, shared by all figures
  const describe = (index, run) => {
    if (!hovers.has(run)) hovers.set(run, []);
    return (hovers.get(run)[index] ??= describeAnew(index, run));
  };
  const describeAnew = (index, run) => {
    const tested = table.test[index];
    const lines = [escaped(table.names[index]), `${table.group_labels[groupOf(index, run)]}, ${count(trainOf(index, run), "training image")}`];
    if (run !== null) {
      lines.push(`accuracy ${percent(table.runs[run].recall[index])}%`);
      if (interval(table.runs[run], index)) lines.push(`95% interval ${interval(table.runs[run], index)}`);
    }
    if (tested) lines.push(testedWords(tested));
    return lines.join("<br>");
  };

  // Names that are the words, begin with them, hold a word that does, or hold them; in this order.
  const find = (words) => {
    const sought = words.trim().toLowerCase(), ranks = [[], [], [], []];
    if (!sought) return [];
    lower.forEach((name, index) => {
      const at = name.indexOf(sought);
      if (at < 0) return;
      ranks[name === sought ? 0 : at === 0 ? 1 : /[\s_\-/.]/.test(name[at - 1]) ? 2 : 3].push(index);
    });
    return ranks.flat();
  };

  // ---- the search: a combobox with a list of options
  const mark = (position) => {
    active = position;
    [...list.children].forEach((option, i) => option.setAttribute("aria-selected", String(i === position)));
    if (position < 0) input.removeAttribute("aria-activedescendant");
    else { input.setAttribute("aria-activedescendant", list.children[position].id); list.children[position].scrollIntoView({ block: "nearest" }); }
  };
  const close = () => { shown = []; list.replaceChildren(); list.hidden = true; input.setAttribute("aria-expanded", "false"); mark(-1); };
  const suggest = () => {
    const matches = find(input.value);
    shown = matches.slice(0, OPTIONS);
    list.replaceChildren(...shown.map((index, i) => make("li", {
      role: "option", id: `class-option-${i}`, "aria-selected": "false",
      onpointerdown: (event) => event.preventDefault(), onclick: () => go(index),
    }, make("span", { class: "name" }, dot(table.groups[index]), table.names[index]), make("span", { class: "count" }, count(table.train[index], "image")))));
    list.hidden = !shown.length;
    input.setAttribute("aria-expanded", String(shown.length > 0));
    mark(-1);
    const words = matches.length ? count(matches.length, "class", "classes") + (matches.length > OPTIONS ? `, the first ${OPTIONS} listed` : "") : "no class of that name";
    tell(input.value.trim() ? words : "");
  };
  // A moment after the last key, so that a screen reader is not interrupted at each.
  const tell = (words) => { clearTimeout(told); told = setTimeout(() => { status.textContent = words; }, 150); };
  const steps = { ArrowDown: 1, ArrowUp: -1 };
  input.addEventListener("input", suggest);
  input.addEventListener("focus", () => { if (input.value && list.hidden && chosen === null) suggest(); });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.key in steps) {
      event.preventDefault();
      if (list.hidden) suggest();
      if (shown.length) mark((active + steps[event.key] + shown.length + (active < 0 && event.key === "ArrowUp" ? 1 : 0)) % shown.length);
    } else if (event.key === "Enter" && !list.hidden) {
      event.preventDefault();
      go(shown[Math.max(active, 0)]);
    } else if (event.key === "Escape") {
      if (!list.hidden) close();
      else if (chosen !== null || input.value) leave();
    }
  });

  // ---- the panel of a class
  const link = (index) => make("a", { href: `#class=${encodeURIComponent(table.names[index])}` }, called(index));
  const confusions = (run, index) => {
    const pairs = run.taken?.[index];
    if (!pairs) return ["not kept"];
    if (!pairs.length) return [table.test[index] ? "never" : "n/a"];
    return pairs.flatMap((value, i) => (i % 2 ? [` ${value}%`, i + 1 < pairs.length ? ", " : ""] : [link(value)]));
  };
  const results = (index) => make("table", {},
    make("caption", {}, "Accuracy in % with its 95% interval, and what the class is taken for, with the share of its images."),
    make("thead", {}, make("tr", {}, ...["Configuration", "Accuracy", "Interval", "Taken for"].map((words, i) => make("th", { scope: "col", class: i === 1 || i === 2 ? "number" : false }, words)))),
    make("tbody", {}, ...table.runs.map((run) => make("tr", {},
      make("th", { scope: "row" }, run.label), make("td", { class: "number" }, percent(run.recall[index])),
      make("td", { class: "number" }, interval(run, index) || "n/a"), make("td", {}, ...confusions(run, index))))));
  const picture = (index, [position, run, other, sure]) => {
    const words = run === undefined ? `training image of ${called(index)}`
      : `${called(index)}, taken for ${called(other)} at ${percent(sure)}% confidence under ${table.runs[run].label}`;
    return make("figure", {}, make("img", { src: table.images[position], alt: words }),
      make("figcaption", { title: words }, ...(run === undefined ? ["training image"] : [called(other), make("span", { class: "quiet" }, table.runs[run].label)])));
  };
  const pictures = (index) => {
    const examples = table.examples[index];
    if (examples) return make("div", { class: "strip" }, ...examples.map((example) => picture(index, example)));
    return make("p", { class: "quiet" }, table.left_out.includes(index) ? "The page has no room for its pictures: {{ examples_file }} in the folder of the run holds them."
      : "No example of it was kept. Older versions kept pictures of the hardest classes only: longtail analyze RUN adds the others.");
  };

  // The value that a figure's hover text writes of a point, without the name of the class.
  const plain = (text) => text.replace(/&(lt|gt|amp);/g, (_, name) => ({ lt: "<", gt: ">", amp: "&" })[name]);
  const formatted = (value, format) => (typeof value === "string" ? value : written(value, format).replace("-", "\u2212"));
  const written = (value, format) => {
    if (typeof value !== "number") return String(value ?? "n/a");
    if (!Number.isFinite(value)) return "n/a";
    const digits = /\.(\d+)/.exec(format)?.[1], kind = format.at(-1);
    if (kind === "%") return `${(100 * value).toFixed(digits ?? 1)}%`;
    if (kind === "f" || (kind === "," && digits)) return value.toLocaleString("en", { minimumFractionDigits: Number(digits ?? 2), maximumFractionDigits: Number(digits ?? 2), useGrouping: format.includes(",") });
    if (format.startsWith(",")) return grouped.format(value);
    return String(Number(value.toPrecision(Number(digits ?? 4))));
  };
  const valueOf = ({ trace, axis, positions }, index) => {
    const run = trace.meta.includes(":") ? table.runs[Number(trace.meta.slice(6))] : null;
    if (positions.length > 1) return MARKED;
    const words = String(trace.hovertemplate ?? "").replace(/<extra>.*$/s, "").replace("%{text}", "")
      .replace(/%\{(\w+)(?::([^}]*))?\}/g, (_, name, format) => formatted(trace[name]?.[positions[0]], format ?? ""));
    const text = plain(words.split(/<br\s*\/?>/).map((part) => part.replace(/<[^>]*>/g, "").trim()).filter(Boolean).join(", "));
    if (text) return text;
    if (run && axis === "Accuracy") return `accuracy ${percent(run.recall[index])}%`;
    return axis ? `${formatted(trace.y[positions[0]], ",")} ${axis.toLowerCase()}` : MARKED;
  };
  const nameOf = (target) => {
    const section = target.closest("section"), title = target.closest("figure")?.querySelector("h3")?.textContent ?? "";
    const heading = section?.querySelector("h2")?.textContent ?? "";
    return { section, heading, words: [heading, title].filter(Boolean).join(", ") };
  };
  // One line a figure with what it says of the class; figures that only mark images of it share a line of their section.
  const values = (index) => {
    const figures = new Map(), lines = new Map();
    for (const place of Figures.places(index)) {
      const texts = figures.get(place.target) ?? new Set();
      figures.set(place.target, texts.add(valueOf(place, index)));
    }
    for (const [target, texts] of figures) {
      const { section, heading, words } = nameOf(target);
      if (texts.size > 1) texts.delete(MARKED);
      if (!texts.has(MARKED)) lines.set(target, { section, words, text: [...texts].join("; ") });
      else {
        const figures = (lines.get(heading)?.figures ?? 0) + 1;
        lines.set(heading, { section, words: heading, figures, text: `marked in ${count(figures, "figure")}` });
      }
    }
    const rows = [...lines.values()].slice(0, VALUES).map(({ section, words, text }) =>
      make("div", {}, make("dt", {}, make("a", { href: `#${section?.id ?? ""}` }, words)), make("dd", {}, text)));
    if (!rows.length) return [];
    return [make("h3", {}, "In the figures"), make("dl", { class: "values" }, ...rows)];
  };
  const facts = (index) => {
    const group = table.groups[index], tested = table.test[index];
    const words = [` ${table.group_labels[group]}`, count(table.train[index], "training image")];
    if (table.split) words.push(testedWords(tested));
    return make("p", { class: "quiet" }, dot(group), words.join(", "));
  };
  const render = async (index) => {
    const first = [
      make("div", { class: "head" }, make("h2", { id: "class-title" }, called(index).replace(/^class /, "Class ")),
        make("button", { type: "button", onclick: leave }, "Close")),
      facts(index), make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Results of the class" }, results(index)),
      make("h3", {}, "Examples"), pictures(index), ...values(index),
    ];
    panel.replaceChildren(...first);
    panel.hidden = false;
    panel.scrollIntoView({ block: "start" });
    const accuracies = table.runs.map((run) => `${percent(run.recall[index])}% under ${run.label}`).slice(0, 4).join(", ");
    tell(`${called(index)}: ${panel.querySelector("p").textContent.trim()}. Accuracy ${accuracies}. Marked in the figures.`);
    // What is asked for first: the rings come after the panel is painted, as thousands of points take a moment to draw.
    await painted();
    if (chosen === index) Figures.choose(index);
  };

  const show = (index) => {
    if (index === chosen) return;
    chosen = index;
    close();
    clear.hidden = index === null;
    input.value = index === null ? "" : table.names[index];
    if (index !== null) { render(index); return; }
    panel.hidden = true;
    panel.replaceChildren();
    tell("No class is marked.");
    Figures.choose(null);
  };
  // The address is the one place that says which class is shown.
  const read = () => {
    if (location.hash.startsWith("#class=")) {
      let name = location.hash.slice(7);
      try { name = decodeURIComponent(name); } catch { /* a stray % stands for itself */ }
      const index = table.names.indexOf(name);
      if (index >= 0) show(index);
      else tell(`There is no class ${name}.`);
    } else if (location.hash === "") show(null);
  };
  const go = (index) => {
    close();
    input.value = table.names[index];
    const hash = `#class=${encodeURIComponent(table.names[index])}`;
    if (location.hash === hash) { show(index); panel.scrollIntoView({ block: "start" }); } else location.hash = hash;
  };
  const leave = () => {
    history.pushState(null, "", location.href.split("#")[0]);
    show(null);
    input.focus({ preventScroll: true });
  };

  window.addEventListener("hashchange", read);
  window.addEventListener("popstate", read);
  document.addEventListener("class-clicked", ({ detail }) => go(detail));
  clear.addEventListener("click", leave);
  input.closest(".tools").hidden = false;
  const skip = document.querySelector('a.skip[href="#class-search"]');
  skip.hidden = false;
  // Without the address: that says which class is shown.
  skip.addEventListener("click", (event) => { event.preventDefault(); input.focus(); });
  Figures.describeWith(describe);
  read();
  return { table, percent, interval };
})();
