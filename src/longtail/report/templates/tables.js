// Tables: a click on a heading sorts by its column, and a button writes the table as CSV.
(() => {
  const MINUS = "\u2212", DASH = "\u2013";
  const plain = (text) => text.replace(/\s+/g, " ").trim();
  // What a cell shows next to its value: the deviation, the interval, the difference.
  const PARTS = { std: "deviation", interval: "interval", change: "difference" };
  const ENDS = ["difference low", "difference high"], HOLDS = "difference holds over";
  const split = (cell) => {
    const copy = cell.cloneNode(true), parts = {};
    copy.querySelectorAll(".alone").forEach((sign) => sign.remove());
    for (const [name, words] of Object.entries(PARTS)) {
      const part = copy.querySelector(`.${name}`);
      if (part) { parts[words] = plain(part.textContent).replace("±", "").replace(MINUS, "-").trim(); part.remove(); }
      if (part?.dataset.ends) part.dataset.ends.split(" ").forEach((end, i) => { parts[ENDS[i]] = end.replace(MINUS, "-"); });
      if (part?.dataset.holds) parts[HOLDS] = part.dataset.holds;
    }
    copy.querySelectorAll("button .arrow").forEach((arrow) => arrow.remove());
    return { value: plain(copy.textContent), ...parts };
  };
  const number = (text) => {
    const match = /^[^\d+\-\u2212]*([+\-\u2212]?[\d,]*\.?\d+(?:e[+-]?\d+)?)/.exec(text);
    return match ? Number(match[1].replaceAll(",", "").replace(MINUS, "-")) : NaN;
  };

  const key = (cell) => (cell.classList.contains("number") ? number(split(cell).value) : split(cell).value.toLowerCase());
  const compare = (left, right) => {
    const [none, nor] = [left, right].map((value) => Number.isNaN(value) || value === "" || value === "n/a");
    if (none || nor) return { order: none - nor, fixed: true };
    return { order: typeof left === "number" && typeof right === "number" ? left - right : String(left).localeCompare(String(right), "en", { numeric: true }), fixed: false };
  };
  // Rows about an earlier stage stay beneath the row they belong to.
  const blocks = (body) => [...body.rows].reduce((groups, row) => {
    if (row.classList.contains("stage") && groups.length) groups.at(-1).push(row);
    else groups.push([row]);
    return groups;
  }, []);
  const sort = (table, column) => {
    const heads = [...table.tHead.rows[0].cells], head = heads[column];
    const falls = head.getAttribute("aria-sort") === "ascending" || (!head.hasAttribute("aria-sort") && head.classList.contains("number"));
    heads.forEach((cell) => cell.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falls ? "descending" : "ascending");
    const body = table.tBodies[0];
    const keyed = blocks(body).map((rows) => ({ rows, key: key(rows[0].cells[column]) }));
    keyed.sort((left, right) => {
      const { order, fixed } = compare(left.key, right.key);
      return fixed || !falls ? order : -order;
    });
    body.append(...keyed.flatMap(({ rows }) => rows));
  };

  const quoted = (cell) => { const text = String(cell); return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text; };
  const grid = (table) => {
    const heads = [...table.tHead.rows[0].cells].map((cell) => split(cell).value);
    const rows = [...table.tBodies[0].rows].map((row) => [...row.cells].map(split));
    const extra = heads.map((_, i) => [...Object.values(PARTS), ...ENDS, HOLDS].filter((name) => rows.some((row) => row[i]?.[name] !== undefined)));
    const ends = (name) => (name === "interval" ? ["low", "high"] : [name]);
    const cells = (part, name) => (name === "interval" ? (part?.[name] ?? `${DASH}`).split(DASH) : [part?.[name] ?? ""]);
    const clean = (text) => (/^[+\u2212\d][\d,.]*$/.test(text) ? text.replaceAll(",", "").replace(MINUS, "-") : text.replace(/ \*$/, ""));
    return [
      heads.flatMap((head, i) => [head, ...extra[i].flatMap(ends).map((name) => `${head} ${name}`)]),
      ...rows.map((row) => row.flatMap((part, i) => [clean(part.value), ...extra[i].flatMap((name) => cells(part, name))])),
    ];
  };
  // The table of classes holds the hardest only where there are thousands; its file holds them all.
  const allClasses = () => {
    const { table, percent, interval } = Classes;
    const tested = table.split === "validation" ? "Validation images" : "Test images";
    const heads = ["Class", "Group", "Training images", tested, ...table.runs.flatMap(({ label }) => [label, `${label} low`, `${label} high`])];
    const rows = table.names.map((name, i) => [
      name, table.group_names[table.groups[i]], table.train[i], table.test[i],
      ...table.runs.flatMap((run) => [percent(run.recall[i]), ...(interval(run, i) || DASH).split(DASH)]),
    ]);
    return [heads, ...rows];
  };
  const save = (rows, name) => {
    const text = `${rows.map((row) => row.map(quoted).join(",")).join("\r\n")}\r\n`;
    const address = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
    const link = Object.assign(document.createElement("a"), { href: address, download: `${name}.csv` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  };

  document.querySelectorAll("main section table").forEach((table, place) => {
    if (!table.tHead || !table.tBodies.length) return;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = Object.assign(document.createElement("button"), { type: "button", className: "sort" });
      const arrow = Object.assign(document.createElement("span"), { className: "arrow" });
      arrow.setAttribute("aria-hidden", "true");
      button.append(...head.childNodes, arrow);
      head.append(button);
      button.addEventListener("click", () => sort(table, column));
    });
    const section = table.closest("section").id;
    const isPart = section === "accuracy" && Classes && Classes.table.names.length > table.tBodies[0].rows.length;
    const before = [...document.querySelectorAll(`#${CSS.escape(section)} table`)].indexOf(table);
    const button = Object.assign(document.createElement("button"), { type: "button", className: "csv", textContent: "Download as CSV" });
    const caption = plain(table.caption?.textContent ?? table.closest("[aria-label]")?.getAttribute("aria-label") ?? `table ${place + 1}`);
    button.setAttribute("aria-label", `Download as CSV: ${caption.split(/[.,]/)[0]}`);
    button.addEventListener("click", () => save(isPart ? allClasses() : grid(table), before ? `${section}-${before + 1}` : section));
    (table.closest(".scroll") ?? table).after(button);
  });
})();
