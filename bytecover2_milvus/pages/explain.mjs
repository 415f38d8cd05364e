// The page of one pair: both recordings are in it.
import { Duet, clock } from "./duet.mjs";
import { Alignment, balance } from "./alignment.mjs";

const element = (id) => document.getElementById(id);
const data = JSON.parse(element("data").textContent);
const [query, track] = ["query", "track"].map(element);
const heard = element("query-sound").textContent !== "";
let alignment = null;

const duet = new Duet(query, track, { together: element("together"), turns: element("turns") }, {
  show(query_s, track_s) {
    alignment?.draw(query_s, track_s);
    element("place").value = `${clock(query_s)} of the query, ${clock(track_s)} of the track`;
  },
  trouble(player, error) {
    element("trouble").hidden = false;
    element("trouble").textContent = `This browser does not play the sound: ${error.message}`;
  },
});
if (heard) {
  for (const player of [query, track]) {
    const bytes = Uint8Array.from(atob(element(`${player.id}-sound`).textContent), (letter) => letter.charCodeAt(0));
    player.src = URL.createObjectURL(new Blob([bytes], { type: "audio/mpeg" }));
  }
  balance(element("balance"), query, track);
}
alignment = new Alignment(document.querySelector("main"), data, duet, heard);
element("start").addEventListener("click", () => duet.jump(alignment.shown.start));
