"use strict";
/* The sortable tables: structures, channel families, and what keeps channels. */
const Tables = (() => {
  const { el, badge, link } = Details;
  const N = Network;
  const S = States;
  const FIRST = 200; // rows that show at once
  const { run } = N.data;

  const text = (value) => value;
  const share = (whole) => (value) => [S.count(value), el("small", {}, S.percent(value, whole))];
  const named = (name, choice, why) => [link(name, choice), why ? el("small", {}, why) : ""];

  const COLUMNS = {
    structures: [
      {
        title: "structure",
        value: (s) => s.tensor,
        cell: (s, at) => named(s.tensor, { kind: "structure", id: at }, run ? run.structures[at].reason : s.reason),
      },
      run
        ? { title: "fate", value: (s, at) => S.stateOfStructure(at), cell: (s, at) => badge(S.stateOfStructure(at)) }
        : { title: "kind", value: (s) => kindOf(s), cell: (s) => badge(s.erasable ? "erasable" : "frozen", kindOf(s)) },
      ...(run ? [{ title: "redundancy", value: scoreOf, number: (v) => (v === -Infinity ? "–" : S.score(v)) }] : []),
      { title: "operators", value: (s) => s.operators, number: S.count },
      { title: "parameters", value: (s) => s.params, number: share(N.data.params) },
      { title: "MACs", value: (s) => s.macs, number: share(N.data.macs) },
    ],
    families: [
      {
        title: "family",
        value: (f) => f.name,
        cell: (f, at) => named(f.name, { kind: "family", id: at }, f.reasons.join("; ")),
      },
      { title: "state", value: (f) => S.stateOfFamily(f), cell: (f) => badge(S.stateOfFamily(f)) },
      { title: "groups", value: (f) => f.groups, number: S.count },
      { title: "free", value: (f) => f.free, number: S.count },
      ...(run ? [{ title: "stay", value: keptOf, number: (v) => (v < 0 ? "–" : S.count(v)) }] : []),
      { title: "parameters", value: (f) => f.params, number: share(N.data.params) },
      { title: "MACs", value: (f) => f.macs, number: share(N.data.macs) },
    ],
    keeps: [
      {
        title: "operator",
        value: nameOfCause,
        cell: (f) => (f.operator >= 0 ? link(nameOfCause(f), { kind: "operator", id: f.operator }) : "–"),
      },
      { title: "type", value: (f) => f.type || "–", cell: (f) => f.type || "–" },
      { title: "why", value: (f) => f.reason, cell: (f) => f.reason },
      { title: "channel groups kept", value: (f) => f.channels, number: S.count },
    ],
  };
  const ROWS = { structures: N.structures, families: N.families, keeps: N.data.frozen };
  const EMPTY = {
    structures: "This network has no tensor that only joints (Add, Sum, Concat) read, so it has no structures.",
    families: "No channel family is listed for this search space.",
    keeps: "Nothing keeps channels.",
  };

  /* How many channels of a family stay; -1 where none could leave. */
  function keptOf(f, at) {
    return run.families[at] ?? -1;
  }

  function scoreOf(s, at) {
    const { redundancy } = run.structures[at];
    return redundancy === null ? -Infinity : redundancy;
  }

  function kindOf(s) {
    return s.erasable ? (s.minimal ? "minimal" : "larger") : "must stay";
  }

  function nameOfCause(f) {
    return f.operator >= 0 ? N.operators.name[f.operator] : "";
  }

  function compare(a, b) {
    return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
  }

  /* A table that sorts by the column whose head is clicked; long ones show their first rows until asked for all. */
  function table(name) {
    const columns = COLUMNS[name];
    const rows = ROWS[name].map((row, at) => [row, at]);
    if (!rows.length) return el("p", { class: "hint" }, EMPTY[name]);
    const body = el("tbody");
    const more = el("button", { class: "link more", type: "button" }, `show all ${S.count(rows.length)}`);
    let limit = FIRST;
    const fill = () => {
      body.replaceChildren(
        ...rows.slice(0, limit).map(([row, at]) =>
          el(
            "tr",
            {},
            columns.map((c) => cell(c, row, at)),
          ),
        ),
      );
      more.hidden = rows.length <= limit;
    };
    const sort = (column, button) => {
      const th = button.parentElement;
      const up = th.ariaSort === "descending" || (th.ariaSort === null && !column.number);
      for (const other of th.parentElement.children) other.ariaSort = null;
      th.ariaSort = up ? "ascending" : "descending";
      rows.sort(([a, i], [b, j]) => (up ? 1 : -1) * compare(column.value(a, i), column.value(b, j)) || i - j);
      fill();
    };
    const showAll = () => {
      limit = Infinity;
      fill();
    };
    more.addEventListener("click", showAll);
    window.addEventListener("beforeprint", showAll);
    const heads = columns.map((column) => {
      const button = el(
        "button",
        { type: "button", onclick: (event) => sort(column, event.currentTarget) },
        column.title,
      );
      return el("th", { scope: "col", class: column.number ? "number" : "" }, button);
    });
    fill();
    return el("div", {}, el("table", {}, el("thead", {}, el("tr", {}, heads)), body), more);
  }

  function cell(column, row, at) {
    if (column.number) return el("td", { class: "number" }, column.number(column.value(row, at)));
    return el("td", {}, (column.cell || text)(row, at));
  }

  /* Fill a table when its tab is first opened, and all for print. */
  function show(name) {
    const place = document.getElementById(name);
    if (!place.firstElementChild) place.append(table(name));
  }

  return { show, ROWS };
})();
