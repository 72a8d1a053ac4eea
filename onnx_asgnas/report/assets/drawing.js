"use strict";
/* The drawing: what the layout has placed, as Cytoscape elements; pan, zoom, selection, overview. */
const Drawing = (() => {
  const FONT = 'system-ui, "Segoe UI", "DejaVu Sans", sans-serif';
  const container = document.getElementById("drawing");
  const ruler = document.createElement("canvas").getContext("2d");
  const cy = cytoscape({
    container,
    minZoom: 0.02,
    maxZoom: 3,
    autoungrabify: true,
    boxSelectionEnabled: false,
    selectionType: "single",
    autounselectify: true,
  });

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  }

  function style() {
    const states = Object.keys(States.ALL).map((state) => ({
      selector: `node.${state}`,
      style: { "background-color": colour(state), "border-color": colour(state) },
    }));
    return [
      {
        selector: "node",
        style: {
          shape: "round-rectangle",
          "corner-radius": 6,
          width: "data(width)",
          height: "data(height)",
          "border-width": 1.5,
          "background-opacity": 0.16,
          label: "data(label)",
          color: colour("text"),
          "font-family": FONT,
          "font-size": 12,
          "line-height": 1.35,
          "text-wrap": "wrap",
          "text-max-width": 400,
          "text-valign": "center",
          "text-halign": "center",
          "min-zoomed-font-size": 5,
          "z-index-compare": "manual",
          "z-index": 1000,
          "overlay-opacity": 0,
        },
      },
      ...states,
      { selector: "node.frozen", style: { "border-style": "dashed" } },
      { selector: "node.protected", style: { "border-width": 3 } },
      { selector: "node.unknown", style: { "border-style": "dotted", "border-width": 3 } },
      { selector: "node.plain", style: { "background-opacity": 0.07 } },
      { selector: "node.removed", style: { "border-style": "dashed", "background-opacity": 0.05, color: colour("soft") } },
      { selector: "node.needed", style: { "border-width": 3 } },
      { selector: "node.end", style: { shape: "ellipse" } },
      { selector: "node.folded", style: { "border-style": "double", "border-width": 5 } },
      {
        selector: "node.open",
        style: {
          "background-opacity": 0.06,
          "text-valign": "top",
          "text-halign": "left",
          "text-margin-y": 24,
          "text-margin-x": "data(title)",
          "z-index": "data(depth)",
          "corner-radius": 10,
        },
      },
      {
        selector: "node.open.sequence",
        style: { label: "", "border-style": "dashed", "border-width": 1, "background-opacity": 0.03 },
      },
      {
        selector: "edge",
        style: {
          width: "data(width)",
          "line-color": colour("edge"),
          "target-arrow-color": colour("edge"),
          "target-arrow-shape": "triangle",
          "arrow-scale": 0.8,
          "z-index-compare": "manual",
          "z-index": 900,
          "overlay-opacity": 0,
          "edge-distances": "endpoints",
          "source-endpoint": "data(from)",
          "target-endpoint": "data(to)",
          "curve-style": "straight",
        },
      },
      {
        selector: "edge.bent",
        style: {
          "curve-style": "round-segments",
          "segment-weights": "data(weights)",
          "segment-distances": "data(distances)",
          "segment-radii": 7,
        },
      },
      { selector: ".dimmed", style: { opacity: 0.28 } },
      { selector: "node.marked", style: { "border-width": 4, "background-opacity": 0.4 } },
      {
        selector: "node.chosen",
        style: { "outline-width": 4, "outline-color": colour("accent"), "outline-offset": 3, "outline-opacity": 1 },
      },
      {
        selector: "edge.chosen",
        style: { "line-color": colour("accent"), "target-arrow-color": colour("accent"), width: 4, "z-index": 950 },
      },
      {
        selector: "edge.near",
        style: { "line-color": colour("accent"), "target-arrow-color": colour("accent"), "z-index": 940 },
      },
    ];
  }

  function labelOf(id, open) {
    const sign = Network.isBox(id) ? (open ? "⊟ " : "⊞ ") : "";
    const title = `${sign}${States.ALL[States.of(id)].glyph} ${States.titleOf(id)}`;
    return open ? title : `${title}\n${States.subtitleOf(id)}`;
  }

  const widthOf = (text) => {
    ruler.font = `12px ${FONT}`;
    return Math.ceil(Math.max(...text.split("\n").map((line) => ruler.measureText(line).width)));
  };

  /* How much room a folded box or an operator takes, and the title of an open box. */
  function sizeOf(id) {
    const width = widthOf(labelOf(id, false));
    return {
      width: Math.max(90, width + (Network.isEnd(id) ? 52 : 26)),
      height: Network.isEnd(id) ? 48 : 44,
      title: widthOf(labelOf(id, true)),
    };
  }

  /* Show what the layout has placed. */
  function show(view, placed) {
    const edges = new Map(view.edges.map((edge) => [edge.id, edge]));
    const elements = [];
    const centres = new Map();
    const stack = placed.children.map((node) => [node, 1]);
    while (stack.length) {
      const [node, depth] = stack.pop();
      const id = Number(node.id.slice(1));
      const open = Boolean(node.children && node.children.length);
      const position = { x: node.x + node.width / 2, y: node.y + node.height / 2 };
      centres.set(id, position);
      const classes = [
        States.of(id),
        Network.kindOf(id),
        open ? "open" : Network.isBox(id) ? "folded" : Network.isEnd(id) ? "end" : "single",
      ];
      const label = labelOf(id, open);
      const title = open ? widthOf(label) + 12 : 0;
      const data = { id: node.id, number: id, label, title, width: node.width, height: node.height, depth };
      elements.push({ group: "nodes", data, position, classes });
      if (open) for (const child of node.children) stack.push([child, depth + 1]);
    }
    for (const placedEdge of placed.edges) elements.push(edgeElement(placedEdge, edges.get(placedEdge.id), centres));
    cy.batch(() => {
      cy.elements().remove();
      cy.add(elements);
    });
    drawOverview();
  }

  /* Bends as Cytoscape wants them: how far along the line between the ends, and how far beside it. */
  function edgeElement(placed, edge, centres) {
    const section = placed.sections[0];
    const [a, b] = [section.startPoint, section.endPoint];
    const [dx, dy] = [b.x - a.x, b.y - a.y];
    const length = Math.hypot(dx, dy) || 1;
    const bends = section.bendPoints || [];
    const along = ({ x, y }) => ((x - a.x) * dx + (y - a.y) * dy) / length ** 2;
    const beside = ({ x, y }) => ((y - a.y) * dx - (x - a.x) * dy) / length;
    const from = (point, id) => `${point.x - centres.get(id).x}px ${point.y - centres.get(id).y}px`;
    const data = {
      id: placed.id,
      source: `n${edge.source}`,
      target: `n${edge.target}`,
      edges: edge.edges,
      width: 1.4 + Math.min(3, Math.log2(edge.edges.length) / 2),
      from: from(a, edge.source),
      to: from(b, edge.target),
    };
    if (!bends.length) return { group: "edges", data };
    return {
      group: "edges",
      data: { ...data, weights: bends.map(along), distances: bends.map(beside) },
      classes: "bent",
    };
  }

  const node = (id) => cy.getElementById(`n${id}`);

  /* Mark what is chosen and what belongs to it; the rest steps back. */
  function choose({ chosen = [], marked = [], edge = null }) {
    cy.batch(() => {
      cy.elements().removeClass("chosen marked dimmed near");
      for (const id of chosen) node(id).addClass("chosen").connectedEdges().addClass("near");
      if (edge) cy.getElementById(edge).addClass("chosen");
      if (marked.length) {
        cy.nodes().not(".open").addClass("dimmed");
        cy.edges().addClass("dimmed");
        for (const id of [...marked, ...chosen]) node(id).removeClass("dimmed").addClass("marked");
      }
    });
    drawOverview();
  }

  /* The whole if it is readable, else its beginning at a size that can be read. */
  function fit(atLeast = 0) {
    cy.fit(undefined, 24);
    if (cy.zoom() > 1.1) cy.zoom(1.1);
    if (cy.zoom() < atLeast) {
      const box = cy.elements().boundingBox();
      const zoom = Math.min(1, Math.max(atLeast, (cy.width() - 48) / box.w));
      const first = cy.nodes().min((n) => n.position("y") - n.height() / 2).ele;
      const middle = box.w * zoom <= cy.width() ? (box.x1 + box.x2) / 2 : first.position("x");
      cy.viewport({ zoom, pan: { x: cy.width() / 2 - middle * zoom, y: 24 - box.y1 * zoom } });
      return;
    }
    cy.center();
  }

  function lookAt(ids) {
    const found = cy.collection(ids.map((id) => node(id)[0]).filter(Boolean));
    if (!found.length) return;
    const box = found.boundingBox({ includeLabels: false });
    const fits = Math.min((cy.width() - 80) / box.w, (cy.height() - 80) / box.h);
    const zoom = Math.max(0.05, Math.min(fits, Math.max(cy.zoom(), 0.75), 1.2));
    const middle = { x: (box.x1 + box.x2) / 2, y: (box.y1 + box.y2) / 2 };
    cy.viewport({ zoom, pan: { x: cy.width() / 2 - middle.x * zoom, y: cy.height() / 2 - middle.y * zoom } });
  }

  function zoomBy(factor) {
    cy.zoom({ level: cy.zoom() * factor, renderedPosition: { x: cy.width() / 2, y: cy.height() / 2 } });
  }

  const cornerOf = (id) => {
    const found = node(id);
    return found.length
      ? { x: found.renderedPosition("x"), y: found.renderedPosition("y") - found.renderedHeight() / 2 }
      : null;
  };

  /* Move the drawing so that a box stands where it stood. */
  function hold(id, corner) {
    const now = corner && cornerOf(id);
    if (now) cy.panBy({ x: corner.x - now.x, y: corner.y - now.y });
  }

  const overview = document.getElementById("overview");
  const picture = document.createElement("canvas"); // the overview without the frame that moves
  let extent = null;
  let asked = null;

  /* Paint the overview with the next frame; `anew` where more than the view has changed. */
  function drawOverview(anew = true) {
    if (asked) asked.anew ||= anew;
    else {
      asked = { anew };
      requestAnimationFrame(() => {
        if (asked.anew) paintPicture();
        asked = null;
        paintOverview();
      });
    }
  }

  const overviewScale = () => Math.min(overview.clientWidth / extent.w, overview.clientHeight / extent.h);

  /* Where the drawing's point (x, y) lies in the overview, and how much smaller it is there. */
  function overviewMap() {
    const ratio = window.devicePixelRatio || 1;
    const scale = overviewScale() * ratio;
    const left = (overview.clientWidth * ratio - extent.w * scale) / 2 - extent.x1 * scale;
    const top = (overview.clientHeight * ratio - extent.h * scale) / 2 - extent.y1 * scale;
    return { scale, ratio, x: (x) => left + x * scale, y: (y) => top + y * scale };
  }

  function paintPicture() {
    const shown = cy.nodes();
    if (!shown.length) return;
    extent = cy.elements().boundingBox({ includeLabels: false, includeOverlays: false });
    const colours = Object.fromEntries(Object.keys(States.ALL).map((state) => [state, colour(state)]));
    const accent = colour("accent");
    const map = overviewMap();
    picture.width = overview.clientWidth * map.ratio;
    picture.height = overview.clientHeight * map.ratio;
    const pen = picture.getContext("2d");
    shown.forEach((n) => {
      const { x, y } = n.position();
      const { width, height, number } = n.data();
      pen.fillStyle = n.hasClass("chosen") ? accent : colours[States.of(number)];
      pen.globalAlpha = n.hasClass("open") ? 0.15 : n.hasClass("dimmed") ? 0.2 : 0.75;
      const [w, h] = [Math.max(1, width * map.scale), Math.max(1, height * map.scale)];
      pen.fillRect(map.x(x - width / 2), map.y(y - height / 2), w, h);
    });
  }

  function paintOverview() {
    if (!extent) return;
    const map = overviewMap();
    overview.width = picture.width;
    overview.height = picture.height;
    const pen = overview.getContext("2d");
    if (picture.width) pen.drawImage(picture, 0, 0);
    const view = cy.extent();
    pen.strokeStyle = colour("accent");
    pen.lineWidth = 1.5 * map.ratio;
    pen.strokeRect(map.x(view.x1), map.y(view.y1), view.w * map.scale, view.h * map.scale);
  }

  overview.addEventListener("pointerdown", (event) => overview.setPointerCapture(event.pointerId));
  for (const type of ["pointerdown", "pointermove"]) {
    overview.addEventListener(type, (event) => {
      if (!event.buttons || !extent) return;
      const scale = overviewScale();
      const x = extent.x1 + (event.offsetX - (overview.clientWidth - extent.w * scale) / 2) / scale;
      const y = extent.y1 + (event.offsetY - (overview.clientHeight - extent.h * scale) / 2) / scale;
      cy.pan({ x: cy.width() / 2 - x * cy.zoom(), y: cy.height() / 2 - y * cy.zoom() });
    });
  }
  cy.on("viewport", () => drawOverview(false));
  let width = cy.width();
  cy.on("resize", () => {
    cy.panBy({ x: (cy.width() - width) / 2, y: 0 }); // the middle stays the middle
    width = cy.width();
    drawOverview();
  });

  const restyle = () => {
    cy.style(style());
    drawOverview();
  };
  restyle();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);

  return { cy, container, sizeOf, show, choose, fit, lookAt, zoomBy, cornerOf, hold, restyle };
})();
