// The button that changes between light and dark, and the folds: opened for print, and for a link to what is inside.
(() => {
  const root = document.documentElement, button = document.getElementById("theme");
  const dark = window.matchMedia("(prefers-color-scheme: dark)"), paper = window.matchMedia("print");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const name = () => { button.textContent = isDark() ? "Light colors" : "Dark colors"; };
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
  const unfold = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    const folds = target ? [...document.querySelectorAll("details:not([open])")].filter((details) => details.contains(target)) : [];
    folds.forEach((details) => { details.open = true; });
    if (folds.length) target.scrollIntoView();
  };
  window.addEventListener("hashchange", unfold);
  document.addEventListener("click", ({ target }) => {
    const link = target.closest?.('a[href^="#"]');
    if (link && link.hash === location.hash) unfold();
  });
  unfold();
  window.addEventListener("beforeprint", open);
  window.addEventListener("afterprint", close);
  paper.addEventListener("change", ({ matches }) => (matches ? open() : close()));
})();
