// Players for the track, or the two tracks, of whichever button is pressed; and the search.
import { Duet, clock } from "./duet.mjs";

const element = (id) => document.getElementById(id);
const [query, track] = ["query", "track"].map(element);
const dock = document.querySelector(".dock");
const cards = [...document.querySelectorAll(".group")];
const texts = cards.map((card) => card.textContent.toLowerCase());

const duet = new Duet(query, track, { together: element("together"), turns: element("turns") }, {
  show(query_s, track_s) {
    element("place").value = `${clock(query_s)} and ${clock(track_s)}`;
  },
  trouble(player) {
    element("trouble").hidden = false;
    element("trouble").textContent = `${element(`${player.id}-name`).textContent}: this browser cannot play the file; is it still there?`;
  },
});

function load(player, address, name) {
  element(`${player.id}-name`).textContent = name;
  if (player.getAttribute("src") !== address) player.src = address;
}

// Both tracks at the start of what they share; from there seconds go by at the tempo of each.
function compare({ query: first, queryName, queryS, endS, track: second, name, trackS, ratio }) {
  const start = { query: Number(queryS), track: Number(trackS), follows: true };
  load(query, first, queryName);
  load(track, second, name);
  duet.set({
    start,
    end_s: Number(endS),
    partner: (query_s, from) => from.track + (query_s - from.query) / ratio,
    origin: (track_s, from) => from.query + (track_s - from.track) * ratio,
  });
}

document.querySelector("main").addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (!button) return;
  const pair = "query" in button.dataset;
  duet.pause();
  dock.hidden = false;
  element("trouble").hidden = true;
  query.parentElement.hidden = !pair;
  for (const id of ["start", "together", "turns", "place"]) element(id).hidden = !pair;
  if (pair) compare(button.dataset);
  else {
    load(track, button.dataset.track, button.dataset.name);
    duet.play(track);
  }
});
element("start").addEventListener("click", () => duet.jump(duet.match.start));

function filter() {
  const wanted = element("search").value.trim().toLowerCase();
  const unsettled = element("unsettled").checked;
  cards.forEach((card, i) => {
    card.hidden = !texts[i].includes(wanted) || (unsettled && card.dataset.unsettled !== "true");
  });
  const left = cards.filter((card) => !card.hidden).length;
  element("count").value = left === cards.length ? "" : `${left} of ${cards.length}`;
}
element("search").addEventListener("input", filter);
element("unsettled").addEventListener("change", filter);
document.querySelector(".filter").addEventListener("submit", (event) => event.preventDefault());
filter();
