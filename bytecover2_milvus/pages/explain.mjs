// Two players that keep to the path of an alignment, and the drawing that shows where they are.
const TURN_S = 6; // of each recording, when they play in turns
const STEP_S = 5; // of the query, for an arrow key
const SNAP_PX = 24; // a click nearer to the path than this is meant for it
const AHEAD_S = 1; // within which a player that lags or leads is to be back in step
const LOST_S = 2; // out of step by more than this, it is set anew

const element = (id) => document.getElementById(id);
const data = JSON.parse(element("data").textContent);
const [query, track] = ["query", "track"].map(element);
const heard = element("query-sound").textContent !== "";
const seen = data.views.map((view, number) => view && new View(view, document.querySelector(`[data-view="${number}"]`)));
let shown = seen[data.shown];
let place = null; // {query, track}: seconds, and whether the path is followed from there
let mode = null; // null, "together" or "turns"
let turn = null; // {player, from}: whose turn, and since which second of the query
let frame = 0;

function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

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

function View(view, section) {
  const path = view.path.map((point) => point.map((frames) => frames * data.frame_s)); // seconds of query and track
  const matrix = section.querySelector(".matrix");
  const find = (name) => section.querySelector(name);
  const [start, end] = [path[0], path.at(-1)];
  Object.assign(this, { section, matrix, start: { query: start[0], track: start[1], follows: true }, end_s: end[0] });

  // The second of the track that belongs to one of the query, for whoever set out from `from`.
  this.partner = (query_s, from) =>
    from.follows ? along(path, 0, query_s, 1 / view.ratio) : from.track + (query_s - from.query) / view.ratio;

  // And the other way round.
  this.origin = (track_s, from) =>
    from.follows ? along(path, 1, track_s, view.ratio) : from.query + (track_s - from.track) * view.ratio;

  this.at = (query_s) => {
    const within = Math.min(Math.max(query_s, start[0]), end[0]);
    return { query: within, track: along(path, 0, within, 1 / view.ratio), follows: true };
  };

  this.draw = (query_s, track_s) => {
    const [x, y] = [track_s / data.frame_s, query_s / data.frame_s];
    find(".cross").setAttribute("d", `M0 ${y}H${data.frames[1]}M${x} 0V${data.frames[0]}`);
    find(".spot").setAttribute("d", `M${x} ${y}h0`);
    const inside = track_s - start[1] >= 0 && track_s <= end[1];
    for (const mark of section.querySelectorAll(".mark")) {
      mark.setAttribute("d", inside ? `M${x - start[1] / data.frame_s} 0v12` : "");
    }
    matrix.setAttribute("aria-valuenow", Math.round((100 * (query_s - start[0])) / (end[0] - start[0])));
    matrix.setAttribute("aria-valuetext", `${clock(query_s)} in the query, ${clock(track_s)} in the track`);
  };

  matrix.addEventListener("click", (event) => {
    const box = matrix.getBoundingClientRect();
    const second = [
      ((event.clientY - box.top) / box.height) * data.frames[0] * data.frame_s,
      ((event.clientX - box.left) / box.width) * data.frames[1] * data.frame_s,
    ];
    const pixels = [box.height / data.frames[0] / data.frame_s, box.width / data.frames[1] / data.frame_s]; // per second
    const far = ([q, t]) => Math.hypot((q - second[0]) * pixels[0], (t - second[1]) * pixels[1]);
    const nearest = path.reduce((best, point) => (far(point) < far(best) ? point : best));
    const follows = far(nearest) <= SNAP_PX;
    const [q, t] = follows ? nearest : second;
    jump({ query: q, track: t, follows });
  });

  matrix.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: STEP_S, ArrowDown: STEP_S, ArrowLeft: -STEP_S, ArrowUp: -STEP_S };
    if (event.key in steps) jump(this.at(place.query + steps[event.key]));
    else if (event.key === "Home") jump(this.start);
    else if (event.key === "End") jump(this.at(end[0]));
    else if ((event.key === "Enter" || event.key === " ") && heard) play("together");
    else return;
    event.preventDefault();
  });

  find(".strips").addEventListener("click", (event) => {
    const box = find(".strip").getBoundingClientRect();
    const track_s = start[1] + ((event.clientX - box.left) / box.width) * (end[1] - start[1]);
    jump({ query: this.origin(track_s, this.start), track: track_s, follows: true });
  });
}

function show(query_s, track_s) {
  shown.draw(query_s, track_s);
  element("place").value = `${clock(query_s)} of the query, ${clock(track_s)} of the track`;
}

function jump(to) {
  place = to;
  query.currentTime = to.query;
  track.currentTime = to.track;
  show(to.query, to.track);
  if (mode === "turns") takeTurn(query, to.query);
}

async function play(wanted) {
  const stop = mode === wanted;
  pause();
  if (stop) return;
  setMode(wanted);
  const now = query.currentTime;
  if (Math.abs(now - place.query) > 0.5) place = { ...place, query: now, track: shown.partner(now, place) }; // moved by hand
  jump(place.follows && place.query > shown.end_s - 1 ? shown.start : place);
  try {
    if (wanted === "together") await Promise.all([query.play(), track.play()]);
  } catch (error) {
    if (error.name !== "AbortError") report(error); // a pause before the sound began
  }
}

function pause() {
  if (mode) place = { ...place, query: query.currentTime, track: shown.partner(query.currentTime, place) };
  setMode(null);
  query.pause();
  track.pause();
  track.playbackRate = 1;
}

function setMode(next) {
  mode = next;
  for (const name of ["together", "turns"]) {
    const on = mode === name;
    element(name).setAttribute("aria-pressed", on);
    element(name).textContent = on ? "Pause" : name === "together" ? "Play together" : "Play in turns";
  }
}

function takeTurn(player, from) {
  turn = { player, from };
  (player === query ? track : query).pause();
  player.currentTime = player === query ? from : shown.partner(from, place);
  player.play().catch((error) => error.name !== "AbortError" && report(error));
}

// Ten times a second: the track back in step with the query, or the turn to the other one.
function keepStep() {
  if (!mode) return;
  if (mode === "together") {
    const target = shown.partner(query.currentTime, place);
    if (Math.abs(target - track.currentTime) > LOST_S) track.currentTime = target;
    const needed = (shown.partner(query.currentTime + AHEAD_S, place) - track.currentTime) / AHEAD_S;
    track.playbackRate = Math.min(2, Math.max(0.5, needed));
    if (query.ended || track.ended || (place.follows && query.currentTime > shown.end_s)) pause();
    return;
  }
  const { player, from } = turn;
  const until = player === query ? from + TURN_S : shown.partner(from + TURN_S, place);
  if (player.currentTime < until && !player.ended) return;
  if (player === query) takeTurn(track, from);
  else if (place.follows && from + TURN_S >= shown.end_s) pause();
  else takeTurn(query, from + TURN_S);
}

function follow() {
  frame = 0;
  if (query.paused && track.paused) return;
  if (mode === "turns" && turn.player === track) show(shown.origin(track.currentTime, place), track.currentTime);
  else if (mode === "turns") show(query.currentTime, shown.partner(query.currentTime, place));
  else show(query.currentTime, track.currentTime);
  frame = requestAnimationFrame(follow);
}

function report(error) {
  element("trouble").hidden = false;
  element("trouble").textContent = `This browser does not play the sound: ${error.message}`;
}

function choose(number) {
  for (const section of document.querySelectorAll(".view")) section.hidden = Number(section.dataset.view) !== number;
  if (!seen[number]) return;
  pause();
  shown = seen[number];
  jump(shown.start);
}

if (heard) {
  for (const player of [query, track]) {
    const bytes = Uint8Array.from(atob(element(`${player.id}-sound`).textContent), (letter) => letter.charCodeAt(0));
    player.src = URL.createObjectURL(new Blob([bytes], { type: "audio/mpeg" }));
    player.addEventListener("play", () => (frame ||= requestAnimationFrame(follow)));
    player.addEventListener("error", () => report(player.error));
    player.addEventListener("pause", () => mode === "together" && !player.ended && pause());
    player.addEventListener("seeked", () => player.paused && shown && show(query.currentTime, track.currentTime));
  }
  element("balance").addEventListener("input", ({ target }) => {
    query.volume = Math.min(1, 1 - target.value);
    track.volume = Math.min(1, 1 + Number(target.value));
  });
}
if (shown) {
  element("start").addEventListener("click", () => jump(shown.start));
  element("together").addEventListener("click", () => play("together"));
  element("turns").addEventListener("click", () => play("turns"));
  for (const radio of document.querySelectorAll("[name=group]")) {
    radio.addEventListener("change", () => choose(Number(radio.value)));
  }
  setInterval(keepStep, 100);
  jump(shown.start);
}
