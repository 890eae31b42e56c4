// The plots, drawn by the server; renewed at most once a second while somebody can see them.
import { ask } from "./api.js";
import { byId, el, setText } from "./dom.js";

const PAUSE_MS = 900;

export class Plots {
  constructor() {
    this.element = byId("plots");
    this.graphs = new Map();
    this.file = 0;
    this.wanted = "";
    this.shown = "";
    this.busy = false;
    this.element.open = !matchMedia("(max-width: 640px)").matches;
    this.element.addEventListener("toggle", () => this.renew());
  }

  /** Tells which state of which file there is to show. */
  follow(file, state) {
    this.file = file;
    this.wanted = `${file} ${state.generation} ${state.counted_bytes} ${state.live?.rates ?? ""}`;
    this.renew();
  }

  async renew() {
    if (this.busy || !this.element.open || this.element.hidden || this.shown === this.wanted) return;
    this.busy = true;
    const wanted = this.wanted;
    try {
      this.show((await ask("/api/plots", { file: this.file })).plots);
      this.shown = wanted;
    } catch {
      this.wanted = ""; // the next state asks again
    }
    setTimeout(() => {
      this.busy = false;
      if (this.wanted) this.renew();
    }, PAUSE_MS);
  }

  show(plots) {
    for (const plot of plots) {
      const graph = this.graphs.get(plot.key) ?? this.add(plot.key);
      setText(graph.title, plot.title);
      graph.legend.replaceChildren(...plot.legend.map(([look, text]) => el("li", {}, el("span", { class: `key ${look}` }), text)));
      // Drawn by our own server, which escapes every text in it; the policy lets no script in it run anyway.
      graph.drawing.innerHTML = plot.svg;
      setText(graph.note, plot.note);
      graph.plot = plot;
      graph.numbers.hidden = !plot.rows.length;
      if (graph.numbers.open) graph.fill();
    }
  }

  add(key) {
    const graph = { title: el("h2"), legend: el("ul.legend"), drawing: el("div.drawing"), note: el("span"), cells: el("div") };
    graph.fill = () => {
      const line = (tag, cells) => el("tr", {}, cells.map((cell) => el(tag, {}, cell)));
      graph.cells.replaceChildren(el("table", {}, el("thead", {}, line("th", graph.plot.head)), el("tbody", {}, graph.plot.rows.map((row) => line("td", row)))));
    };
    graph.numbers = el("details.numbers", { ontoggle: () => graph.numbers.open && graph.fill() }, el("summary", {}, "Numbers"), graph.cells);
    this.element.querySelector(".graphs").append(el("figure.graph", { "data-key": key }, graph.title, graph.legend, graph.drawing, el("figcaption", {}, graph.note, graph.numbers)));
    this.graphs.set(key, graph);
    return graph;
  }
}
