"use strict";
// The explorer and the case studies, made from the data beside them. All texts are set as text, never as markup.

function make(name, attributes = {}, ...content) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...content);
  return node;
}

function dataOf(name) {
  const node = document.getElementById(`${name}-data`);
  return node ? JSON.parse(node.textContent) : null;
}

function picker(label, count, prefix, change) {
  const select = make("select");
  for (let i = 0; i < count; i += 1) select.append(make("option", { value: i }, `${prefix} ${i}`));
  select.addEventListener("change", change);
  return [make("label", {}, `${label} `, select), select];
}

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
const tint = (colour, strength) => `color-mix(in srgb, ${colour} ${Math.round(15 + 60 * Math.min(1, strength))}%, transparent)`;
// Blanks that a reader should see.
const shown = (piece) => piece.replace(/\n/g, "⏎\n").replace(/\t/g, "⇥");
const named = (piece) => JSON.stringify(piece);

function words(side, token) {
  const lines = [named(side.pieces[token])];
  const loss = side.losses[token];
  if (loss !== null) lines.push(`loss ${loss}`);
  side.experts.forEach((byToken, layer) => {
    const parts = byToken[token].flatMap((e, place) => (e < 0 ? [] : [`expert ${e}: ${side.weights[layer][token][place]}`]));
    lines.push(`layer ${layer}: ${parts.join(", ") || "no expert"}`);
  });
  return lines.join("\n");
}

// `pick`: from (experts, weights) of a token to [expert, strength], or null for one that stays plain.
function tokenSpans(side, layer, colours, pick, begin) {
  const nodes = [];
  side.pieces.forEach((piece, token) => {
    if (begin) nodes.push(...begin(token));
    const span = make("span", { class: "token mark", "data-token": token }, shown(piece));
    span.dataset.tip = words(side, token);
    const found = pick(side.experts[layer][token], side.weights[layer][token]);
    if (found) span.style.background = tint(colours[found[0]], found[1]);
    nodes.push(span);
  });
  return nodes;
}

const first = (experts, weights) => (experts[0] < 0 ? null : [experts[0], weights[0]]);

function keysOf(colours) {
  const box = make("div", { class: "keys" });
  colours.forEach((colour, expert) => {
    const swatch = make("i");
    swatch.style.background = colour;
    box.append(make("span", {}, swatch, `${expert}`));
  });
  return box;
}

function showCases(place, cases) {
  const layers = Math.max(...cases.flatMap((c) => c.sides.map((side) => side.experts.length)));
  const choose = make("select");
  cases.forEach((c, index) => choose.append(make("option", { value: index }, `${index + 1}. ${c.title}`)));
  const [layerLabel, layer] = picker("Layer", layers, "layer", draw);
  const box = make("div", { class: "sides" });
  choose.addEventListener("change", draw);
  place.append(make("div", { class: "bar" }, make("label", {}, "Text ", choose), layerLabel), box);
  function draw() {
    box.replaceChildren(...cases[Number(choose.value)].sides.map((side) => {
      const at = Math.min(Number(layer.value), side.experts.length - 1);
      const text = make("div", { class: "tokens", tabindex: "0" }, ...tokenSpans(side, at, side.colours, first));
      return make("div", {}, make("h3", {}, `${side.label}, layer ${at}`), keysOf(side.colours), text);
    }));
  }
  draw();
}

function sampleList(side, layer, expert) {
  const list = make("ol", { class: "samples" });
  for (const sample of side.samples[layer][expert]) {
    const marked = make("mark", {}, shown(sample.marked));
    marked.style.background = tint(side.colours[expert], 0.8);
    const about = make("span", { class: "about" }, `weight ${sample.weight}${sample.domain ? `, ${sample.domain}` : ""}`);
    list.append(make("li", {}, about, sample.before, marked, sample.after));
  }
  return list.children.length ? list : make("p", { class: "aside empty" }, "No token of the text goes to this expert.");
}

function waysTable(side, query) {
  const found = side.search.filter((row) => row[0].toLowerCase().includes(query)).slice(0, 30);
  if (!found.length) return make("p", { class: "aside empty" }, "No token id of the text's most frequent ones holds this.");
  const head = ["token", "id", "in text", ...side.shares.map((_, layer) => `layer ${layer}`)].map((name) => make("th", {}, name));
  const body = make("tbody");
  for (const [piece, id, count, ways] of found) {
    const cells = ways.map((way) => {
      const parts = [];
      for (let i = 0; i < way.length; i += 2) parts.push(`${way[i]}: ${percent(way[i + 1])}`);
      return make("td", {}, parts.join(", "));
    });
    body.append(make("tr", {}, make("td", {}, make("code", {}, named(piece))), make("td", { class: "n" }, `${id}`),
      make("td", { class: "n" }, `${count}`), ...cells));
  }
  return make("div", { class: "scroll" }, make("table", { class: "ways" }, make("thead", {}, make("tr", {}, ...head)), body));
}

function explorerSide(side, search) {
  const [layerLabel, layer] = picker("Layer", side.layers, "layer", draw);
  const [expertLabel, expert] = picker("Expert", side.experts, "expert", draw);
  const [facts, samples, text, ways] = ["p", "div", "div", "div"].map((name) => make(name));
  text.className = "tokens";
  text.tabIndex = 0;
  const box = make("div", { class: "explorer" }, make("h3", {}, side.label), make("div", { class: "bar" }, layerLabel, expertLabel),
    facts, make("h4", {}, "Samples of largest weight"), samples, make("h4", {}, "Running text"), text, ways);
  function mine(experts, weights) {
    const place = experts.indexOf(Number(expert.value));
    return place < 0 ? null : [Number(expert.value), weights[place]];
  }
  function begin(token) {
    const place = side.text.starts.indexOf(token);
    return place < 0 ? [] : [make("span", { class: "domain" }, side.text.domains[place] || "—")];
  }
  function find() {
    const query = search.value.toLowerCase();
    for (const span of text.querySelectorAll(".token")) {
      span.classList.toggle("hit", query !== "" && side.text.pieces[Number(span.dataset.token)].toLowerCase().includes(query));
    }
    ways.replaceChildren(...(query ? [make("h4", {}, "Where the token goes (expert: share)"), waysTable(side, query)] : []));
  }
  function draw() {
    const [l, e] = [Number(layer.value), Number(expert.value)];
    const keywords = side.keywords[l][e];
    facts.textContent = `${percent(side.shares[l][e])} of the layer's assignments. ${keywords.length ? `Keywords: ${keywords.join("  ")}` : "No keyword."}`;
    samples.replaceChildren(sampleList(side, l, e));
    text.replaceChildren(...tokenSpans(side.text, l, side.colours, mine, begin));
    find();
  }
  search.addEventListener("input", find);
  draw();
  return box;
}

function showExplorer(place, sides) {
  const search = make("input", { type: "search", placeholder: "a token", id: "token-search" });
  const box = make("div", { class: "sides" });
  place.append(make("div", { class: "bar" }, make("label", {}, "Search a token ", search)), box);
  box.append(...sides.map((side) => explorerSide(side, search)));
}

document.addEventListener("DOMContentLoaded", () => {
  for (const [name, show] of [["explore", showExplorer], ["cases", showCases]]) {
    const data = dataOf(name);
    if (data && data.length) show(document.getElementById(`${name}-place`), data);
  }
});
