// Draws every figure in the colours of the reader's theme, one a turn so that the page stays responsive, and again when
// the theme changes or the page is printed (always light).
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const coarse = window.matchMedia("(pointer: coarse)").matches;
  const options = { displayModeBar: false, responsive: true, displaylogo: false, doubleClick: "reset" };
  const figures = [...document.querySelectorAll("script[data-figure]")].map((script) => ({
    target: document.getElementById(script.dataset.figure),
    spec: script.textContent,
  }));

  const recolour = (value, colours) => {
    if (typeof value === "string") return colours[value] ?? value;
    if (Array.isArray(value)) return value.map((item) => recolour(item, colours));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recolour(item, colours)]));
  };
  const theme = () => {
    const style = getComputedStyle(document.documentElement);
    return Object.fromEntries(Object.entries(RECOLOUR).map(([light, name]) => [light, style.getPropertyValue(name).trim()]));
  };
  const draw = ({ target, spec }, colours) => {
    const { data, layout } = recolour(JSON.parse(spec), colours);
    if (coarse) layout.dragmode = false;
    return Plotly.react(target, data, layout, options).then(() => { target.dataset.drawn = "true"; });
  };
  const drawAll = (colours) => figures.reduce(
    (before, figure) => before.then(() => draw(figure, colours)).then(() => new Promise((next) => setTimeout(next))),
    Promise.resolve(),
  );

  drawAll(theme());
  dark.addEventListener("change", () => drawAll(theme()));
  const light = Object.fromEntries(Object.keys(RECOLOUR).map((colour) => [colour, colour]));
  window.addEventListener("beforeprint", () => figures.forEach((figure) => draw(figure, light)));
  window.addEventListener("afterprint", () => drawAll(theme()));
})();
