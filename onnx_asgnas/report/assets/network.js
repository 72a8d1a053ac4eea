"use strict";
/* The network by numbers: operators, then boxes, each inner one before the one around it; the last is the whole. */
const Network = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { operators, tensors, structures, families } = data;
  const count = operators.name.length;
  const root = count + data.boxes.length - 1;
  const parent = new Int32Array(root + 1).fill(-1);
  const params = new Float64Array(root + 1);
  const macs = new Float64Array(root + 1);
  const size = new Float64Array(root + 1); // operators inside, without the graph's inputs and outputs
  const boxOf = new Int32Array(structures.length).fill(-1);

  const isBox = (id) => id >= count;
  const isEnd = (id) => id < count && operators.type[id].startsWith("graph ");
  const kindOf = (id) => (isBox(id) ? data.boxes[id - count][0] : "operator");
  const structureOf = (id) => (isBox(id) ? data.boxes[id - count][1] : -1);
  const childrenOf = (id) => (isBox(id) ? data.boxes[id - count][2] : []);

  for (let id = 0; id < count; id++) {
    params[id] = operators.params[id];
    macs[id] = operators.macs[id];
    size[id] = isEnd(id) ? 0 : 1;
  }
  for (let id = count; id <= root; id++) {
    if (kindOf(id) === "structure") boxOf[structureOf(id)] = id;
    for (const child of childrenOf(id)) {
      parent[child] = id;
      params[id] += params[child];
      macs[id] += macs[child];
      size[id] += size[child];
    }
  }

  const edgeCount = data.edges.length / 3;
  const reads = Array.from({ length: count }, () => []); // the edges that enter and leave each operator
  const readers = Array.from({ length: count }, () => []);
  for (let edge = 0; edge < edgeCount; edge++) {
    readers[data.edges[3 * edge]].push(edge);
    reads[data.edges[3 * edge + 1]].push(edge);
  }
  const sourceOf = (edge) => data.edges[3 * edge];
  const targetOf = (edge) => data.edges[3 * edge + 1];
  const tensorOf = (edge) => data.edges[3 * edge + 2];

  const outputsOf = Array.from({ length: count }, () => []);
  tensors.maker.forEach((maker, tensor) => outputsOf[maker].push(tensor));

  const made = Array.from({ length: count }, () => []); // [family, member] of what an operator makes, and cuts only
  const cut = Array.from({ length: count }, () => []);
  families.forEach((family, index) =>
    family.members.forEach((member, at) => {
      for (const id of member[3]) (member[2] === "cut" ? cut : made)[id].push([index, at]);
    }),
  );

  const keeps = Array.from({ length: count }, () => []); // the entries of `frozen` that an operator is the cause of
  data.frozen.forEach((entry, at) => entry.operator >= 0 && keeps[entry.operator].push(at));

  const innerOf = structures.map(() => []);
  structures.forEach((s, at) => s.parent >= 0 && innerOf[s.parent].push(at));

  /* All operators in a box. */
  function operatorsIn(id) {
    const found = [];
    const stack = [id];
    while (stack.length) {
      const next = stack.pop();
      if (isBox(next)) for (const child of childrenOf(next)) stack.push(child);
      else found.push(next);
    }
    return found.sort((a, b) => a - b);
  }

  /* What is drawn when these boxes are open: the open boxes, the leaves, and one edge for all between two leaves. */
  function visible(open) {
    const shownAs = new Int32Array(root + 1).fill(-1);
    const isOpen = new Uint8Array(root + 1);
    const opened = [];
    const leaves = [];
    isOpen[root] = 1;
    for (let id = root; id >= count; id--) {
      for (const child of childrenOf(id)) {
        if (!isOpen[id]) shownAs[child] = shownAs[id];
        else if (isBox(child) && open.has(child)) {
          isOpen[child] = 1;
          opened.push(child);
        } else {
          shownAs[child] = child;
          leaves.push(child);
        }
      }
    }
    leaves.sort((a, b) => firstOf(a) - firstOf(b));
    const edges = new Map();
    for (let edge = 0; edge < edgeCount; edge++) {
      const source = shownAs[sourceOf(edge)];
      const target = shownAs[targetOf(edge)];
      if (source === target) continue;
      const key = source * (root + 1) + target;
      const found = edges.get(key);
      if (found) found.edges.push(edge);
      else edges.set(key, { id: `e${source}_${target}`, source, target, edges: [edge] });
    }
    return { opened, leaves, edges: [...edges.values()], shownAs };
  }

  const first = new Int32Array(root + 1);
  for (let id = 0; id <= root; id++) first[id] = isBox(id) ? Math.min(...childrenOf(id).map((c) => first[c])) : id;
  const firstOf = (id) => first[id];

  const last = new Int32Array(root + 1);
  for (let id = 0; id <= root; id++) last[id] = isBox(id) ? Math.max(...childrenOf(id).map((c) => last[c])) : id;
  const lastOf = (id) => last[id];

  /* The boxes around an operator or box, inner first, without the whole network. */
  function around(id) {
    const found = [];
    for (let box = parent[id]; box >= 0 && box !== root; box = parent[box]) found.push(box);
    return found;
  }

  return {
    data,
    operators,
    tensors,
    structures,
    families,
    count,
    root,
    parent,
    params,
    macs,
    size,
    boxOf,
    isBox,
    isEnd,
    kindOf,
    structureOf,
    childrenOf,
    reads,
    readers,
    sourceOf,
    targetOf,
    tensorOf,
    outputsOf,
    made,
    cut,
    keeps,
    innerOf,
    operatorsIn,
    visible,
    firstOf,
    lastOf,
    around,
  };
})();
