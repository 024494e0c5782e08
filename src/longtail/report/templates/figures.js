// Draws the figures in the colors of the reader's theme: first those near the screen, then the rest, one a turn so that
// the page stays responsive; those behind a fold once it is opened, as a hidden figure has no width. A browser keeps few
// WebGL contexts, so figures that need one live only near the screen, and beyond LIVE of them a figure is drawn without.
// For print all are drawn, light and without WebGL.
const Figures = (() => {
  const LIVE = 6, NEAR = "400px", RINGS = 300;
  const PAPER = [680, 325]; // pixels of one and of two figures in a line of paper, as in the style
  const ARRAYS = { i1: Int8Array, u1: Uint8Array, i2: Int16Array, u2: Uint16Array, i4: Int32Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array };
  const DATA = new Set(["x", "y", "z", "text", "customdata"]);
  const coarse = window.matchMedia("(pointer: coarse)").matches;
  const options = { displayModeBar: false, responsive: true, displaylogo: false, doubleClick: "reset" };
  let describe = null, chosen = null, printing = false, busy = false;

  const figures = [...document.querySelectorAll("script[data-figure]")].map((script) => {
    const target = document.getElementById(script.dataset.figure);
    return { target, script, spec: null, gl: script.textContent.includes('"scattergl"'), near: false, stale: true, live: false };
  });
  const of = new Map(figures.map((figure) => [figure.target, figure]));

  const decode = (value) => {
    if (Array.isArray(value)) return value.map(decode);
    if (value === null || typeof value !== "object") return value;
    if (typeof value.bdata === "string" && ARRAYS[value.dtype] && !value.shape) {
      const letters = atob(value.bdata), bytes = new Uint8Array(letters.length);
      for (let i = 0; i < bytes.length; i += 1) bytes[i] = letters.charCodeAt(i);
      return new ARRAYS[value.dtype](bytes.buffer);
    }
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, decode(item)]));
  };
  const isClasses = (trace) => typeof trace.meta === "string" && /^class(:\d+)?$/.test(trace.meta) && trace.customdata;
  // The run a trace is about, or null.
  const runOf = (trace) => (trace.meta.includes(":") ? Number(trace.meta.slice(6)) : null);
  const specOf = (figure) => {
    if (figure.spec) return figure.spec;
    figure.spec = decode(JSON.parse(figure.script.textContent));
    return figure.spec;
  };
  const addWords = (trace) => {
    if (!describe || trace.text || !isClasses(trace)) return;
    const run = runOf(trace);
    trace.text = Array.from(trace.customdata, (index) => describe(index, run));
  };

  const recolor = (value, colors) => {
    if (typeof value === "string") return colors[value] ?? value;
    if (Array.isArray(value)) return value.map((item) => recolor(item, colors));
    if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, DATA.has(key) ? item : recolor(item, colors)]));
  };
  const light = Object.fromEntries(Object.keys(RECOLOR).map((color) => [color, color]));
  const theme = () => {
    if (printing) return light;
    const style = getComputedStyle(document.documentElement);
    return Object.fromEntries(Object.entries(RECOLOR).map(([name, key]) => [name, style.getPropertyValue(key).trim()]));
  };
  const inkOf = (colors) => colors[Object.keys(RECOLOR).find((key) => RECOLOR[key] === "--ink")];

  // Places of a class in a trace.
  const places = (trace, index) => {
    const positions = [];
    for (let i = 0; i < trace.customdata.length && positions.length < RINGS; i += 1) if (trace.customdata[i] === index) positions.push(i);
    return positions;
  };
  const rings = (spec, colors, vector) => {
    if (chosen === null) return [];
    return spec.data.filter((trace) => isClasses(trace) && trace.x && trace.y).flatMap((trace) => {
      const positions = places(trace, chosen);
      if (!positions.length) return [];
      const marker = { symbol: "circle-open", size: positions.length > 1 ? 11 : 18, color: inkOf(colors), line: { width: positions.length > 1 ? 1.6 : 2.6 } };
      return [{
        type: trace.type === "scattergl" && !vector ? "scattergl" : "scatter", mode: "markers", name: "chosen class", meta: "ring",
        x: positions.map((i) => trace.x[i]), y: positions.map((i) => trace.y[i]), xaxis: trace.xaxis, yaxis: trace.yaxis,
        hoverinfo: "skip", showlegend: false, cliponaxis: false, marker,
      }];
    });
  };

  const alive = () => figures.filter((figure) => figure.live);
  const draw = (figure) => {
    Object.assign(figure, { stale: false, drawing: true });
    const spec = specOf(figure), colors = theme();
    spec.data.forEach(addWords);
    const vector = figure.gl && (printing || (!figure.live && alive().length >= LIVE));
    const { data, layout } = recolor(spec, colors);
    const traces = [...data, ...rings(spec, colors, vector)].map((trace) => (vector ? { ...trace, type: trace.type.replace(/gl$/, "") } : trace));
    if (coarse) layout.dragmode = false;
    // The browser lays the paper out after it has asked for the figures.
    if (printing) layout.width = PAPER[figure.target.closest(".figures")?.classList.contains("one") ? 0 : 1];
    const was = figure.live;
    figure.live = figure.gl && !vector;
    const anew = figure.gl && was !== figure.live;
    if (anew) figure.heard = false;
    return (anew ? Plotly.newPlot : Plotly.react)(figure.target, traces, layout, options).then(() => {
      if (!figure.heard && describe) {
        figure.heard = true;
        figure.target.on("plotly_click", ({ points }) => {
          const point = points.find((candidate) => isClasses(candidate.data));
          if (point) document.dispatchEvent(new CustomEvent("class-clicked", { detail: Number(point.customdata) }));
        });
      }
      figure.target.dataset.drawn = "true";
      figure.drawing = false;
      if (!figure.near) release(figure);
    });
  };
  // A figure far from the screen gives its WebGL context back; its place keeps its height.
  const release = (figure) => {
    if (!figure.live || figure.drawing) return;
    const canvases = [...figure.target.querySelectorAll(".gl-canvas")];
    Plotly.purge(figure.target);
    canvases.forEach((canvas) => canvas.getContext("webgl")?.getExtension("WEBGL_lose_context")?.loseContext());
    Object.assign(figure, { live: false, stale: true, heard: false });
  };
  const unfolded = ({ target }) => !target.closest("details:not([open])");
  const next = () => figures.find((figure) => figure.stale && figure.near) ?? figures.find((figure) => figure.stale && !figure.gl && unfolded(figure));
  const work = async () => {
    if (busy) return;
    busy = true;
    for (let figure = next(); figure && !printing; figure = next()) {
      await draw(figure);
      await new Promise((done) => setTimeout(done));
    }
    busy = false;
  };
  const redraw = () => {
    figures.forEach((figure) => { figure.stale = true; });
    return work();
  };

  const screen = new IntersectionObserver((entries) => {
    entries.forEach(({ target, isIntersecting }) => {
      of.get(target).near = isIntersecting;
      if (!isIntersecting) release(of.get(target));
    });
    work();
  }, { rootMargin: `${NEAR} 0px` });
  figures.forEach(({ target }) => screen.observe(target));

  // A figure that was drawn before its fold was closed may have another width by now.
  document.addEventListener("toggle", ({ target: fold }) => {
    if (!fold.open || printing) return;
    figures.filter((figure) => !figure.stale && fold.contains(figure.target) && unfolded(figure)).forEach(({ target }) => Plotly.Plots.resize(target));
    work();
  }, true);

  const print = () => {
    if (printing) return;
    printing = true;
    figures.forEach(draw);
  };
  const unprint = () => {
    if (!printing) return;
    printing = false;
    redraw();
  };
  window.addEventListener("beforeprint", print);
  window.addEventListener("afterprint", unprint);
  window.matchMedia("print").addEventListener("change", ({ matches }) => (matches ? print() : unprint()));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  // A turn later, when the scripts after this one have registered their classes.
  setTimeout(work);

  return {
    redraw,
    // Hover text of a class: (index, run or null) to markup.
    describeWith(words) { describe = words; },
    // Marks a class in every figure; null for none.
    choose(index) { chosen = index; return redraw(); },
    // Every place of a class: the figure's element, the title of its axis, the trace, and the positions in its arrays.
    places: (index) => figures.flatMap((figure) => {
      const { data, layout } = specOf(figure);
      return data.filter(isClasses).map((trace) => ({
        target: figure.target, axis: layout.yaxis?.title?.text ?? "", trace, positions: places(trace, index),
      })).filter(({ positions }) => positions.length);
    }),
  };
})();
