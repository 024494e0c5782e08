// The button that changes between light and dark, and what is opened for print.
(() => {
  const root = document.documentElement, button = document.getElementById("theme");
  const dark = window.matchMedia("(prefers-color-scheme: dark)"), paper = window.matchMedia("print");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const name = () => { button.textContent = isDark() ? "Light colours" : "Dark colours"; };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    name();
    Figures.redraw();
  });
  dark.addEventListener("change", name);
  name();

  const opened = [];
  const open = () => {
    document.querySelectorAll("details:not([open])").forEach((details) => { details.open = true; opened.push(details); });
    document.querySelectorAll('img[loading="lazy"]').forEach((image) => { image.loading = "eager"; });
  };
  const close = () => { while (opened.length) opened.pop().open = false; };
  window.addEventListener("beforeprint", open);
  window.addEventListener("afterprint", close);
  paper.addEventListener("change", ({ matches }) => (matches ? open() : close()));
})();
