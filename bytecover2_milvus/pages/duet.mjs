// Two players that start at one place of a match, and go on in step or in turns.
const TURN_S = 6; // of each recording, when they play in turns
const AHEAD_S = 1; // within which a player that lags or leads is to be back in step
const LOST_S = 2; // out of step by more than this, it is set anew

export function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

export class Duet {
  // `match` has `start`, a place; `end_s`, a second of the first player; and `partner` and `origin`, the second of the
  // other player that belongs to one of the first, or the other way round, for whoever set out from a place. A place is
  // {query, track, follows}: seconds of both, and whether the match is followed from there. `show` is told of seconds of
  // both, `trouble` of what keeps the sound from being played.
  constructor(query, track, buttons, { show, trouble }) {
    Object.assign(this, { query, track, buttons, show, trouble, match: null, place: null, mode: null, turn: null, frame: 0 });
    for (const player of [query, track]) {
      player.addEventListener("play", () => (this.frame ||= requestAnimationFrame(() => this.follow())));
      player.addEventListener("pause", () => this.mode === "together" && !player.ended && this.pause());
      player.addEventListener("seeked", () => player.paused && this.place && show(query.currentTime, track.currentTime));
      player.addEventListener("error", () => trouble(player, player.error));
    }
    for (const [mode, button] of Object.entries(buttons)) {
      button.dataset.label = button.textContent;
      button.addEventListener("click", () => this.toggle(mode));
    }
    setInterval(() => this.keepStep(), 100);
  }

  set(match) {
    this.pause();
    this.match = match;
    this.jump(match.start);
  }

  jump(place) {
    this.place = place;
    this.query.currentTime = place.query;
    this.track.currentTime = place.track;
    this.show(place.query, place.track);
    if (this.mode === "turns") this.takeTurn(this.query, place.query);
  }

  toggle(mode) {
    const stop = this.mode === mode;
    this.pause();
    if (stop) return;
    this.setMode(mode);
    const now = this.query.currentTime;
    if (Math.abs(now - this.place.query) > 0.5) { // moved by hand
      this.place = { ...this.place, query: now, track: this.match.partner(now, this.place) };
    }
    this.jump(this.place.follows && this.place.query > this.match.end_s - 1 ? this.match.start : this.place);
    if (mode === "together") for (const player of [this.query, this.track]) this.play(player);
  }

  pause() {
    if (this.mode) {
      const now = this.query.currentTime;
      this.place = { ...this.place, query: now, track: this.match.partner(now, this.place) };
    }
    this.setMode(null);
    this.query.pause();
    this.track.pause();
    this.track.playbackRate = 1;
  }

  play(player) {
    player.play().catch((error) => error.name !== "AbortError" && this.trouble(player, error)); // a pause came before the sound
  }

  setMode(mode) {
    this.mode = mode;
    for (const [name, button] of Object.entries(this.buttons)) {
      button.setAttribute("aria-pressed", name === mode);
      button.textContent = name === mode ? "Pause" : button.dataset.label;
    }
  }

  takeTurn(player, from) {
    this.turn = { player, from };
    (player === this.query ? this.track : this.query).pause();
    player.currentTime = player === this.query ? from : this.match.partner(from, this.place);
    this.play(player);
  }

  // Ten times a second: the track back in step with the query, or the turn to the other one.
  keepStep() {
    if (!this.mode) return;
    const { query, track, match, place } = this;
    if (this.mode === "together") {
      const target = match.partner(query.currentTime, place);
      if (Math.abs(target - track.currentTime) > LOST_S) track.currentTime = target;
      const needed = (match.partner(query.currentTime + AHEAD_S, place) - track.currentTime) / AHEAD_S;
      track.playbackRate = Math.min(2, Math.max(0.5, needed));
      if (query.ended || track.ended || (place.follows && query.currentTime > match.end_s)) this.pause();
      return;
    }
    const { player, from } = this.turn;
    const until = player === query ? from + TURN_S : match.partner(from + TURN_S, place);
    if (player.currentTime < until && !player.ended) return;
    if (player === query) this.takeTurn(track, from);
    else if (place.follows && from + TURN_S >= match.end_s) this.pause();
    else this.takeTurn(query, from + TURN_S);
  }

  follow() {
    const { query, track, match, place } = this;
    this.frame = 0;
    if (query.paused && track.paused) return;
    if (this.mode !== "turns") this.show(query.currentTime, track.currentTime);
    else if (this.turn.player === track) this.show(match.origin(track.currentTime, place), track.currentTime);
    else this.show(query.currentTime, match.partner(query.currentTime, place));
    this.frame = requestAnimationFrame(() => this.follow());
  }
}
