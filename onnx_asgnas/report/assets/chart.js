"use strict";
/* Line charts as SVG, drawn at the width that there is, with the phases of the run behind them. */
const Chart = (() => {
  const { el } = Details;
  const HEIGHT = 210;
  const EDGE = { left: 52, right: 12, top: 26, bottom: 34 };
  const FEW = 30; // lines of so few points have dots
  const LETTER = 7; // pixels, about
  const NEAR = 24; // pixels within which a line is pointed at
  let charts = 0;

  function svg(tag, attributes = {}, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  /* About `count` round numbers from low to high. */
  function ticks(low, high, count) {
    const raw = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
    const found = [];
    for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) found.push(at * step || 0);
    return found;
  }

  const plain = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 4 });
  const tiny = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3, notation: "scientific" });
  const shown = (value) => (value && Math.abs(value) < 1e-4 ? tiny : plain).format(value);

  function limits(values, zero) {
    const low = Math.min(...values);
    const high = Math.max(...values);
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    return [zero ? Math.min(0, low) : low - room, high + room];
  }

  /*
   * A chart in `place`. `lines` are { name, x, y, kind }, where y may hold null; `x` and `y` of the options name the
   * axes; `phases` are { phase, step }. `zero` lets the axis begin at zero. `choose` is called with the place of a line
   * that is clicked.
   */
  function draw(place, { title, x, y, lines, phases = [], most, zero = false, height = HEIGHT, choose = null }) {
    const clip = `plot${charts++}`;
    const readout = el("figcaption", { "aria-live": "off" });
    const picture = svg("svg", { role: "img", "aria-label": `${title}: ${described(lines)}` });
    place.replaceChildren(el("h3", {}, title), picture, readout);
    const values = lines.flatMap((line) => line.y.filter((value) => value !== null));
    const [low, high] = limits(values, zero);
    let hot = -1;

    function paint() {
      const width = Math.max(240, place.clientWidth);
      const [w, h] = [width - EDGE.left - EDGE.right, height - EDGE.top - EDGE.bottom];
      const across = (step) => EDGE.left + (step / (most || 1)) * w;
      const down = (value) => EDGE.top + h - ((value - low) / (high - low)) * h;
      picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
      picture.setAttribute("height", height);
      picture.replaceChildren(
        svg("clipPath", { id: clip }, svg("rect", { x: EDGE.left - 4, y: EDGE.top - 4, width: w + 8, height: h + 8 })),
        ...bands(phases, most, across, h),
        ...grid(across, down, w, h, { low, high, most, x, y }),
        svg("g", { "clip-path": `url(#${clip})` }, ...lines.map((line) => path(line, across, down, lines.length < 4))),
      );
      return { across, down };
    }

    let map = paint();
    const point = (event) => {
      const box = picture.getBoundingClientRect();
      const found = nearest(lines, map, event.clientX - box.left, event.clientY - box.top);
      highlight(found ? found.line : -1);
      readout.replaceChildren(...(found ? [told(lines[found.line], found.at, x)] : summary(lines)));
    };
    function highlight(line) {
      picture.querySelectorAll(".line").forEach((drawn, at) => drawn.classList.toggle("hot", at === line));
      hot = line;
    }
    picture.addEventListener("pointermove", point);
    picture.addEventListener("pointerdown", point);
    picture.addEventListener("pointerleave", () => {
      highlight(-1);
      readout.replaceChildren(...summary(lines));
    });
    if (choose) picture.addEventListener("click", () => hot >= 0 && choose(hot));
    picture.classList.toggle("clickable", Boolean(choose));
    readout.replaceChildren(...summary(lines));
    new ResizeObserver(() => (map = paint())).observe(place);
    window.addEventListener("beforeprint", () => (map = paint()));
  }

  const last = (line) => line.y.findLast((value) => value !== null);

  function described(lines) {
    return lines.slice(0, 6).map((line) => `${line.name} ends at ${shown(last(line))}`).join("; ");
  }

  /* What a chart says without a pointer: its lines, where they are few. */
  function summary(lines) {
    if (lines.length > 3) return [`${lines.length} groups; point at a line`];
    return lines.map((line) => el("span", { class: "key" }, stroke(line), `${line.name}: at last ${shown(last(line))}`));
  }

  /* A piece of a line as it is drawn. */
  function stroke(line) {
    const sample = { width: 18, height: 8, "aria-hidden": "true" };
    return svg("svg", sample, svg("g", { class: `line ${line.kind}` }, svg("path", { d: "M0 4H18" })));
  }

  const told = (line, at, x) => `${line.name}: ${shown(line.y[at])} at ${x} ${States.count(line.x[at])}`;

  /* The phases as shades with their names above; a name that would lie on that of a longer phase is left out. */
  function bands(phases, most, across, h) {
    const parts = phases.map(({ phase, step }, at) => {
      const from = across(step);
      return { phase, at, from, to: across(at + 1 < phases.length ? phases[at + 1].step : most) };
    });
    const taken = [];
    const fits = ({ from, phase }) => {
      const to = from + LETTER * (phase.length + 1);
      if (taken.some(([a, b]) => from < b && to > a)) return false;
      taken.push([from, to]);
      return true;
    };
    const named = new Set([...parts].sort((a, b) => b.to - b.from - (a.to - a.from)).filter(fits));
    return parts.flatMap((part) => {
      const { phase, at, from, to } = part;
      const width = Math.max(0, to - from);
      const title = svg("title", {}, phase);
      const made = [svg("rect", { class: `band band${at % 2}`, x: from, y: EDGE.top, width, height: h }, title)];
      if (at) made.push(svg("line", { class: "begin", x1: from, x2: from, y1: EDGE.top, y2: EDGE.top + h }));
      if (named.has(part)) made.push(svg("text", { class: "phase", x: from + 3, y: EDGE.top - 6 }, phase));
      return made;
    });
  }

  function grid(across, down, w, h, { low, high, most, x, y }) {
    const made = [];
    const tick = (text, place) => svg("text", { class: "tick", ...place }, text);
    for (const value of ticks(low, high, 4)) {
      made.push(svg("line", { class: "rule", x1: EDGE.left, x2: EDGE.left + w, y1: down(value), y2: down(value) }));
      made.push(tick(shown(value), { x: EDGE.left - 6, y: down(value) + 4, "text-anchor": "end" }));
    }
    for (const step of ticks(0, most, Math.max(2, Math.floor(w / 90)))) {
      made.push(tick(States.count(step), { x: across(step), y: EDGE.top + h + 15, "text-anchor": "middle" }));
    }
    made.push(svg("text", { class: "axis", x: EDGE.left + w, y: EDGE.top + h + 30, "text-anchor": "end" }, x));
    if (y) made.push(svg("text", { class: "axis", x: EDGE.left - 6, y: EDGE.top - 6, "text-anchor": "end" }, y));
    return made;
  }

  function path(line, across, down, dotted) {
    let text = "";
    let pen = "M";
    line.y.forEach((value, place) => {
      if (value === null) return void (pen = "M");
      text += `${pen}${across(line.x[place]).toFixed(1)} ${down(value).toFixed(1)}`;
      pen = "L";
    });
    const drawn = svg("path", { d: text }, svg("title", {}, line.name));
    const points = dotted && line.x.length <= FEW ? line.x.map((step, place) => [step, line.y[place]]) : [];
    const dots = points
      .filter(([, value]) => value !== null)
      .map(([step, value]) => svg("circle", { cx: across(step), cy: down(value), r: 2.6 }));
    return svg("g", { class: `line ${line.kind}` }, drawn, ...dots);
  }

  /* The line and the place on it that lie closest to a point. */
  function nearest(lines, { across, down }, px, py) {
    let found = null;
    let least = NEAR ** 2;
    lines.forEach((line, number) =>
      line.x.forEach((step, at) => {
        if (line.y[at] === null) return;
        const distance = (across(step) - px) ** 2 + (down(line.y[at]) - py) ** 2;
        if (distance < least) [least, found] = [distance, { line: number, at }];
      }),
    );
    return found;
  }

  return { draw, shown };
})();
