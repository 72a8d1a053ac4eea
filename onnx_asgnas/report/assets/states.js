"use strict";
/* In what state a thing is, and how states, names and numbers are written. */
const States = (() => {
  const N = Network;
  const { run } = N.data; // of a report: what became of everything
  const OF_SPACE = {
    erasable: { glyph: "◆", label: "erasable structure", hint: "can be removed as a whole" },
    free: { glyph: "●", label: "free channels", hint: "all its channel groups may leave" },
    partly: { glyph: "◐", label: "partly frozen", hint: "some of its channel groups must stay" },
    frozen: { glyph: "■", label: "frozen", hint: "its channels, or the structure, must stay" },
    protected: { glyph: "▲", label: "protected", hint: "the user wants it to stay" },
    unknown: { glyph: "?", label: "unknown operator", hint: "kept, with all that it touches" },
    mixed: { glyph: "◍", label: "several states", hint: "a folded box of things in different states" },
    plain: { glyph: "○", label: "no channels of its own", hint: "goes with what it reads" },
  };
  const OF_RUN = {
    kept: { glyph: "●", label: "stays", hint: "it is in the compact model as it was" },
    narrower: { glyph: "◐", label: "fewer channels", hint: "it is in the compact model, with some of its channels" },
    removed: { glyph: "✕", label: "removed", hint: "it is not in the compact model" },
    needed: { glyph: "■", label: "at zero, but needed", hint: "without it the network would be cut through" },
    mixed: OF_SPACE.mixed,
  };
  const ALL = { ...OF_SPACE, ...OF_RUN };
  const LEGEND = run ? OF_RUN : OF_SPACE;

  // Of a sequence of operators in several states the first of these is told.
  const SPEAKS = ["unknown", "protected", "partly", "frozen", "free", "needed", "narrower", "kept", "removed"];

  const isProtected = new Set(N.data.protected);
  const isUnknown = new Set(N.data.unknown);

  function stateOfFamily(family) {
    return family.free === 0 ? "frozen" : family.free === family.groups ? "free" : "partly";
  }

  function enclosingErasable(id) {
    for (let s = N.operators.structure[id]; s >= 0; s = N.structures[s].parent) if (N.structures[s].erasable) return s;
    return -1;
  }

  function stateOfOperator(id) {
    if (run) return run.operators[id];
    const type = N.operators.type[id];
    if (isUnknown.has(type) || isUnknown.has(type.split(".").pop())) return "unknown";
    if (isProtected.has(id)) return "protected";
    const states = new Set(N.made[id].map(([family]) => stateOfFamily(N.families[family])));
    if (states.size) return states.size > 1 ? "partly" : [...states][0];
    return enclosingErasable(id) >= 0 ? "erasable" : "plain";
  }

  const known = new Array(N.root + 1);
  for (let id = 0; id <= N.root; id++) known[id] = N.isBox(id) ? stateOfBox(id) : stateOfOperator(id);

  function stateOfStructure(id) {
    if (run) return run.structures[id].state;
    return N.structures[id].erasable ? "erasable" : "frozen";
  }

  function stateOfBox(id) {
    if (N.kindOf(id) === "structure") return stateOfStructure(N.structureOf(id));
    const inside = new Set(N.childrenOf(id).map((child) => known[child]));
    inside.delete("plain");
    if (inside.size === 0) return "plain";
    if (inside.size === 1) return [...inside][0];
    if (N.kindOf(id) === "sequence")
      return SPEAKS.find((state) => inside.has(state));
    return "mixed";
  }

  const numbers = new Intl.NumberFormat("en-US");
  const three = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 });

  /* A count as people read it: 12,610, or 2.56 M from a million on. */
  function count(number) {
    if (number < 1e6) return numbers.format(number);
    return number < 1e9 ? `${three.format(number / 1e6)} M` : `${three.format(number / 1e9)} G`;
  }

  function percent(part, whole) {
    return whole ? `${((100 * part) / whole).toFixed(1)} %` : "–";
  }

  /* A score, which may be negative, to three digits. */
  const score = (number) => three.format(number).replace("-", "−");

  /* The end of a name, which tells more than its beginning. */
  function short(name, length = 30) {
    const text = name.replace(/^\/+/, "");
    return text.length <= length ? text : `…${text.slice(text.length - length + 1)}`;
  }

  /* The scope at the beginning of a name: cell3/node1 of /cell3/node1/edge0/Conv. */
  function start(name, most = 2) {
    const scopes = name.replace(/^\/+/, "").split("/");
    return short(scopes.slice(0, Math.max(1, Math.min(most, scopes.length - 1))).join("/"), 22);
  }

  function typesIn(id) {
    const types = new Map();
    for (const operator of N.operatorsIn(id)) {
      const type = N.operators.type[operator].split(".").pop();
      types.set(type, (types.get(type) || 0) + 1);
    }
    return types;
  }

  const ABBREVIATED = {
    BatchNormalization: "BatchNorm",
    LayerNormalization: "LayerNorm",
    GroupNormalization: "GroupNorm",
    InstanceNormalization: "InstanceNorm",
    GlobalAveragePool: "GlobalAvgPool",
    AveragePool: "AvgPool",
  };
  const abbreviated = (type) => ABBREVIATED[type] || type;

  function sequenceTitle(id) {
    const types = [...typesIn(id)].map(([type, n]) => abbreviated(type) + (n > 1 ? ` ×${n}` : ""));
    return types.length > 3 ? `${types.slice(0, 3).join(" · ")} +${types.length - 3}` : types.join(" · ");
  }

  function titleOf(id) {
    const kind = N.kindOf(id);
    if (kind === "operator")
      return N.isEnd(id) ? N.operators.type[id] : abbreviated(N.operators.type[id].split(".").pop());
    if (kind === "structure") return short(N.structures[N.structureOf(id)].tensor, 32);
    if (kind === "sequence") return sequenceTitle(id);
    if (kind === "parallel") return `${N.childrenOf(id).length} parallel structures`;
    return kind === "network" ? N.data.model : `${count(N.size[id])} operators`;
  }

  function subtitleOf(id) {
    const kind = N.kindOf(id);
    if (kind === "operator") return short(N.operators.name[id]);
    if (kind === "sequence") return short(N.operators.name[N.firstOf(id)]);
    const share = N.params[id] ? ` · ${percent(N.params[id], N.data.params)} of params` : "";
    if (kind === "structure") return `${count(N.size[id])} operator${N.size[id] === 1 ? "" : "s"}${share}`;
    if (kind === "parallel") return `${start(N.operators.name[N.firstOf(id)], 3)}${share}`;
    return `${start(N.operators.name[N.firstOf(id)])} – ${start(N.operators.name[N.lastOf(id)])}`;
  }

  return {
    ALL,
    LEGEND,
    of: (id) => known[id],
    stateOfFamily,
    stateOfStructure,
    enclosingErasable,
    isProtected,
    count,
    score,
    percent,
    short,
    titleOf,
    subtitleOf,
    typesIn,
  };
})();
