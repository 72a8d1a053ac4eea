"use strict";
/* Where boxes and edges go: the layered layout of the Eclipse Layout Kernel, in a worker so that the page never waits. */
const Layout = (() => {
  const PATIENCE = 12000; // ms until a drawing is given up as too dense
  const source = () => new Blob([document.getElementById("layout-worker").textContent], { type: "text/javascript" });
  const OPTIONS = {
    "elk.algorithm": "layered",
    "elk.direction": "DOWN",
    "elk.hierarchyHandling": "INCLUDE_CHILDREN",
    "elk.edgeRouting": "ORTHOGONAL",
    "elk.json.shapeCoords": "ROOT",
    "elk.json.edgeCoords": "ROOT",
    "elk.padding": "[top=20,left=20,bottom=20,right=20]",
    "elk.spacing.nodeNode": "22",
    "elk.spacing.edgeNode": "14",
    "elk.spacing.edgeEdge": "9",
    "elk.layered.spacing.nodeNodeBetweenLayers": "28",
    "elk.layered.spacing.edgeNodeBetweenLayers": "12",
    "elk.layered.spacing.edgeEdgeBetweenLayers": "9",
    "elk.layered.considerModelOrder.strategy": "PREFER_EDGES",
    "elk.layered.nodePlacement.bk.fixedAlignment": "BALANCED",
    "elk.layered.thoroughness": "3",
  };
  const INNER = { "elk.padding": "[top=38,left=16,bottom=16,right=16]", "elk.contentAlignment": "[V_CENTER, H_LEFT]" };
  const BARE = { "elk.padding": "[top=10,left=10,bottom=10,right=10]" };
  let kernel = null;
  let stopBusy = null;

  /* A worker, warm: a first small drawing loads and compiles what the real one needs. */
  function start() {
    const url = URL.createObjectURL(source());
    kernel = new ELK({ algorithms: ["layered"], workerFactory: () => new Worker(url) });
    const children = ["a", "b", "c"].map((id) => ({ id, width: 9, height: 9 }));
    const edges = ["ab", "bc", "ac"].map((id) => ({ id, sources: [id[0]], targets: [id[1]] }));
    kernel.layout({ id: "warm", layoutOptions: OPTIONS, children, edges }).catch(() => {});
  }

  function stop() {
    if (kernel) kernel.terminateWorker();
    kernel = null;
  }

  /* The positions of what is visible; rejects with "superseded" when another drawing is asked for meanwhile. */
  function place(view, sizeOf) {
    if (stopBusy) {
      stopBusy("superseded");
      stop(); // what it works on is of no use any more
    }
    if (!kernel) start();
    return new Promise((resolve, reject) => {
      const done = (settle) => (value) => {
        clearTimeout(timer);
        stopBusy = null;
        settle(value);
      };
      const timer = setTimeout(() => {
        stop();
        stopBusy = null;
        reject(new Error("too dense"));
      }, PATIENCE);
      stopBusy = (why) => done(reject)(new Error(why));
      kernel.layout(graphOf(view, sizeOf)).then(done(resolve), done(reject));
    });
  }

  function graphOf(view, sizeOf) {
    const nodes = new Map();
    const top = { id: "root", layoutOptions: OPTIONS, children: [], edges: [] };
    for (const id of view.opened) nodes.set(id, { id: `n${id}`, children: [], ...openBox(id, sizeOf(id)) });
    for (const id of view.leaves) nodes.set(id, leaf(id, sizeOf(id)));
    for (const [id, node] of nodes) (nodes.get(Network.parent[id]) || top).children.push(node);
    for (const node of [top, ...nodes.values()]) if (node.children) node.children.sort(inOrder);
    for (const edge of view.edges) {
      top.edges.push({ id: edge.id, sources: [`n${edge.source}`], targets: [`n${edge.target}`] });
    }
    return top;
  }

  const leaf = (id, { width, height }) => ({ id: `n${id}`, width, height });

  /* An open box, wide enough for its title; a sequence has none. */
  function openBox(id, { title }) {
    if (Network.kindOf(id) === "sequence") return { layoutOptions: BARE };
    const least = `(60,${title + 24})`; // height and width: the layout turns the drawing, but not this pair
    return { layoutOptions: { ...INNER, "elk.nodeSize.constraints": "[MINIMUM_SIZE]", "elk.nodeSize.minimum": least } };
  }

  function inOrder(a, b) {
    return Network.firstOf(Number(a.id.slice(1))) - Network.firstOf(Number(b.id.slice(1)));
  }

  try {
    start(); // while the page still loads
  } catch {
    kernel = null; // a browser without workers: `place` says so, and the lists work all the same
  }
  return { place };
})();
