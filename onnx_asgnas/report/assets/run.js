"use strict";
/* A run's report: result, training, norms of groups, latency and settings, around the drawing of the network. */
(() => {
  const { el, link } = Details;
  const S = States;
  const N = Network;
  const run = N.data.run;
  const place = (id) => document.getElementById(id);
  const { curves } = run;

  /* A table of rows, whose first row is the head; of the columns so many are text, and numbers stand to the right. */
  function table([head, ...rows], cells = (row) => row, texts = 1) {
    const made = (tag, row) =>
      cells(row).map((cell, at) =>
        el(tag, { class: at < texts ? "" : "number", scope: tag === "th" ? "col" : null }, cell),
      );
    return el(
      "table",
      {},
      el("thead", {}, el("tr", {}, made("th", head))),
      el("tbody", {}, rows.map((row) => el("tr", {}, made("td", row)))),
    );
  }

  function hide(id) {
    place(id).hidden = true;
  }

  function fillResult() {
    place("told").textContent = run.told;
    place("cards").append(
      ...run.cards.map(([value, name, part]) =>
        el(
          "li",
          {},
          el("strong", {}, value),
          el("span", {}, name),
          part === null ? null : el("meter", { min: 0, max: 1, value: part, "aria-label": name }),
        ),
      ),
    );
    place("compared").append(table(run.compared));
    place("verdict").textContent = run.verdict;
    place("verdict").classList.toggle("failed", !run.passed);
  }

  function fillTraining() {
    const { samples, epochs, phases, total_steps: most } = curves;
    if (!epochs.step.length) return (hide("training"), hide("norms"));
    place("phases").textContent = run.trained;
    const common = { x: "step", phases, most };
    const loss = [{ name: "training loss, epoch by epoch", x: epochs.step, y: epochs.loss, kind: "main" }];
    if (samples.step.length > 1)
      loss.unshift({ name: "training loss", x: samples.step, y: samples.loss, kind: "faint" });
    const tested = (values) => ({
      x: epochs.step.filter((_, at) => values[at] !== null),
      y: values.filter((value) => value !== null),
    });
    if (epochs.test_loss.some((value) => value !== null))
      loss.push({ name: "test loss", ...tested(epochs.test_loss), kind: "second" });
    Chart.draw(place("chart-loss"), { ...common, title: "Loss", y: "", lines: loss });
    if (epochs.accuracy.some((value) => value !== null)) {
      const { x, y } = tested(epochs.accuracy);
      const lines = [{ name: "test accuracy", x, y: y.map((value) => 100 * value), kind: "main" }];
      Chart.draw(place("chart-accuracy"), { ...common, title: "Test accuracy", y: "%", lines });
    } else hide("chart-accuracy");
    const rates = [{ name: "learning rate", x: samples.step, y: samples.lr, kind: "main" }];
    if (samples.step.length > 1)
      Chart.draw(place("chart-lr"), { ...common, title: "Learning rate", y: "", lines: rates, zero: true });
    else hide("chart-lr");
    fillNorms(common);
  }

  function fillNorms(common) {
    const { norms } = curves;
    if (norms === null) return hide("norms");
    const lost = new Set(N.structures.filter((_, id) => run.structures[id].state === "removed").map((s) => s.tensor));
    const fate = (name, at) => {
      if (norms.values[at].at(-1) === 0) return ["chosen", " (chosen)"];
      return lost.has(name) ? ["faint", " (gone with another)"] : ["kept", ""];
    };
    const lines = norms.groups.map((name, at) => {
      const [kind, note] = fate(name, at);
      return { name: name + note, x: norms.step, y: norms.values[at], kind };
    });
    const structures = new Map(N.structures.map((s, id) => [s.tensor, id]));
    const choose = (at) => {
      const id = structures.get(norms.groups[at]);
      if (id === undefined) return;
      Page.jump({ kind: "structure", id });
      place("drawn").scrollIntoView({ behavior: "smooth" });
    };
    place("norms-told").textContent = run.normed;
    const told = { title: "‖x‖ of each group", y: "", zero: true, height: 300 };
    Chart.draw(place("chart-norms"), { ...common, ...told, lines, choose });
  }

  const micro = (value) => (value === null ? "–" : `${value >= 99.95 ? value.toFixed(0) : value.toFixed(1)} µs`);
  const operators = new Map(N.operators.name.map((name, id) => [name, id]));

  function fillLatency() {
    const { times } = run;
    if (times === null) return hide("latency");
    place("latency-told").textContent = times.told;
    const count = ([n, total]) => (n ? [String(n), micro(total)] : ["–", "–"]);
    const bar = (of) => el("meter", { min: 0, max: times.most, value: of, "aria-hidden": "true" });
    place("types").append(
      table([["operator type", "full", "", "compact", "", ""], ...times.types], (row) =>
        typeof row[1] === "string"
          ? row
          : [row[0], ...count(row[1]), ...count(row[2]), el("div", { class: "bars" }, bar(row[1][1]), bar(row[2][1]))],
      ),
    );
    const named = (name) => (operators.has(name) ? link(name, { kind: "operator", id: operators.get(name) }) : name);
    place("slowest").append(
      table(
        [["slowest operators", "type", "full", "compact"], ...times.slowest],
        (row) => (row[2] === "full" ? row : [named(row[0]), row[1], micro(row[2]), micro(row[3])]),
        2,
      ),
    );
  }

  function fillSettings() {
    const pair = ([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
    for (const id of ["settings", "versions"]) place(`${id}-list`).append(...run[id].map(pair));
  }

  function fillSections() {
    const nav = document.querySelector("nav");
    for (const heading of document.querySelectorAll("article > section > h2, h2.between")) {
      const target = heading.id ? heading : heading.parentElement;
      if (!target.hidden) nav.append(el("a", { href: `#${target.id}` }, heading.textContent.split(",")[0]));
    }
  }

  document.querySelector("footer p").textContent =
    "What became of operators and structures. ⊞ folded, ⊟ open: double-click, or Enter.";
  fillResult();
  fillTraining();
  fillLatency();
  fillSettings();
  fillSections();
  const example = run.structures.findIndex((s) => s.reason === "chosen");
  if (example >= 0) Page.choose({ kind: "structure", id: example });
})();
