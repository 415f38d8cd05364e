// The page of the service: a recording is asked for, its matches are listed, and one at a time is compared with it.
import { Duet, clock } from "./duet.mjs";
import { Alignment, balance } from "./alignment.mjs";

const MATCHES = 10;
const LIKELY = 0.5; // from which a verdict says that two are one work
const MIB = 2 ** 20;

const element = (id) => document.getElementById(id);
const [query, track, compared] = ["query", "track", "compared"].map(element);
const judging = document.querySelector(".judging");
let facts; // of the service
let token = "";
let asked = null; // {file, answer, judged}: what is looked for, what was found, and what was said of it, by track_id
let opened = null; // the match that is compared
let alignment = null; // its drawings
let under_way = new AbortController(); // what is fetched, until something else is wanted
let recorder = null;

const duet = new Duet(query, track, { together: element("together"), turns: element("turns") }, {
  show(query_s, track_s) {
    alignment?.draw(query_s, track_s);
    element("place").value = `${clock(query_s)} of the query, ${clock(track_s)} of the track`;
  },
  trouble(player, error) {
    element("trouble").hidden = false;
    element("trouble").textContent = `The ${player.id} cannot be played here: ${error.message || "no such file, or of a kind that this browser does not know"}`;
  },
});
balance(element("balance"), query, track);
element("start").addEventListener("click", () => duet.jump(duet.match.start));

function made(name, className, ...children) {
  const node = document.createElement(name);
  node.className = className;
  node.append(...children);
  return node;
}

function say(words, failed = false) {
  element("status").textContent = words;
  element("status").classList.toggle("failed", failed);
}

// The answer of the service; what it refuses becomes an error with its words.
async function call(path, options = {}) {
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({ error: `${response.status} ${response.statusText}` }));
  throw Object.assign(new Error(error), { status: response.status });
}

async function send(path, body, options = {}) {
  return (await call(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, ...options })).json();
}

async function begin() {
  try {
    facts = await (await call("v1/service")).json();
  } catch (error) {
    element("access").hidden = error.status !== 401;
    if (error.status !== 401 || token) say(error.message, true);
    if (error.status === 401) element("token").focus();
    return;
  }
  say("");
  element("access").hidden = true;
  element("ask").hidden = false;
  element("collection").textContent = facts.collection;
  element("bounds").textContent = `Up to ${Math.floor(facts.maximum_bytes / MIB)} MiB and ${+(facts.maximum_s / 60).toFixed(1)} minutes.`;
  element("record").hidden = !(navigator.mediaDevices && "MediaRecorder" in globalThis); // only where the page came safely
}

async function ask(file) {
  under_way.abort();
  under_way = new AbortController();
  const { signal } = under_way;
  close();
  element("found").hidden = true;
  element("working").hidden = false;
  say(`Listening to ${file.name} …`);
  const chosen = new DataTransfer();
  chosen.items.add(file);
  element("file").files = chosen.files; // shows its name, however it came
  const form = new FormData();
  form.append("file", file);
  try {
    const response = await call(`v1/query?min_probability=0&top_k=${MATCHES}&features=true`, { method: "POST", body: form, signal });
    asked = { file, answer: await response.json(), judged: new Map() };
    URL.revokeObjectURL(query.src);
    query.src = URL.createObjectURL(file);
    say(asked.answer.warning);
    list(asked.answer);
  } catch (error) {
    if (error.name === "AbortError") return;
    say(error.message, true);
  }
  element("working").hidden = true;
}

function list({ query: name, duration_s, matches, judged, note }) {
  const likely = matches.filter((match) => match.probability >= LIKELY).length;
  const what = `${name} (${clock(duration_s)})`;
  element("summary").textContent = !judged
    ? `The closest to ${what}. Not judged: ${note}`
    : likely
      ? `${likely === 1 ? "One probable cover" : `${likely} probable covers`} of ${what}`
      : `No probable cover of ${what}; these are the closest`;
  element("matches").replaceChildren(...matches.map(row));
  element("found").hidden = false;
  if (likely) open(element("matches").firstElementChild, matches[0]);
}

function row(match) {
  const { artist, title, track_id, work_id, evidence, similarity } = match;
  const about = [artist, title && track_id, work_id && `work ${work_id}`, clock(match.duration_s)];
  const button = made("button", "match",
    made("span", "rank", String(match.rank)),
    made("span", "title", title || track_id),
    made("span", `verdict ${match.probability >= LIKELY ? "one" : ""}`, match.verdict),
    made("span", "about", about.filter(Boolean).join(" · ")),
    made("span", "evidence", evidence || `Similarity ${similarity.toFixed(2)}`));
  button.type = "button";
  button.setAttribute("aria-expanded", "false");
  const item = made("li", "", button);
  button.addEventListener("click", () => (opened === match ? close() : open(item, match)));
  return item;
}

function close() {
  duet.pause();
  compared.closest("li")?.querySelector(".match").setAttribute("aria-expanded", "false");
  compared.hidden = true;
  document.body.append(compared); // the list may go, it stays
  opened = alignment = null;
}

async function open(item, match) {
  close();
  opened = match;
  item.append(compared);
  item.querySelector(".match").setAttribute("aria-expanded", "true");
  const { answer } = asked;
  for (const id of ["trouble", "drawn"]) element(id).hidden = true;
  for (const id of ["words", "kept"]) element(id).textContent = "";
  for (const id of ["facts", "drawings"]) element(id).replaceChildren();
  element("query-name").textContent = answer.query;
  element("query-length").textContent = clock(answer.duration_s);
  element("track-name").textContent = match.title || match.track_id;
  element("track-length").textContent = clock(match.duration_s);
  judging.hidden = !facts.labels;
  show(asked.judged.get(match.track_id));
  for (const node of [track.parentElement, ...compared.querySelectorAll(".controls, .controls + .hint")]) node.hidden = !facts.audio;
  element("silent").hidden = facts.audio;
  compared.hidden = false;
  const straight = { query: match.query_start_s ?? 0, track: match.start_s, follows: true };
  const ratio = match.tempo_ratio ?? 1;
  duet.set({ // until the path is known
    start: straight,
    end_s: match.query_end_s ?? answer.duration_s,
    partner: (query_s, from) => from.track + (query_s - from.query) / ratio,
    origin: (track_s, from) => from.query + (track_s - from.track) * ratio,
  });
  try {
    await Promise.all([facts.audio && listen(match), answer.chroma && draw(match)]);
  } catch (error) {
    if (opened !== match || error.name === "AbortError") return;
    element("trouble").hidden = false;
    element("trouble").textContent = error.message;
  }
}

// A player cannot send the token, so what needs one is fetched whole.
async function listen(match) {
  const address = `v1/tracks/${encodeURIComponent(match.track_id)}/audio`;
  const sound = token && (await (await call(address, { signal: under_way.signal })).blob());
  if (opened !== match) return;
  URL.revokeObjectURL(track.src);
  track.src = sound ? URL.createObjectURL(sound) : address;
  duet.jump(duet.match.start);
}

async function draw(match) {
  const { answer } = asked;
  const { track_id, similarity, score, probability } = match;
  const pair = { query: answer.query, duration_s: answer.duration_s, chroma: answer.chroma, track_id, similarity, score, probability };
  const drawn = await send("v1/alignment", pair, { signal: under_way.signal });
  if (opened !== match) return;
  element("words").textContent = drawn.words;
  const terms = drawn.facts.map(([name, value]) => made("div", "", made("dt", "", name), made("dd", "", value)));
  element("facts").replaceChildren(...terms);
  // HTML that the service has drawn: numbers and pictures, and no name that somebody gave.
  element("drawings").replaceChildren(...new DOMParser().parseFromString(drawn.drawings, "text/html").body.children);
  element("drawn").hidden = false;
  alignment = new Alignment(element("drawings"), drawn.data, duet, facts.audio);
}

function show(same_work) {
  element("same").setAttribute("aria-pressed", same_work === true);
  element("other").setAttribute("aria-pressed", same_work === false);
}

async function judge(same_work) {
  const match = opened;
  const { answer, judged } = asked;
  const { track_id, probability } = match;
  let told = "Saved";
  try {
    await send("v1/labels", { query: answer.query, content_hash: answer.content_hash, track_id, same_work, probability });
    judged.set(track_id, same_work);
  } catch (error) {
    told = `Not saved: ${error.message}`;
  }
  if (opened !== match) return;
  show(judged.get(track_id));
  element("kept").value = told;
}

async function record() {
  if (recorder) {
    recorder.stop();
    return;
  }
  let stream;
  try { // as the room sounds: what helps speech harms music
    stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
  } catch (error) {
    say(`No microphone: ${error.message}`, true);
    return;
  }
  const parts = [];
  const button = element("record");
  const begun = performance.now();
  recorder = new MediaRecorder(stream);
  const counted = setInterval(() => {
    const seconds = (performance.now() - begun) / 1000;
    button.textContent = `Stop (${clock(seconds)})`;
    if (seconds > facts.maximum_s - 1) recorder?.stop();
  }, 250);
  recorder.addEventListener("dataavailable", ({ data }) => parts.push(data));
  recorder.addEventListener("stop", () => {
    clearInterval(counted);
    for (const source of stream.getTracks()) source.stop();
    const [type] = recorder.mimeType.split(";");
    const suffix = { "audio/mp4": "m4a", "audio/ogg": "ogg" }[type] ?? "webm";
    recorder = null;
    button.textContent = "Record";
    button.classList.remove("recording");
    ask(new File(parts, `recording.${suffix}`, { type }));
  });
  recorder.start();
  button.classList.add("recording");
  button.textContent = "Stop (0:00)";
}

element("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = element("token").value;
  begin();
});
element("file").addEventListener("change", ({ target }) => target.files[0] && ask(target.files[0]));
element("record").addEventListener("click", record);
element("same").addEventListener("click", () => judge(true));
element("other").addEventListener("click", () => judge(false));

// A file may be dropped anywhere on the page; the box says where it goes.
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    element("ask").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    const [file] = kind === "drop" ? event.dataTransfer.files : [];
    if (file && facts) ask(file);
  });
}

begin();
