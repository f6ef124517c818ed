// axe-core on the page that is open: structure once, contrast in both themes, what scrolls on a phone is asked for apart.
// Contrast depends on computed styles alone, so one element stands for all that are written alike, on this page and on
// those before (`seen`); checking each word of each page would take minutes.
async ({part, theme, seen}) => {
  document.documentElement.dataset.theme = theme;
  document.querySelectorAll("details").forEach(fold => { fold.open = true; });
  const only = rules => ({runOnly: {type: "rule", values: rules}, resultTypes: ["violations"], preload: false});
  const run = async (where, options) => (await axe.run(where, options)).violations.flatMap(
    fault => fault.nodes.map(node => ({rule: fault.id, theme, target: node.target.join(" "), html: node.html.slice(0, 160),
      why: (node.failureSummary || "").slice(0, 300)})));
  if (part === "structure")
    return {seen: [], faults: await run(document, {resultTypes: ["violations"], preload: false,
      rules: {"color-contrast": {enabled: false}, "label-content-name-mismatch": {enabled: true}}})};
  if (part === "phone")
    return {seen: [], faults: await run(document, only(["scrollable-region-focusable"]))};
  const known = new Set(seen), shown = [];
  for (const element of document.querySelectorAll("body *")) {
    const writes = [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!writes || !element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    const own = getComputedStyle(element), layers = [];
    for (let box = element; box; box = box.parentElement) {
      const {backgroundColor, backgroundImage, opacity} = getComputedStyle(box);
      layers.push(backgroundColor.replace("rgba(0, 0, 0, 0)", ""), backgroundImage.replace("none", ""), opacity.replace(/^1$/, ""));
    }
    const key = [theme, own.color, own.fontSize, own.fontWeight, ...layers.filter(Boolean)].join("|");
    if (known.has(key)) continue;
    known.add(key);
    shown.push(element);
  }
  const faults = shown.length ? await run({include: shown}, only(["color-contrast"])) : [];
  return {seen: [...known], faults};
}
