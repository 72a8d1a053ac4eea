"use strict";
/* The panel: everything about what is chosen. Names come from the model, so all text is set as text, never as HTML. */
const Details = (() => {
  const N = Network;
  const S = States;
  const LONG = 40; // more entries of a list than that show on request

  /* An element with attributes, handlers (onclick) and children, which are elements or text. */
  function el(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value !== false && value !== null) made.setAttribute(name, value);
    }
    made.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return made;
  }

  const link = (text, choice) =>
    el("button", { class: "link", type: "button", onclick: () => Page.jump(choice) }, text);
  const operatorLink = (id) =>
    link(N.operators.name[id] || `(unnamed ${N.operators.type[id]})`, { kind: "operator", id });
  const structureLink = (id) => link(N.structures[id].tensor, { kind: "structure", id });
  const familyLink = (id) => link(N.families[id].name, { kind: "family", id });
  const badge = (state, text = S.ALL[state].label) =>
    el("span", { class: `badge ${state}` }, `${S.ALL[state].glyph} ${text}`.trim());

  function list(items, make) {
    const made = el("ul", { class: "items" });
    const add = (some) => made.append(...some.map((item) => el("li", {}, make(item))));
    add(items.slice(0, LONG));
    if (items.length > LONG) {
      const more = el("button", { class: "link", type: "button" }, `show all ${items.length}`);
      const row = el("li", {}, more);
      more.addEventListener("click", () => {
        row.remove();
        add(items.slice(LONG));
      });
      made.append(row);
    }
    return made;
  }

  const section = (title, ...content) => el("section", {}, el("h3", {}, title), ...content);
  const optional = (title, items, make) =>
    items.length ? section(`${title} (${items.length})`, list(items, make)) : null;

  function facts(pairs) {
    const rows = pairs.filter(([, value]) => value !== null && value !== "");
    return el(
      "dl",
      {},
      rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
    );
  }

  const cost = (params, macs) => [
    ["parameters", `${S.count(params)} (${S.percent(params, N.data.params)})`],
    ["MACs", `${S.count(macs)} (${S.percent(macs, N.data.macs)})`],
  ];

  const reason = (state, ...text) => el("p", { class: `reason ${state}` }, `${S.ALL[state].glyph} `, ...text);
  const tensorLine = (tensor) => [
    el("code", {}, N.tensors.name[tensor]),
    el("span", { class: "shape" }, N.tensors.shape[tensor]),
  ];
  const unique = (items) => [...new Set(items)];
  const { run } = N.data;

  function foldButtons(id) {
    if (!N.isBox(id)) return null;
    const open = Page.isOpen(id);
    const toggle = () => Page.toggle(id);
    return el("p", { class: "actions" }, el("button", { type: "button", onclick: toggle }, open ? "Fold" : "Unfold"));
  }

  function head(kind, title, state, label) {
    return [el("p", { class: "kind" }, kind, " ", state ? badge(state, label) : null), el("h2", {}, title)];
  }

  function reasonsOf(id) {
    const found = [];
    if (S.of(id) === "unknown")
      found.push(reason("unknown", "nobody registered this operator: it stays, with all that it touches"));
    if (S.isProtected.has(id)) found.push(reason("protected", "protected by the user"));
    for (const at of N.keeps[id]) {
      const entry = N.data.frozen[at];
      found.push(
        reason(
          "frozen",
          `keeps ${S.count(entry.channels)} channel group${entry.channels === 1 ? "" : "s"}: ${entry.reason}`,
        ),
      );
    }
    const families = unique(N.made[id].map(([family]) => family));
    const texts = unique(families.flatMap((family) => N.families[family].reasons));
    return [...found, ...texts.map((text) => reason("frozen", `its channels: ${text}`))];
  }

  /* Why an operator is gone, or how many of its channels stay. */
  function whyOperator(id, inside) {
    const cause = inside.find((s) => run.structures[s].state === "removed");
    if (S.of(id) === "removed")
      return cause === undefined
        ? [reason("removed", "folded or bypassed, since what it joined or read is gone")]
        : [reason("removed", "left with ", structureLink(cause), `: ${run.structures[cause].reason}`)];
    return unique(N.made[id].map(([family]) => family))
      .filter((family) => run.families[family] !== null)
      .map((family) => {
        const { channels } = N.families[family];
        return reason(S.of(id), `${S.count(run.families[family])} of ${S.count(channels)} channels stay`);
      });
  }

  const around = (id) =>
    N.around(id)
      .filter((box) => N.kindOf(box) === "structure")
      .map((box) => N.structureOf(box));

  function operator(id) {
    const inside = around(id);
    const erasable = inside.find((s) => N.structures[s].erasable);
    const members = [...N.made[id], ...N.cut[id]];
    return [
      ...head(N.isEnd(id) ? "end of the network" : "operator", N.operators.name[id] || "(unnamed)", S.of(id)),
      facts([["type", N.operators.type[id]], ...(N.isEnd(id) ? [] : cost(N.params[id], N.macs[id]))]),
      ...(run ? whyOperator(id, inside) : reasonsOf(id)),
      run || erasable === undefined ? null : reason("erasable", "leaves with the structure ", structureLink(erasable)),
      optional("Inside of", inside, structureLink),
      optional("Initializers with channels", members, ([family, at]) =>
        memberLine(N.families[family].members[at], family),
      ),
      optional("Reads", N.reads[id], (edge) => [
        operatorLink(N.sourceOf(edge)),
        el("div", {}, tensorLine(N.tensorOf(edge))),
      ]),
      optional("Gives", N.outputsOf[id], tensorLine),
      optional("Read by", unique(N.readers[id].map(N.targetOf)), operatorLink),
    ];
  }

  const KINDS = { produced: "made here: zeroed", affine: "scaled or shifted here: zeroed", cut: "read here: cut off" };

  function memberLine([initializer, axis, kind, nodes], family = null) {
    const whose = family === null ? nodes.slice(0, 3).map(operatorLink) : [familyLink(family)];
    const rest = family === null && nodes.length > 3 ? ` +${nodes.length - 3}` : "";
    return [
      el("code", {}, initializer),
      el("span", { class: "shape" }, `axis ${axis} · ${KINDS[kind] || kind}`),
      el("div", {}, whose, rest),
    ];
  }

  /* When a structure was chosen, and with which score. */
  function choiceOf(id) {
    if (!run) return [];
    const { redundancy, rank, chosen_at: chosen, zero_at: zero } = run.structures[id];
    return [
      ["redundancy", redundancy === null ? null : S.score(redundancy)],
      ["chosen as", rank === null ? null : `number ${rank + 1} of ${run.zero.length}`],
      ["chosen at", chosen === null ? null : moment(chosen)],
      ["at zero from", zero === null ? null : moment(zero)],
    ];
  }

  /* A step of the run, with its epoch. */
  const moment = ({ step, epoch }) => `step ${S.count(step)} (epoch ${epoch.toFixed(1)})`;

  function stateOfStructure(s, id) {
    if (run) return [S.stateOfStructure(id), S.ALL[S.stateOfStructure(id)].label];
    return s.erasable
      ? ["erasable", s.minimal ? "erasable, minimal" : "erasable, larger kind"]
      : ["frozen", "must stay"];
  }

  const slices = (some) => (item) => [
    el("code", {}, item[0]),
    el("span", { class: "shape" }, `${some}: ${item[2]} of axis ${item[1]}`),
  ];

  function structure(id) {
    const s = N.structures[id];
    const tensor = N.tensors.name.indexOf(s.tensor);
    return [
      ...head("structure, which ends in the tensor", s.tensor, ...stateOfStructure(s, id)),
      N.boxOf[id] >= 0 ? foldButtons(N.boxOf[id]) : null,
      run ? reason(run.structures[id].state, run.structures[id].reason) : s.reason ? reason("frozen", s.reason) : null,
      facts([
        ...choiceOf(id),
        ["shape", N.tensors.shape[tensor]],
        ["made by", operatorLink(s.maker)],
        ["operators", S.count(s.operators)],
        ...cost(s.params, s.macs).map(([name, value]) => [s.erasable ? `saves ${name}` : name, value]),
        ["inside of", s.parent >= 0 ? structureLink(s.parent) : null],
      ]),
      optional("Structures inside", N.innerOf[id], structureLine),
      optional("Variables that force it to zero", s.variables, (name) => el("code", {}, name)),
      optional("Zeroed behind it", s.zeroed, slices("zeroed")),
      optional("Cut off behind it", s.cut, slices("cut")),
      optional("Its own chain", s.segment, operatorLine),
    ];
  }

  const structureLine = (id) => [badge(stateOfStructure(N.structures[id], id)[0], ""), structureLink(id)];
  const operatorLine = (id) => [operatorLink(id), el("span", { class: "shape" }, N.operators.type[id])];

  function family(id) {
    const f = N.families[id];
    return [
      ...head("channel family", f.name, S.stateOfFamily(f)),
      facts([
        ["channel groups", S.count(f.groups)],
        ["free to leave", `${S.count(f.free)} (${S.percent(f.free, f.groups)})`],
        ["channels", S.count(f.channels)],
        ["channels that stay", run && run.families[id] !== null ? S.count(run.families[id]) : null],
        ...cost(f.params, f.macs).map(([name, value]) => [`its free groups hold ${name}`, value]),
      ]),
      f.reasons.length
        ? section(
            "Why channels stay",
            f.reasons.map((text) => reason("frozen", text)),
          )
        : null,
      optional("Members", f.members, (member) => memberLine(member)),
    ];
  }

  function box(id) {
    const families = unique(N.operatorsIn(id).flatMap((operator) => N.made[operator].map(([family]) => family)));
    const structures = N.childrenOf(id)
      .filter((child) => N.kindOf(child) === "structure")
      .map(N.structureOf);
    const kind = {
      sequence: "operators that nothing separates",
      part: "part of a longer row",
      parallel: "structures between the same neighbours",
      network: "the network",
    }[N.kindOf(id)];
    const types = [...S.typesIn(id)].sort((a, b) => b[1] - a[1]);
    return [
      ...head(kind, S.titleOf(id), S.of(id)),
      foldButtons(id),
      facts([["operators", S.count(N.size[id])], ...cost(N.params[id], N.macs[id])]),
      optional("Inside of", around(id), structureLink),
      optional("Structures inside", structures, structureLine),
      optional("Channel families", families, (at) => [badge(S.stateOfFamily(N.families[at]), ""), familyLink(at)]),
      optional("Types", types, ([type, n]) => `${n} × ${type}`),
      optional("Operators", N.operatorsIn(id), operatorLine),
    ];
  }

  function edge({ edges, source, target }) {
    const line = (at) => [
      tensorLine(N.tensorOf(at)),
      el("div", {}, operatorLink(N.sourceOf(at)), " → ", operatorLink(N.targetOf(at))),
    ];
    return [...head("what flows", `${S.titleOf(source)} → ${S.titleOf(target)}`), optional("Tensors", edges, line)];
  }

  const MAKERS = {
    operator: (c) => operator(c.id),
    structure: (c) => structure(c.id),
    family: (c) => family(c.id),
    box: (c) => box(c.id),
    edge,
  };

  function show(choice) {
    const panel = document.getElementById("details");
    const made = choice
      ? MAKERS[choice.kind](choice)
      : [
          el(
            "p",
            { class: "hint" },
            "Click a box, a line or a row of a table, or search, to see all that is known of it.",
          ),
        ];
    panel.replaceChildren(...made.filter(Boolean));
    panel.scrollTop = 0;
  }

  return { el, show, badge, link, stateOfStructure };
})();
