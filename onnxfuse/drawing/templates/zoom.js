for (const figure of document.querySelectorAll("figure.zoom")) {
  const pane = figure.querySelector(".pane"), svg = pane.querySelector("svg"), told = figure.querySelector("output");
  const width = svg.width.baseVal.value;
  let scale = 1;
  figure.style.flex = `0 0 ${figure.getBoundingClientRect().width}px`;
  const zoom = (wanted) => {
    const before = scale;
    scale = Math.min(4, Math.max(0.1, wanted));
    const x = pane.scrollLeft + pane.clientWidth / 2, y = pane.scrollTop + pane.clientHeight / 2;
    svg.style.width = `${width * scale}px`;
    svg.style.height = "auto";
    pane.scrollLeft = x * scale / before - pane.clientWidth / 2;
    pane.scrollTop = y * scale / before - pane.clientHeight / 2;
    told.textContent = `${Math.round(scale * 100)} %`;
  };
  const fit = () => zoom(Math.min((pane.clientWidth - 2) / width, (pane.clientHeight - 2) * scale / svg.getBoundingClientRect().height));
  const acts = { in: () => zoom(scale * 1.25), out: () => zoom(scale / 1.25), one: () => zoom(1), fit };
  for (const button of figure.querySelectorAll("button")) button.addEventListener("click", acts[button.dataset.act]);
  const keys = { "+": "in", "=": "in", "-": "out", "0": "one", "f": "fit" };
  pane.addEventListener("keydown", (event) => {
    if (keys[event.key] && !event.ctrlKey && !event.metaKey) { acts[keys[event.key]](); event.preventDefault(); }
  });
  pane.scrollLeft = (pane.scrollWidth - pane.clientWidth) / 2;
}
