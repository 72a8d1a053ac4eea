"use strict";
/* The page: what is open, what is chosen, and what keys and buttons do. */
const Page = (() => {
  const N = Network;
  const S = States;
  const BOXES = 110; // that many boxes and lines are unfolded at first
  const LINES = 220;
  const MOST_BOXES = 420; // beyond that others are folded again
  const SMALL = 70; // with so few boxes sequences unfold as well
  const READABLE = 0.55; // the zoom at which labels can be read
  const open = new Set(); // in the order in which they were opened
  let view = null;
  let choice = null;
  let drawn = Promise.resolve();

  const status = (text) => (document.getElementById("status").textContent = text);

  /* Boxes to open at first: level by level, parts and structures, then sequences, as long as the drawing stays small. */
  function openFirst() {
    openLevels(BOXES, (box) => N.kindOf(box) !== "sequence");
    openLevels(SMALL, () => true);
  }

  /* Open all boxes of the next level that fit, or none, so that equal things are shown alike. */
  function openLevels(most, fits) {
    let level = N.childrenOf(N.root);
    while (level.length) {
      const boxes = level.filter((id) => N.isBox(id) && fits(id));
      const fresh = boxes.filter((id) => !open.has(id));
      for (const box of fresh) open.add(box);
      const { leaves, edges } = N.visible(open);
      if (leaves.length > most || edges.length > LINES) {
        for (const box of fresh) open.delete(box);
        return;
      }
      level = boxes.flatMap(N.childrenOf);
    }
  }

  /* Keep the drawing small: fold what was opened first and is not around the box that is wanted. */
  function makeRoom(wanted) {
    const keep = new Set([wanted, ...N.around(wanted)]);
    let folded = 0;
    for (const box of [...open]) {
      if (N.visible(open).leaves.length <= MOST_BOXES) break;
      if (!keep.has(box)) folded += open.delete(box);
    }
    return folded;
  }

  /* Lay out and draw what is open now; `then` runs when it stands. */
  async function draw(then) {
    const next = N.visible(open);
    document.body.classList.add("busy");
    try {
      const placed = await Layout.place(next, Drawing.sizeOf);
      view = next;
      Drawing.show(view, placed);
      mark();
      status(`${view.leaves.length} boxes, ${view.edges.length} lines`);
      then();
    } catch (error) {
      if (error.message === "superseded") return;
      status(
        error.message === "too dense"
          ? "Too many lines to draw: fold something first."
          : `Cannot be drawn: ${error.message}`,
      );
      if (view) keepOpen(view.opened);
    }
    document.body.classList.remove("busy");
    document.body.dataset.drawn = String(Math.round(performance.now()));
  }

  function keepOpen(boxes) {
    open.clear();
    for (const box of boxes) open.add(box);
  }

  const isOpen = (id) => open.has(id);

  function toggle(id) {
    const corner = Drawing.cornerOf(id);
    if (!open.delete(id)) {
      open.add(id);
      makeRoom(id);
    }
    drawn = draw(() => {
      Drawing.hold(id, corner);
      if (choice) Details.show(choice);
    });
    return drawn;
  }

  function setOpen(boxes) {
    keepOpen(boxes);
    drawn = draw(() => Drawing.fit(READABLE));
    return drawn;
  }

  /* Open all that hides an operator or a box. */
  function reveal(id) {
    const hidden = N.around(id).filter((box) => !open.has(box));
    if (!hidden.length) return Promise.resolve();
    for (const box of hidden.reverse()) open.add(box);
    makeRoom(id);
    drawn = draw(() => {});
    return drawn;
  }

  /* Open what hides a family as a whole; one that is spread over several boxes shows where it lies. */
  async function revealFamily(id) {
    const operators = N.families[id].members.flatMap((member) => member[3]);
    const boxes = new Set(operators.map(drawnAs));
    const hides = (box) => N.isBox(box) && N.kindOf(box) !== "sequence";
    if (boxes.size === 1 && hides([...boxes][0])) await reveal(Math.min(...operators));
  }

  const drawnAs = (id) => (view.shownAs[id] >= 0 ? view.shownAs[id] : id);

  /* The boxes of the drawing that stand for what is chosen. */
  function shownFor(what) {
    if (what.kind === "family") {
      const operators = N.families[what.id].members.flatMap((member) => member[3]);
      return { marked: [...new Set(operators.map(drawnAs))] };
    }
    if (what.kind === "edge") return { edge: what.element };
    if (what.kind === "structure")
      return { chosen: [drawnAs(N.boxOf[what.id] >= 0 ? N.boxOf[what.id] : N.structures[what.id].maker)] };
    return { chosen: [drawnAs(what.id)] };
  }

  function mark() {
    Drawing.choose(choice && view ? shownFor(choice) : {});
  }

  function choose(what) {
    choice = what;
    mark();
    Details.show(what);
    if (what) showTab("details");
    const name =
      what &&
      {
        operator: (id) => N.operators.name[id],
        structure: (id) => N.structures[id].tensor,
        family: (id) => N.families[id].name,
      }[what.kind];
    if (name) status(`${what.kind} ${name(what.id)}`);
  }

  /* Choose something, unfold what hides it, and bring it into view. */
  async function jump(what) {
    choose(what);
    await drawn;
    if (what.kind === "operator" || what.kind === "box") await reveal(what.id);
    else if (what.kind === "structure")
      await reveal(N.boxOf[what.id] >= 0 ? N.boxOf[what.id] : N.structures[what.id].maker);
    else if (what.kind === "family") await revealFamily(what.id);
    const { chosen = [], marked = [] } = shownFor(what);
    Drawing.lookAt([...chosen, ...marked]);
  }

  const choiceOf = (id) => {
    if (N.kindOf(id) === "structure") return { kind: "structure", id: N.structureOf(id) };
    return { kind: N.isBox(id) ? "box" : "operator", id };
  };

  Drawing.cy.on("tap", "node", (event) => choose(choiceOf(event.target.data("number"))));
  Drawing.cy.on("tap", "edge", (event) => {
    const edge = event.target;
    const [source, target] = [edge.source().data("number"), edge.target().data("number")];
    choose({ kind: "edge", element: edge.id(), edges: edge.data("edges"), source, target });
  });
  Drawing.cy.on("tap", (event) => event.target === Drawing.cy && choose(null));
  Drawing.cy.on("dbltap", "node", (event) => {
    const id = event.target.data("number");
    if (N.isBox(id)) toggle(id);
  });

  /* The box that the keyboard stands on. */
  function current() {
    const { chosen = [] } = choice ? shownFor(choice) : {};
    return chosen.length ? chosen[0] : -1;
  }

  /* The next box in a direction: along the lines for up and down, in the row for left and right. */
  function step(key) {
    const { cy } = Drawing;
    const at = cy.getElementById(`n${current()}`);
    if (!at.length) return (choose(choiceOf(view.leaves[0])), Drawing.lookAt([view.leaves[0]]));
    const boxes = cy.nodes().not(at).not(".open");
    const { x, y } = at.position();
    const near = { ArrowDown: () => at.outgoers("node"), ArrowUp: () => at.incomers("node") }[key];
    const ahead = { ArrowLeft: (n) => n.position("x") < x - 1, ArrowRight: (n) => n.position("x") > x + 1 }[key];
    const found = near ? near() : boxes.filter(ahead);
    if (!found.length) return;
    const distance = (n) => Math.abs(n.position("x") - x) + (near ? 1 : 6) * Math.abs(n.position("y") - y);
    const id = found.min(distance).ele.data("number");
    choose(choiceOf(id));
    Drawing.lookAt([id]);
  }

  const KEYS = {
    "+": () => Drawing.zoomBy(1.25),
    "=": () => Drawing.zoomBy(1.25),
    "-": () => Drawing.zoomBy(0.8),
    0: () => Drawing.fit(),
    Escape: () => choose(null),
    Enter: () => N.isBox(current()) && toggle(current()),
    Backspace: () => N.parent[current()] !== N.root && current() >= 0 && foldAround(current()),
    ArrowUp: step,
    ArrowDown: step,
    ArrowLeft: step,
    ArrowRight: step,
  };

  function foldAround(id) {
    const box = N.parent[id];
    choose(choiceOf(box));
    if (open.has(box)) toggle(box);
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input, textarea");
    if (event.key === "/" && !typing) Search.focus();
    else if (event.target === Drawing.container && KEYS[event.key]) KEYS[event.key](event.key);
    else return;
    event.preventDefault();
  });

  const BUTTONS = {
    fit: () => Drawing.fit(),
    closer: () => Drawing.zoomBy(1.25),
    farther: () => Drawing.zoomBy(0.8),
    fold: () => setOpen([]),
    unfold: () => {
      open.clear();
      openFirst();
      setOpen([...open]);
    },
  };
  for (const [id, act] of Object.entries(BUTTONS)) document.getElementById(id).addEventListener("click", act);

  function showTab(name) {
    for (const tab of document.querySelectorAll("[role=tab]")) {
      const on = tab.dataset.tab === name;
      tab.ariaSelected = String(on);
      tab.tabIndex = on ? 0 : -1;
      document.getElementById(tab.dataset.tab).hidden = !on;
    }
    if (name !== "details") Tables.show(name);
  }

  const tabs = [...document.querySelectorAll("[role=tab]")];
  tabs.forEach((tab, at) => {
    tab.addEventListener("click", () => showTab(tab.dataset.tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: tabs.length - 1 }[event.key];
      if (!step) return;
      const next = tabs[(at + step) % tabs.length];
      showTab(next.dataset.tab);
      next.focus();
    });
  });

  function fillHeader() {
    const { el } = Details;
    const d = N.data;
    const most = d.max_removable;
    const erasable = N.structures.filter((s) => s.erasable).length;
    const { total, free } = d.channel_groups;
    const kept = d.frozen.reduce((sum, entry) => sum + entry.channels, 0);
    document.getElementById("model").textContent = d.model;
    const fact = (value, name) => el("div", {}, el("dd", {}, value), el("dt", {}, name));
    document
      .getElementById("facts")
      .append(
        fact(S.count(N.size[N.root]), "operators"),
        fact(S.count(d.params), "parameters"),
        fact(S.count(d.macs), "MACs an example"),
        fact(`${S.count(erasable)} of ${S.count(N.structures.length)}`, "structures erasable"),
        fact(
          `${S.count(most.structures)} · ${S.percent(most.params, d.params)} · ${S.percent(most.macs, d.macs)}`,
          "can go at most: structures · params · MACs",
        ),
        fact(`${S.count(free)} of ${S.count(total)}`, "channel groups free"),
      );
    const counts = { structures: N.structures.length, families: N.families.length, keeps: d.frozen.length };
    for (const [name, n] of Object.entries(counts)) document.getElementById(`n-${name}`).textContent = S.count(n);
    const causes = new Map();
    for (const f of d.frozen) causes.set(f.type || f.reason, (causes.get(f.type || f.reason) || 0) + f.channels);
    const worst = [...causes]
      .sort((a, b) => b[1] - a[1])
      .slice(0, 4)
      .map(([what, n]) => `${what} ${S.count(n)}`);
    const text = kept ? `Channel groups kept, by cause: ${worst.join(", ")}${causes.size > 4 ? ", …" : ""}` : "";
    const unknown = d.unknown.length ? `Unknown operators: ${d.unknown.join(", ")}` : "";
    document.getElementById("causes").textContent = [text, unknown].filter(Boolean).join(" · ");
    document
      .getElementById("legend")
      .append(...Object.entries(S.LEGEND).map(([state, { hint }]) => el("li", { title: hint }, Details.badge(state))));
  }

  function preparePrint() {
    for (const name of Object.keys(Tables.ROWS)) Tables.show(name);
    const colours = getComputedStyle(document.documentElement);
    document.getElementById("printed").src = Drawing.cy.png({
      full: true,
      maxWidth: 3000,
      maxHeight: 4000,
      bg: colours.getPropertyValue("--back"),
    });
  }
  window.addEventListener("beforeprint", preparePrint);

  fillHeader();
  Details.show(null);
  openFirst();
  drawn = draw(() => Drawing.fit(READABLE));

  return {
    jump,
    choose,
    toggle,
    isOpen,
    setOpen,
    open,
    whenDrawn: () => drawn,
    visible: () => view,
    chosen: () => choice,
  };
})();
