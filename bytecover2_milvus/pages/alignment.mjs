// The drawings of an alignment, one for each group of channels, and the choice among them.
import { clock } from "./duet.mjs";

const STEP_S = 5; // of the query, for an arrow key
const SNAP_PX = 24; // a click nearer to the path than this is meant for it

// The value at `x` of the line through points whose column `from` grows; beyond its ends it goes on at `slope`.
function along(points, from, x, slope) {
  const to = 1 - from;
  const [first, last] = [points[0], points.at(-1)];
  if (x <= first[from]) return first[to] + (x - first[from]) * slope;
  if (x >= last[from]) return last[to] + (x - last[from]) * slope;
  const next = points.findIndex((point) => point[from] > x);
  const [a, b] = [points[next - 1], points[next]];
  return a[to] + ((b[to] - a[to]) * (x - a[from])) / (b[from] - a[from]);
}

// The drawing of one group of channels; a match for a `Duet`.
function View(view, section, data, duet, heard) {
  const path = view.path.map((point) => point.map((frames) => frames * data.frame_s)); // seconds of query and track
  const [start, end] = [path[0], path.at(-1)];
  const find = (name) => section.querySelector(name);
  const matrix = find(".matrix");
  const place = ([query, track], follows = true) => ({ query, track, follows });
  this.start = place(start);
  this.end_s = end[0];

  this.partner = (query_s, from) =>
    from.follows ? along(path, 0, query_s, 1 / view.ratio) : from.track + (query_s - from.query) / view.ratio;
  this.origin = (track_s, from) =>
    from.follows ? along(path, 1, track_s, view.ratio) : from.query + (track_s - from.track) * view.ratio;

  this.draw = (query_s, track_s) => {
    const [x, y] = [track_s / data.frame_s, query_s / data.frame_s];
    find(".cross").setAttribute("d", `M0 ${y}H${data.frames[1]}M${x} 0V${data.frames[0]}`);
    find(".spot").setAttribute("d", `M${x} ${y}h0`);
    const inside = track_s >= start[1] && track_s <= end[1];
    for (const mark of section.querySelectorAll(".mark")) {
      mark.setAttribute("d", inside ? `M${x - start[1] / data.frame_s} 0v12` : "");
    }
    matrix.setAttribute("aria-valuenow", Math.round((100 * (query_s - start[0])) / (end[0] - start[0])));
    matrix.setAttribute("aria-valuetext", `${clock(query_s)} in the query, ${clock(track_s)} in the track`);
  };

  matrix.addEventListener("click", (event) => {
    const box = matrix.getBoundingClientRect();
    const scale = [box.height / data.frames[0], box.width / data.frames[1]].map((pixels) => pixels / data.frame_s); // to pixels
    const clicked = [(event.clientY - box.top) / scale[0], (event.clientX - box.left) / scale[1]];
    const distance = (point) => Math.hypot(...point.map((second, i) => (second - clicked[i]) * scale[i]));
    const nearest = path.reduce((best, point) => (distance(point) < distance(best) ? point : best));
    duet.jump(distance(nearest) <= SNAP_PX ? place(nearest) : place(clicked, false));
  });

  matrix.addEventListener("keydown", (event) => {
    const at = (query_s) => {
      const within = Math.min(Math.max(query_s, start[0]), end[0]);
      return place([within, along(path, 0, within, 1 / view.ratio)]);
    };
    const steps = { ArrowRight: STEP_S, ArrowDown: STEP_S, ArrowLeft: -STEP_S, ArrowUp: -STEP_S };
    if (event.key in steps) duet.jump(at(duet.place.query + steps[event.key]));
    else if (event.key === "Home") duet.jump(this.start);
    else if (event.key === "End") duet.jump(at(end[0]));
    else if ((event.key === "Enter" || event.key === " ") && heard) duet.toggle("together");
    else return;
    event.preventDefault();
  });

  find(".strips").addEventListener("click", (event) => {
    const box = find(".strip").getBoundingClientRect();
    const track_s = start[1] + ((event.clientX - box.left) / box.width) * (end[1] - start[1]);
    duet.jump(place([along(path, 1, track_s, view.ratio), track_s]));
  });
}

// The drawings below `root`, by the facts that came with them. A place that is chosen in one goes to the players of `duet`,
// which play it on Enter where there is anything to be `heard`.
export class Alignment {
  constructor(root, data, duet, heard) {
    const section = (number) => root.querySelector(`[data-view="${number}"]`);
    const views = data.views.map((view, number) => view && new View(view, section(number), data, duet, heard));
    this.shown = views[data.shown];
    for (const radio of root.querySelectorAll("[name=group]")) {
      radio.addEventListener("change", () => {
        for (const view of root.querySelectorAll(".view")) view.hidden = view.dataset.view !== radio.value;
        if (!views[radio.value]) return;
        this.shown = views[radio.value];
        duet.set(this.shown);
      });
    }
    root.style.setProperty("--aspect", data.aspect);
    if (!this.shown) return;
    duet.set(this.shown);
    this.draw(this.shown.start.query, this.shown.start.track);
  }

  draw(query_s, track_s) {
    this.shown?.draw(query_s, track_s);
  }
}

// The slider between two players.
export function balance(slider, query, track) {
  slider.addEventListener("input", () => {
    query.volume = Math.min(1, 1 - slider.value);
    track.volume = Math.min(1, 1 + Number(slider.value));
  });
}
