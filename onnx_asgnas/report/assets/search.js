"use strict";
/* Search by name: / to focus, arrows to choose, Enter to jump. */
const Search = (() => {
  const { el } = Details;
  const N = Network;
  const MOST = 40;
  const field = document.getElementById("search");
  const results = document.getElementById("results");

  const entries = [
    ...N.structures.map((s, id) => entry(s.tensor, "structure", { kind: "structure", id }, 0)),
    ...N.families.map((f, id) => entry(f.name, "channel family", { kind: "family", id }, 1)),
    ...N.operators.name.map((name, id) => entry(name, N.operators.type[id], { kind: "operator", id }, 2)),
    ...N.tensors.name.map((name, at) => entry(name, "tensor", { kind: "operator", id: N.tensors.maker[at] }, 3)),
    ...N.families.flatMap((f, id) => f.members.map((m) => entry(m[0], "initializer", { kind: "family", id }, 4))),
  ];

  function entry(name, what, choice, order) {
    return { name, lower: `${name} ${what}`.toLowerCase(), what, choice, order };
  }

  /* How well a name fits: equal, at its beginning, at the beginning of a word, anywhere; each by kind and length. */
  function rank({ name, lower, order }, wanted) {
    const at = lower.indexOf(wanted);
    if (at < 0) return Infinity;
    const place =
      name.length === wanted.length && at === 0 ? 0 : at === 0 ? 1 : /[^a-z0-9]/.test(lower[at - 1]) ? 2 : 3;
    return place * 1e4 + order * 1e3 + Math.min(name.length, 999);
  }

  function find(query) {
    const wanted = query.trim().toLowerCase();
    if (!wanted) return [];
    const ranked = entries.map((found) => ({ found, rank: rank(found, wanted) })).filter((r) => r.rank < Infinity);
    ranked.sort((a, b) => a.rank - b.rank);
    const seen = new Set();
    const unlike = ranked.filter(({ found }) => {
      const key = `${found.name}\n${found.choice.kind}\n${found.choice.id}`;
      return !seen.has(key) && seen.add(key);
    });
    return unlike.map((r) => r.found);
  }

  let active = 0;
  function draw() {
    const found = find(field.value);
    active = 0;
    const lines = found.slice(0, MOST).map(({ name, what, choice }, at) => {
      const id = `result${at}`;
      const take = (event) => {
        event.preventDefault();
        jump(choice);
      };
      return el(
        "li",
        { role: "option", id, onpointerdown: take },
        el("span", {}, name || "(unnamed)"),
        el("small", {}, what),
      );
    });
    if (field.value.trim() && !found.length) lines.push(el("li", { class: "none" }, "nothing has such a name"));
    if (found.length > MOST) lines.push(el("li", { class: "none" }, `and ${States.count(found.length - MOST)} more`));
    results.replaceChildren(...lines);
    results.hidden = !lines.length;
    field.setAttribute("aria-expanded", String(Boolean(lines.length)));
    mark(found);
    return found;
  }

  function mark(found) {
    const lines = [...results.querySelectorAll("[role=option]")];
    lines.forEach((line, at) => line.setAttribute("aria-selected", String(at === active)));
    if (found.length) field.setAttribute("aria-activedescendant", `result${active}`);
    else field.removeAttribute("aria-activedescendant");
    if (lines[active]) lines[active].scrollIntoView({ block: "nearest" });
  }

  function close() {
    results.hidden = true;
    field.setAttribute("aria-expanded", "false");
  }

  function jump(choice) {
    close();
    Drawing.container.focus({ preventScroll: true });
    Page.jump(choice);
  }

  field.addEventListener("input", draw);
  field.addEventListener("focus", () => field.value && draw());
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    const found = find(field.value).slice(0, MOST);
    if (event.key === "Enter" && found[active]) jump(found[active].choice);
    else if (event.key === "Escape") Drawing.container.focus();
    else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && found.length) {
      active = (active + (event.key === "ArrowDown" ? 1 : found.length - 1)) % found.length;
      mark(found);
    } else return;
    event.preventDefault();
  });

  return { focus: () => field.select(), find };
})();
